//! The arguments of every command, and the help that explains them: a file for each family.

mod dead_letters;
mod events;
mod key;
mod operate;
mod order;
mod schemas;
mod topics;

pub(crate) use dead_letters::{
    DeadLetters, DeadLettersVerb, Discard, DryRun, Edit, Filter, Replay, ReplayChange, ReplayStart,
    ReplayVerb, Selection,
};
pub(crate) use events::{EventFilter, Events, EventsVerb, Get, Kind, Look, Tail};
pub(crate) use key::{KEY_BASE64_PREFIX, RecordKey, key_word};
pub(crate) use operate::{
    Asking, Audit, AuditVerb, Change, Outbox, OutboxVerb, Page, Parked, ParkedVerb, Republish, Saga,
    SagaChange, SagaVerb, Services,
};
pub(crate) use order::{Explain, Order, OrderVerb};
pub(crate) use schemas::{Check, Push, RegistryOption, Schemas, SchemasVerb, Subjects};
pub(crate) use topics::{Topics, TopicsOptions, TopicsVerb};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use waybill_messaging::reader::{Patience, Reader};

use crate::exit::{EXIT_CODES, Usage};

/// Looks after a running Waybill: its topics and messages, dead letters, sagas and orders.
///
/// Results go to standard output, progress and errors to standard error. Every command only looks, unless its name says
/// that it changes something; and of those that do, each shows its plan and needs `--apply` to carry it out (only `topics
/// apply` does not). What changes a service needs `--reason` too, which that service's audit keeps.
#[derive(Debug, Parser)]
#[command(name = "waybillctl", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub(crate) enum Command {
    /// The Kafka topics: compare them with the manifest, create those that are missing
    Topics(Topics),
    /// The message contract: check it, bring it to a schema registry
    Schemas(Schemas),
    /// Messages on topics, decoded
    Events(Events),
    /// What a group could not handle: look, plan, try, mend, replay, discard
    DeadLetters(DeadLetters),
    /// Keys that wait because a message of theirs failed
    Parked(Parked),
    /// The outbox: what is unpublished, publishing again
    Outbox(Outbox),
    /// Sagas: look, and mend those that are stuck
    Saga(Saga),
    /// One order's whole story
    Order(Order),
    /// Who changed what, and why
    Audit(Audit),
    /// Hold the promises against databases and topics: orders, money, stock, sagas, messages; changes nothing
    #[command(after_help = EXIT_CODES)]
    Verify(crate::commands::verify::Options),
}

/// Where Kafka is, for every command that talks to it.
#[derive(Debug, Clone, Args)]
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

impl Kafka {
    /// A reader of its topics.
    pub(crate) fn reader(&self) -> Result<Reader, Usage> {
        Reader::new(&self.bootstrap_servers, "waybillctl", Patience::default()).map_err(Usage::of)
    }
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
