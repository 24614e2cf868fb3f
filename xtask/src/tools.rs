//! Passing through to other people's tools with the address filled in: Kafka's own, kcat, psql.
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Arg, ArgMatches, Command as Line};

use crate::arguments::{passed, passed_on, value};
use crate::layout::Layout;
use crate::prerequisites::{self, Need};
use crate::servers::{self, KAFKA_VARIABLE, POSTGRES, POSTGRES_VARIABLE, kafka, wire};
use crate::services;
use crate::state::State;
use crate::stop::Stop;

/// Kafka's tools by the names of their shell scripts.
pub(crate) const TOOLS: [(&str, &str); 12] = [
    ("acls", "org.apache.kafka.tools.AclCommand"),
    ("broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
    ("configs", "kafka.admin.ConfigCommand"),
    ("console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("console-producer", "org.apache.kafka.tools.ConsoleProducer"),
    ("consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
    ("get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
    ("groups", "org.apache.kafka.tools.GroupsCommand"),
    ("log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
    ("topics", "org.apache.kafka.tools.TopicCommand"),
    ("transactions", "org.apache.kafka.tools.TransactionsCommand"),
];

const LOGGING: &str = include_str!("../servers/log4j2-tools.properties");

/// Arguments of `kafka`.
#[derive(Debug)]
pub(crate) struct KafkaArgs {
    tool: String,
    args: Vec<OsString>,
}

impl KafkaArgs {
    pub(crate) fn describe(line: Line) -> Line {
        let tool = Arg::new("tool").value_name("TOOL").required(true);
        line.disable_help_flag(true)
            .arg(tool.help(
                "console-consumer, console-producer, topics, consumer-groups, configs, get-offsets ...",
            ))
            .arg(passed("The tool's own arguments; --bootstrap-server is filled in"))
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        Self { tool: value(matches, "tool"), args: passed_on(matches) }
    }
}

/// Arguments of a tool that is passed through.
#[derive(Debug)]
pub(crate) struct PassedArgs {
    pub(crate) args: Vec<OsString>,
}

impl PassedArgs {
    pub(crate) fn describe(line: Line) -> Line {
        line.disable_help_flag(true).arg(passed("The tool's own arguments"))
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        Self { args: passed_on(matches) }
    }
}

/// Arguments of `psql`.
#[derive(Debug)]
pub(crate) struct PsqlArgs {
    service: String,
    args: Vec<OsString>,
}

impl PsqlArgs {
    pub(crate) fn describe(line: Line) -> Line {
        let service = Arg::new("service").value_name("SERVICE").required(true);
        line.disable_help_flag(true)
            .arg(service.help("orders, inventory or payments; postgres for the server itself"))
            .arg(passed("psql's own arguments"))
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        Self { service: value(matches, "service"), args: passed_on(matches) }
    }
}

/// Becomes one of Kafka's tools.
pub(crate) fn kafka(args: &KafkaArgs) -> Result<ExitCode> {
    Err(become_tool(kafka_command(&args.tool, &args.args)?))
}

/// One of Kafka's tools, ready to run.
pub(crate) fn kafka_command(tool: &str, args: &[OsString]) -> Result<Command> {
    let tool = tool.strip_prefix("kafka-").unwrap_or(tool).trim_end_matches(".sh");
    let known = || TOOLS.map(|(name, _)| name).join(", ");
    let class = TOOLS.iter().find(|(name, _)| *name == tool);
    let (_, class) =
        class.with_context(|| format!("there is no Kafka tool `{tool}` here; there are {}", known()))?;
    let layout = Layout::find()?;
    let fetched = servers::kafka_jars(&layout)?;
    prerequisites::ensure(&[Need::Java], &Stop::default())?;
    let logging = layout.cache.join("log4j2-tools.properties");
    fs::write(&logging, LOGGING).with_context(|| format!("could not write {}", logging.display()))?;

    let mut command = Command::new(prerequisites::java());
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]);
    let archive = kafka::archive(&fetched);
    if archive.exists() {
        command
            .arg(format!("-XX:SharedArchiveFile={}", archive.display()))
            .arg("-Xlog:disable")
            .arg("-Xlog:all=error:stderr");
    }
    command.arg(kafka::logging_flag(&logging)).args(["-cp", &kafka::class_path(&fetched), class]);
    if !names_a_server(args) {
        command.args(["--bootstrap-server", &bootstrap()?]);
    }
    command.args(args);
    Ok(command)
}

/// Whether the arguments say whom to talk to (or only ask for help).
fn names_a_server(args: &[OsString]) -> bool {
    const OPTIONS: [&str; 4] = ["--bootstrap-server", "--bootstrap-controller", "--help", "--version"];
    let said = |arg: &OsString| {
        OPTIONS.iter().any(|option| {
            arg.to_str().is_some_and(|arg| arg == *option || arg.starts_with(&format!("{option}=")))
        })
    };
    args.iter().any(said)
}

/// Becomes kcat.
pub(crate) fn kcat(args: &PassedArgs) -> Result<ExitCode> {
    prerequisites::ensure(&[Need::Kcat], &Stop::default())?;
    let mut command = Command::new("kcat");
    if !args.args.iter().any(|arg| arg.to_str().is_some_and(|arg| arg.starts_with("-b"))) {
        command.args(["-b", &bootstrap()?]);
    }
    Err(become_tool(command.args(&args.args)))
}

/// Becomes psql on one database.
pub(crate) fn psql(args: &PsqlArgs) -> Result<ExitCode> {
    let name = services::canonical(&args.service);
    if name != POSTGRES && !services::SERVICES.contains(&name) {
        bail!(
            "there is no database of `{name}`: choose one of {}, {POSTGRES}",
            services::SERVICES.join(", ")
        );
    }
    let server = postgres_url()?;
    let url = if name == POSTGRES { server } else { wire::with_database(&server, name)? };
    prerequisites::ensure(&[Need::Psql], &Stop::default())
        .with_context(|| format!("no psql; any client can look into the database at {url}"))?;
    Err(become_tool(Command::new("psql").arg(url).args(&args.args)))
}

/// Gives this process to the tool; returns only on failure.
pub(crate) fn become_tool(mut command: impl std::borrow::BorrowMut<Command>) -> anyhow::Error {
    let command = command.borrow_mut();
    let failed = command.exec();
    anyhow!(failed).context(format!("could not start {}", command.get_program().display()))
}

/// The running system's broker, else the environment's.
pub(crate) fn bootstrap() -> Result<String> {
    address(|state| state.kafka, KAFKA_VARIABLE)
}

fn postgres_url() -> Result<String> {
    address(|state| state.postgres, POSTGRES_VARIABLE)
}

fn address(of_system: impl Fn(State) -> Option<String>, variable: &str) -> Result<String> {
    let running = State::read(&Layout::find()?.dev())?.filter(|state| state.owner.alive());
    let found = running.and_then(of_system).or_else(|| env::var(variable).ok());
    found.with_context(|| {
        format!("no system is up and {variable} is not set: start one with `cargo xtask up`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_server_is_left_alone() {
        let args = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(names_a_server(&args("--list --bootstrap-server h:1")));
        assert!(names_a_server(&args("--bootstrap-server=h:1 --list")));
        assert!(!names_a_server(&args("--list")));
    }
}
