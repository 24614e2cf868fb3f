//! `waybillctl order ...`

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{Form, Kafka, Services};
use crate::exit::EXIT_CODES;

#[derive(Debug, Args)]
pub(crate) struct Order {
    #[command(subcommand)]
    pub(crate) verb: OrderVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrderVerb {
    /// What happened to an order, in every service and on every topic, oldest first
    ///
    /// Joins idempotency key, outbox rows, their places on the topics, each group's inbox time, the saga's steps with their
    /// attempts and latencies, retries, dead letters and the trace.
    #[command(after_help = EXIT_CODES)]
    Explain(Explain),
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The order's id
    pub(crate) id: Uuid,
    /// Do not look for the messages on their topics
    #[arg(long)]
    pub(crate) without_kafka: bool,
    #[command(flatten)]
    pub(crate) services: Services,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
    #[command(flatten)]
    pub(crate) form: Form,
}
