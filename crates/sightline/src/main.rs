//! The program: parse, resolve, run, report.

use std::process::ExitCode;

use clap::Parser;
use sightline::cli::Cli;
use sightline::ui;

/// Every step of a training asks for the same large blocks again; the C library gives them back to the system each time,
/// and the system clears each page anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if ui::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            ui::aside(format_args!("sightline: {}", ui::one_line(&error)));
            ExitCode::from(if ui::is_usage(&error) { 2 } else { 1 })
        }
    }
}
