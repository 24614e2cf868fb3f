//! waybillctl: what operators do with a running Waybill, one verb a file.

mod cli;
mod commands;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Arguments, Command};
use crate::exit::Exit;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Topics(topics) => commands::topics::run(topics).await,
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::progress(&format!("error: {error:#}"));
            Exit::Failed.into()
        }
    }
}
