//! The program behind `cargo xtask`: parse, run, and one clear sentence on failure.
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match xtask::cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            xtask::say::error(&error);
            ExitCode::FAILURE
        }
    }
}
