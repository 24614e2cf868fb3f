//! Which services are asked and how changes are confirmed; `parked`, `outbox`, `saga` and `audit`.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, value_parser};

use super::Form;
use crate::exit::EXIT_CODES;
use crate::when;

/// Which services are asked, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct Services {
    /// The operator listeners: name=URL, comma-separated
    #[arg(
        long,
        env = "WAYBILL_OPERATOR_URLS",
        value_name = "NAME=URL,...",
        default_value = "orders=http://127.0.0.1:9083,inventory=http://127.0.0.1:9084,payments=http://127.0.0.1:9085"
    )]
    pub(crate) operator_urls: String,
    /// Ask only this one
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// File with the access token (role operator); else it is taken from WAYBILL_TOKEN
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Whom a verb asks, and how it prints the answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Asking {
    #[command(flatten)]
    pub(crate) services: Services,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// What turns a plan into a change.
#[derive(Debug, Clone, Args)]
pub(crate) struct Change {
    /// Do it; without, the plan is shown
    #[arg(long, requires = "reason")]
    pub(crate) apply: bool,
    /// Why; kept in the audit
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) reason: Option<String>,
}

/// How much of a list.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Page {
    /// At most this many of each service
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u64).range(1..=100_000))]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Parked {
    #[command(subcommand)]
    pub(crate) verb: ParkedVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ParkedVerb {
    /// The keys that wait, and why
    #[command(after_help = EXIT_CODES)]
    List {
        /// Only of this group
        #[arg(long)]
        group: Option<String>,
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        asking: Asking,
    },
    /// One key with what is held behind it
    #[command(after_help = EXIT_CODES)]
    Show {
        /// The consumer group
        group: String,
        /// The key; base64:... when it is no text, as lists show it
        key: String,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Outbox {
    #[command(subcommand)]
    pub(crate) verb: OutboxVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxVerb {
    /// The relay's position and lease, what is unpublished, the partitions
    #[command(after_help = EXIT_CODES)]
    Status {
        #[command(flatten)]
        asking: Asking,
    },
    /// Publish rows again, with the same ids in the same order: harmless for consumers with an inbox
    #[command(after_help = EXIT_CODES)]
    Republish(Republish),
}

#[derive(Debug, Args)]
pub(crate) struct Republish {
    /// Rows made from this time on: RFC 3339, or so long ago (90s, 15m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = when::parse, requires = "to", required_unless_present_any = ["from_id", "message_id"])]
    pub(crate) from: Option<DateTime<Utc>>,
    /// Rows made before this time
    #[arg(long, value_name = "TIME", value_parser = when::parse, requires = "from")]
    pub(crate) to: Option<DateTime<Utc>>,
    /// Rows from this number on
    #[arg(long, value_name = "N", requires = "to_id", conflicts_with_all = ["from", "message_id"])]
    pub(crate) from_id: Option<i64>,
    /// Rows up to this number
    #[arg(long, value_name = "N", requires = "from_id")]
    pub(crate) to_id: Option<i64>,
    /// Rows with this message id; may be given several times
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    pub(crate) message_id: Vec<String>,
    /// Refuse when there are more rows
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = value_parser!(u64).range(1..=100_000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) change: Change,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Debug, Args)]
pub(crate) struct Saga {
    #[command(subcommand)]
    pub(crate) verb: SagaVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SagaVerb {
    /// The sagas and where they stand
    #[command(after_help = EXIT_CODES)]
    List {
        /// Only in this status, e.g. stuck
        #[arg(long)]
        state: Option<String>,
        /// Only of this name
        #[arg(long)]
        name: Option<String>,
        /// Only this key, e.g. an order id
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        asking: Asking,
    },
    /// One saga with its data and its log
    #[command(after_help = EXIT_CODES)]
    Show {
        /// The saga's name, as in the list
        name: String,
        /// Its key, e.g. an order id
        key: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Let a stuck saga try its step again
    #[command(after_help = EXIT_CODES)]
    Retry(SagaChange),
    /// Let a stuck saga go on as if its step were done: the operator has seen to it
    #[command(after_help = EXIT_CODES)]
    Skip(SagaChange),
    /// End a saga as it is; nothing more is done for it
    #[command(after_help = EXIT_CODES)]
    Abandon(SagaChange),
}

#[derive(Debug, Args)]
pub(crate) struct SagaChange {
    /// The saga's name, as in the list
    pub(crate) name: String,
    /// Its key, e.g. an order id
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) change: Change,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) verb: AuditVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// What operators changed, newest first
    #[command(after_help = EXIT_CODES)]
    List {
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        asking: Asking,
    },
}
