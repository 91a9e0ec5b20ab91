//! The command line: flags become settings here and in each command's `Args`, nowhere else.

use clap::{Parser, Subcommand};

use crate::commands::{
    align, caption, dataset, decode_picture, eval, features, index, meteor_data, pack, pull, search, serve, train,
};
use crate::demo;
use crate::interrupt;
use crate::ui::Ui;

/// Find photos by sentence, see which word matched which region, and describe photos, on a CPU, offline.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Print results as JSON on stdout
    #[arg(long, global = true)]
    json: bool,
    /// No talk and no progress on stderr
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    #[command(subcommand)]
    Dataset(dataset::Command),
    Features(features::Args),
    #[command(subcommand)]
    Train(train::Command),
    Align(align::Args),
    #[command(subcommand)]
    Eval(eval::Command),
    Caption(caption::Args),
    Index(index::Args),
    Search(search::Args),
    Serve(serve::Args),
    Info(pack::InfoArgs),
    Pack(pack::PackArgs),
    #[command(subcommand)]
    MeteorData(meteor_data::Command),
    Pull(pull::Args),
    #[command(hide = true)]
    DecodePicture(decode_picture::Args),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let ui = Ui { json: self.json, quiet: self.quiet };
        if ui.quiet {
            interrupt::be_quiet();
        }
        match self.command {
            Command::Demo(args) => demo::run(&args, &ui),
            Command::Dataset(command) => dataset::run(command, &ui),
            Command::Features(args) => features::run(&args, &ui),
            Command::Train(command) => train::run(&command, &ui),
            Command::Align(args) => align::run(&args, &ui),
            Command::Eval(command) => eval::run(command, &ui),
            Command::Caption(args) => caption::run(&args, &ui),
            Command::Index(args) => index::run(&args, &ui),
            Command::Search(args) => search::run(&args, &ui),
            Command::Serve(args) => serve::run(&args, &ui),
            Command::Info(args) => pack::info(&args, &ui),
            Command::Pack(args) => pack::run(&args, &ui),
            Command::MeteorData(command) => meteor_data::run(&command, &ui),
            Command::Pull(args) => pull::run(&args, &ui),
            Command::DecodePicture(args) => decode_picture::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
