//! The command line: `cargo xtask COMMAND`.
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{ArgMatches, Command};

use crate::{bench, chaos, ctl, demo, down, environment, launch, lint, logs, status, test, token, tools, up};

/// One command: its word, what it does, its arguments, its work.
struct Verb {
    name: &'static str,
    about: &'static str,
    arguments: fn(Command) -> Command,
    run: fn(&ArgMatches) -> Result<ExitCode>,
}

const VERBS: [Verb; 16] = [
    Verb {
        name: "up",
        about: "Starts the whole system on real servers and keeps it running; Ctrl-C stops it",
        arguments: up::UpArgs::describe,
        run: |matches| up::run(&up::UpArgs::read(matches)),
    },
    Verb {
        name: "down",
        about: "Stops what `up` started, also what a crashed `up` left behind",
        arguments: none,
        run: |_| down::run(),
    },
    Verb {
        name: "status",
        about: "Tells what runs, where, and whether it is ready",
        arguments: status::StatusArgs::describe,
        run: |matches| status::run(&status::StatusArgs::read(matches)),
    },
    Verb {
        name: "logs",
        about: "Prints the logs of the system's processes",
        arguments: logs::LogsArgs::describe,
        run: |matches| logs::run(&logs::LogsArgs::read(matches)),
    },
    Verb {
        name: "demo",
        about: "Drives four orders through the running system and tells what happened",
        arguments: demo::DemoArgs::describe,
        run: |matches| demo::run(&demo::DemoArgs::read(matches)),
    },
    Verb {
        name: "token",
        about: "Prints an access token for development",
        arguments: token::TokenArgs::describe,
        run: |matches| token::run(&token::TokenArgs::read(matches)?),
    },
    Verb {
        name: "ctl",
        about: "Runs waybillctl, the operators' command line, on the running system",
        arguments: tools::PassedArgs::describe,
        run: |matches| ctl::run(&tools::PassedArgs::read(matches)),
    },
    Verb {
        name: "env",
        about: "Prints the system's addresses as variables, for `eval \"$(cargo xtask env)\"`; operators' tools come on the path",
        arguments: none,
        run: |_| environment::run(),
    },
    Verb {
        name: "kafka",
        about: "Runs one of Kafka's own tools against the running broker",
        arguments: tools::KafkaArgs::describe,
        run: |matches| tools::kafka(&tools::KafkaArgs::read(matches)),
    },
    Verb {
        name: "kcat",
        about: "Runs kcat against the running broker",
        arguments: tools::PassedArgs::describe,
        run: |matches| tools::kcat(&tools::PassedArgs::read(matches)),
    },
    Verb {
        name: "psql",
        about: "Runs psql on a service's database",
        arguments: tools::PsqlArgs::describe,
        run: |matches| tools::psql(&tools::PsqlArgs::read(matches)),
    },
    Verb {
        name: "test",
        about: "Runs every test, with a Kafka and a Postgres of its own",
        arguments: test::TestArgs::describe,
        run: |matches| test::run(&test::TestArgs::read(matches)),
    },
    Verb {
        name: "chaos",
        about: "Runs the long form of a test that kills and freezes what it watches, for as long as it is told",
        arguments: chaos::ChaosArgs::describe,
        run: |matches| chaos::run(&chaos::ChaosArgs::read(matches)?),
    },
    Verb {
        name: "bench",
        about: "Measures release programs, with a Kafka and a Postgres of their own",
        arguments: bench::BenchArgs::describe,
        run: |matches| bench::run(&bench::BenchArgs::read(matches)?),
    },
    Verb {
        name: "lint",
        about: "Runs every check on the code",
        arguments: lint::LintArgs::describe,
        run: |matches| lint::run(&lint::LintArgs::read(matches)),
    },
    Verb {
        name: "launch",
        about: "Becomes a program that ends with its parent (how `up` starts processes)",
        arguments: launch::LaunchArgs::describe,
        run: |matches| launch::launch(&launch::LaunchArgs::read(matches)),
    },
];

fn none(command: Command) -> Command {
    command
}

fn command() -> Command {
    let verb = |verb: &Verb| (verb.arguments)(Command::new(verb.name).about(verb.about));
    Command::new("cargo xtask")
        .bin_name("cargo xtask")
        .about("The project's commands")
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(VERBS.iter().map(verb))
}

/// Reads the command line and runs its command to the end.
///
/// A line that can not be understood, or asks for help, is answered and ends the process.
///
/// # Errors
/// What the command says.
pub fn run() -> Result<ExitCode> {
    let matches = command().get_matches();
    let (name, matches) = matches.subcommand().context("no command was given")?;
    let verb = VERBS.iter().find(|verb| verb.name == name);
    (verb.context("the command is not known")?.run)(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap's own check of names, defaults and orders, which else speaks at the first use.
    #[test]
    fn every_command_is_described_soundly() {
        command().debug_assert();
    }

    #[test]
    fn what_is_passed_on_is_not_read() {
        for line in
            ["kafka topics --list --help", "kcat -L -b x", "psql orders -c select", "ctl verify --json"]
        {
            let words = ["cargo xtask"].into_iter().chain(line.split(' '));
            let matches = command().try_get_matches_from(words).unwrap();
            let passed = crate::arguments::passed_on(matches.subcommand().unwrap().1);
            assert!(line.ends_with(passed.last().unwrap().to_str().unwrap()), "{line}: {passed:?}");
        }
    }

    #[test]
    fn choices_are_read_by_their_words() {
        let matches = command().try_get_matches_from("cargo_xtask token --sub s --role king".split(' '));
        assert!(matches.unwrap_err().to_string().contains("operator"), "the words that are known are told");
    }
}
