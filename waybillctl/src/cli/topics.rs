//! `waybillctl topics ...`

use clap::{Args, Subcommand, value_parser};

use super::Kafka;
use crate::exit::EXIT_CODES;

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
