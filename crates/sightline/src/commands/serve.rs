//! `serve`: a report as a page on this machine.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::report;
use crate::server::{self, Page};
use crate::ui::Ui;

/// Serve a report on this machine
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline eval retrieval --model runs/align --dataset d.json --features f.features --html report.html
  sightline serve --report report.json")]
pub struct Args {
    /// A report's record, the .json that is written beside the .html
    #[arg(long)]
    report: PathBuf,
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = server::DEFAULT_PORT)]
    port: u16,
}

/// Serves until Ctrl-C.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let page = Page::new(&report::read_json(&args.report)?)?;
    server::serve(page, args.port, |address| ui.say(format_args!("open http://{address} (Ctrl-C ends it)")))
}
