//! `waybillctl events ...`

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum, value_parser};

use super::{Kafka, RecordKey};
use crate::exit::EXIT_CODES;
use crate::when;

#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(subcommand)]
    pub(crate) verb: EventsVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsVerb {
    /// Show the last messages, and with --follow those that come
    #[command(after_help = EXIT_CODES)]
    Tail(Tail),
    /// Show the messages that lie on topics now, or those of them that fit a filter
    #[command(after_help = EXIT_CODES)]
    Get(Get),
    /// Decode frames from standard input, as `kcat -C ... -f '%R%s'` writes them
    #[command(after_help = EXIT_CODES)]
    Decode(Decode),
}

/// Which messages: all that is given must fit.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EventFilter {
    /// The record's key, e.g. an order id; base64:... when it is no text
    #[arg(long, value_parser = RecordKey::parse)]
    pub(crate) key: Option<RecordKey>,
    /// Its type (header ce_type), e.g. OrderPlaced; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kinds: Vec<String>,
    /// Its id (header ce_id)
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Its story (header ce_correlationid), e.g. an order id
    #[arg(long, value_name = "ID")]
    pub(crate) correlation_id: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(0..))]
    pub(crate) partition: Option<i32>,
    /// From this time on: RFC 3339, or so long ago (90s, 15m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) until: Option<DateTime<Utc>>,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Topics without prefix [default: every main topic]
    pub(crate) topics: Vec<String>,
    /// How many of the last messages to show (found by looking back at most 1000 records a partition)
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u64).range(0..=1000))]
    pub(crate) lines: u64,
    /// Go on with those that come, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) filter: EventFilter,
    #[command(flatten)]
    pub(crate) look: Look,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Topics without prefix [default: every main topic]
    pub(crate) topics: Vec<String>,
    /// Begin at this offset of the partition; with --limit 1, just that record
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = value_parser!(i64).range(0..))]
    pub(crate) offset: Option<i64>,
    /// Stop after this many
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) filter: EventFilter,
    #[command(flatten)]
    pub(crate) look: Look,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Look {
    /// One line of text a message (time, place, key, type, value) instead of a line of JSON
    #[arg(long, conflicts_with = "json")]
    pub(crate) text: bool,
    /// A line of JSON a message: what is done unless told otherwise
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Decode {
    /// How standard input is cut into frames
    #[arg(long, value_enum, default_value_t = Kind::Lengths)]
    pub(crate) input: Kind,
    /// A line of JSON a frame: there is no other form
    #[arg(long)]
    pub(crate) json: bool,
}

/// How frames lie one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A big-endian length of four bytes before each (`kcat -f '%R%s'`); -1 is a null value
    Lengths,
    /// The same with the key before each value (`kcat -f '%K %k%R%s'`)
    KeysAndLengths,
    /// One in hexadecimal a line
    Hex,
    /// One frame and nothing else (`kcat -c 1 -D '' -f '%s'`)
    One,
}
