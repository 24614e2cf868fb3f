//! waybillctl: what operators do with a running Waybill, one verb a file.

mod cli;
mod commands;
mod contract;
mod difference;
mod exit;
mod operator;
mod output;
mod table;
mod verify;
mod watch;
mod when;

use std::process::ExitCode;

use clap::Parser as _;
use waybill_messaging::security::Security;
use waybill_runtime::config::{Environment, exit_on_mistakes};

use crate::cli::{Arguments, Command};
use crate::exit::Exit;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut env = Environment::from_process();
    Security::read(&mut env).install();
    exit_on_mistakes(env.finish());
    let done = match arguments.command {
        Command::Topics(topics) => commands::topics::run(topics).await,
        Command::Schemas(schemas) => commands::schemas::run(schemas).await,
        Command::Events(events) => commands::events::run(events).await,
        Command::DeadLetters(letters) => commands::dead_letters::run(letters).await,
        Command::Parked(parked) => commands::parked::run(parked).await,
        Command::Outbox(outbox) => commands::outbox::run(outbox).await,
        Command::Saga(saga) => commands::saga::run(saga).await,
        Command::Order(order) => commands::order::run(order).await,
        Command::Audit(audit) => commands::audit::run(audit).await,
        Command::Verify(options) => commands::verify::run(options).await,
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) if output::is_closed(&error) => Exit::Done.into(),
        Err(error) => {
            output::progress(&format!("error: {error:#}"));
            Exit::from(&error).into()
        }
    }
}
