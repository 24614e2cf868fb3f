//! The command line: `cargo xtask COMMAND`.
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{bench, chaos, ctl, demo, down, environment, launch, lint, logs, status, test, token, tools, up};

/// The project's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the whole system on real servers and keeps it running; Ctrl-C stops it.
    Up(up::UpArgs),
    /// Stops what `up` started, also what a crashed `up` left behind.
    Down,
    /// Tells what runs, where, and whether it is ready.
    Status(status::StatusArgs),
    /// Prints the logs of the system's processes.
    Logs(logs::LogsArgs),
    /// Drives four orders through the running system and tells what happened.
    Demo(demo::DemoArgs),
    /// Prints an access token for development.
    Token(token::TokenArgs),
    /// Runs waybillctl, the operators' command line, on the running system.
    Ctl(tools::PassedArgs),
    /// Prints the system's addresses as variables, for `eval "$(cargo xtask env)"`; operators' tools come on the path.
    Env,
    /// Runs one of Kafka's own tools against the running broker.
    Kafka(tools::KafkaArgs),
    /// Runs kcat against the running broker.
    Kcat(tools::PassedArgs),
    /// Runs psql on a service's database.
    Psql(tools::PsqlArgs),
    /// Runs every test, with a Kafka and a Postgres of its own.
    Test(test::TestArgs),
    /// Runs the long form of a test that kills and freezes what it watches, for as long as it is told.
    Chaos(chaos::ChaosArgs),
    /// Measures release programs, with a Kafka and a Postgres of their own.
    Bench(bench::BenchArgs),
    /// Runs every check on the code.
    Lint(lint::LintArgs),
    /// Becomes a program that ends with its parent (how `up` starts processes).
    #[command(hide = true)]
    Launch(launch::LaunchArgs),
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.command {
            Command::Up(args) => up::run(args),
            Command::Down => down::run(),
            Command::Status(args) => status::run(args),
            Command::Logs(args) => logs::run(args),
            Command::Demo(args) => demo::run(args),
            Command::Token(args) => token::run(args),
            Command::Ctl(args) => ctl::run(args),
            Command::Env => environment::run(),
            Command::Kafka(args) => tools::kafka(args),
            Command::Kcat(args) => tools::kcat(args),
            Command::Psql(args) => tools::psql(args),
            Command::Test(args) => test::run(args),
            Command::Chaos(args) => chaos::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Lint(args) => lint::run(args),
            Command::Launch(args) => launch::launch(args),
        }
    }
}
