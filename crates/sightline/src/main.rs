//! The program: parse, resolve, run, report.

use std::process::ExitCode;

use clap::Parser;
use sightline::cli::Cli;
use sightline::ui;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if ui::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sightline: {}", ui::one_line(&error));
            ExitCode::from(if ui::is_usage(&error) { 2 } else { 1 })
        }
    }
}
