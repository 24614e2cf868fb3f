//! The arguments of every command, and the help that explains them.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, value_parser};

use crate::exit::EXIT_CODES;

/// Looks after a running Waybill: its topics.
///
/// Results go to standard output, progress and errors to standard error. What only looks has a name that only looks
/// (`plan`); what changes something has a name that says so (`apply`).
#[derive(Debug, Parser)]
#[command(name = "waybillctl", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The Kafka topics: compare them with the manifest, create those that are missing
    Topics(Topics),
}

#[derive(Debug, Args)]
pub(crate) struct Topics {
    #[command(subcommand)]
    pub(crate) verb: TopicsVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsVerb {
    /// Show how the brokers' topics differ from the manifest; changes nothing
    #[command(after_help = EXIT_CODES)]
    Plan(TopicsOptions),
    /// Create the topics that are missing; never changes or deletes one that is there
    ///
    /// Running it again does no harm. A topic that exists in another shape is shown with its mend and left alone.
    #[command(after_help = EXIT_CODES)]
    Apply(TopicsOptions),
}

#[derive(Debug, Args)]
pub(crate) struct TopicsOptions {
    #[command(flatten)]
    pub(crate) kafka: Kafka,
    /// Copies of each partition; compared with existing topics when given, 1 for new ones when not
    #[arg(long, env = "WAYBILL_TOPIC_REPLICATION", value_name = "N", value_parser = value_parser!(i32).range(1..=100))]
    pub(crate) replication: Option<i32>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where Kafka is, for every command that talks to it.
#[derive(Debug, Args)]
pub(crate) struct Kafka {
    /// Addresses of some brokers, comma-separated
    #[arg(
        long,
        env = "KAFKA_BOOTSTRAP_SERVERS",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) bootstrap_servers: String,
    /// Put before every topic name as it is: `t1.` makes t1.orders.events
    #[arg(long, env = "WAYBILL_TOPIC_PREFIX", default_value = "")]
    pub(crate) prefix: String,
}
