//! The program: parses the command line, runs the command, returns its exit status.

use std::process::ExitCode;

use clap::Parser as _;
use pop_before_smtp::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
