//! `waybillctl dead-letters ...`

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, value_parser};

use super::{Asking, Change, Page, RecordKey};
use crate::exit::EXIT_CODES;
use crate::when;

#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    pub(crate) verb: DeadLettersVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersVerb {
    /// The dead letters that fit a filter
    #[command(after_help = EXIT_CODES)]
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        asking: Asking,
    },
    /// What fails alike, counted
    #[command(after_help = EXIT_CODES)]
    Groups {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        asking: Asking,
    },
    /// One dead letter, decoded, with its headers and the error
    #[command(after_help = EXIT_CODES)]
    Show {
        /// Its id, as in the list
        id: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// What a replay would send: counts per group and key
    #[command(after_help = EXIT_CODES)]
    Plan {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        asking: Asking,
    },
    /// Run the real handler in a transaction that is rolled back, and show what it would write
    #[command(after_help = EXIT_CODES)]
    DryRun(DryRun),
    /// Send dead letters back to the group that failed, in order per key; shows the plan without --apply
    #[command(after_help = EXIT_CODES)]
    Replay(Replay),
    /// Change a value, as JSON in $EDITOR, from a file, or many with a program; the original bytes are kept
    #[command(after_help = EXIT_CODES)]
    Edit(Edit),
    /// Give dead letters up: they are never handled, and their keys go on; shows the plan without --apply
    #[command(after_help = EXIT_CODES)]
    Discard(Discard),
}

/// Which dead letters: all that is given must fit.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Filter {
    /// The consumer group that failed
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// The topic it was read from
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// The message's type, e.g. StockReserved
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// The record's key, e.g. an order id; base64:... when it is no text, as lists show it
    #[arg(long, value_parser = RecordKey::parse)]
    pub(crate) key: Option<RecordKey>,
    /// The error's class, as in the list
    #[arg(long, value_name = "CLASS")]
    pub(crate) error_class: Option<String>,
    /// What fails alike, as `dead-letters groups` names it
    #[arg(long, value_name = "ID")]
    pub(crate) failure_group: Option<String>,
    /// open, replaying, resolved, discarded or any [default: open]
    #[arg(long, value_parser = ["open", "replaying", "resolved", "discarded", "any"])]
    pub(crate) state: Option<String>,
    /// The message's id (header ce_id)
    #[arg(long, value_name = "ID")]
    pub(crate) message_id: Option<String>,
    /// The saga (header ce_correlationid), e.g. an order id
    #[arg(long, value_name = "ID", visible_alias = "saga")]
    pub(crate) correlation_id: Option<String>,
    /// Failed last from this time on: RFC 3339, or so long ago (90s, 15m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) from: Option<DateTime<Utc>>,
    /// Failed last before this time
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) to: Option<DateTime<Utc>>,
}

/// A filter for what changes something: ids too, and all only when it is said.
#[derive(Debug, Clone, Args)]
pub(crate) struct Selection {
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// This dead letter; may be given several times
    #[arg(long = "id", value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Every open dead letter, where no filter is given
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DryRun {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Try at most this many of each service
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u64).range(1..=100))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Replay {
    #[command(subcommand)]
    pub(crate) verb: Option<ReplayVerb>,
    #[command(flatten)]
    pub(crate) start: ReplayStart,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayStart {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// At most this many a second
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=1000))]
    pub(crate) rate: u32,
    /// Begin with as many as the rate allows, not with steps of 1, 2, 5, 10, ... each after the verdicts of the one before
    #[arg(long)]
    pub(crate) without_ramp: bool,
    /// Stop after this many failures
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    pub(crate) stop_after_failures: u32,
    /// Do not wait for the end; `dead-letters replay watch` looks at it later
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) change: Change,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReplayVerb {
    /// The replays and how far they are
    #[command(after_help = EXIT_CODES)]
    List {
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        asking: Asking,
    },
    /// One replay
    #[command(after_help = EXIT_CODES)]
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// One replay, with its progress until it runs no more
    #[command(after_help = EXIT_CODES)]
    Watch {
        /// Its id
        id: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Let a paused or stopped replay go on
    #[command(after_help = EXIT_CODES)]
    Resume(ReplayChange),
    /// Send nothing more for now
    #[command(after_help = EXIT_CODES)]
    Pause(ReplayChange),
    /// End a replay; what was not sent stays open
    #[command(after_help = EXIT_CODES)]
    Cancel(ReplayChange),
}

#[derive(Debug, Args)]
pub(crate) struct ReplayChange {
    /// The replay's id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) change: Change,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Debug, Args)]
pub(crate) struct Edit {
    /// The dead letter; with --transform, use the filter instead
    // `Filter` is what clap calls all options of that struct.
    #[arg(required_unless_present = "transform", conflicts_with_all = ["transform", "Filter", "ids", "all"])]
    pub(crate) id: Option<String>,
    /// Take the new value from this JSON file (- is standard input) instead of opening $EDITOR
    #[arg(long, value_name = "FILE", conflicts_with_all = ["transform", "remove"])]
    pub(crate) value: Option<PathBuf>,
    /// Take the patch away again: the original value and headers count
    #[arg(long, conflicts_with = "transform")]
    pub(crate) remove: bool,
    /// Have a replay send this text header, in place of every one of its name; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    #[arg(conflicts_with_all = ["transform", "value", "remove"])]
    pub(crate) headers: Vec<(String, String)>,
    /// Have a replay leave out every header of this name; may be given several times
    #[arg(long = "without-header", value_name = "NAME", conflicts_with_all = ["transform", "value", "remove"])]
    pub(crate) without_headers: Vec<String>,
    /// Change all that fit the filter: a JSON Patch (RFC 6902, *.json) or a jq program (*.jq) over the value
    #[arg(long, value_name = "FILE")]
    pub(crate) transform: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) change: Change,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) change: Change,
    #[command(flatten)]
    pub(crate) asking: Asking,
}
