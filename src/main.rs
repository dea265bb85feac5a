//! Words in, command run, exit status out.

use std::process::ExitCode;

use clap::Parser as _;
use pop_before_smtp::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
