//! The program behind `cargo xtask`: parse, run, and one clear sentence on failure.
use std::process::ExitCode;

fn main() -> ExitCode {
    match xtask::cli::run() {
        Ok(code) => code,
        Err(error) => {
            xtask::say::error(&error);
            ExitCode::FAILURE
        }
    }
}
