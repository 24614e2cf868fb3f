//! An instance on its way into the database, out of it, and after an input.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Message;

use crate::engine::Effect;
use crate::input::Ignored;
use crate::log::Entry;
use crate::sequences::Sequences;
use crate::state::{State, Status};

/// A new instance: serializes to one element of the argument of the SQL function `saga_start`.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceRow {
    /// The saga's name.
    pub saga: &'static str,
    /// The instance.
    pub key: Uuid,
    /// The definition's version.
    pub version: u32,
    /// The state in one word.
    pub status: Status,
    /// Where it stands.
    pub state: State,
    /// The saga's data.
    pub data: Box<RawValue>,
    /// Counters of its key.
    pub sequences: Sequences,
    /// Milliseconds until the first look at its command.
    pub due_in_ms: Option<i64>,
    /// The first step's deadline in milliseconds.
    pub wait_ms: Option<i64>,
    /// The whole saga's deadline in milliseconds.
    pub deadline_ms: Option<i64>,
    /// Whether a command is among the messages.
    pub sent: bool,
    /// The story it belongs to.
    pub correlation_id: Uuid,
    /// The trace it continues when a deadline moves it.
    pub traceparent: Option<String>,
    /// The first entry of its log.
    pub entry: Entry,
}

/// A saga that begins: its row, and what its first steps ask for. Nothing is written yet.
#[derive(Debug, Clone)]
#[must_use = "a started saga has to be stored, and its messages appended to the outbox, in one transaction"]
pub struct Started {
    /// The row to insert.
    pub instance: InstanceRow,
    /// Commands for the outbox.
    pub messages: Vec<Message>,
    /// Everything the first steps ask for, the commands included.
    pub effects: Vec<Effect>,
}

impl Started {
    /// The argument of `select saga_start($1::json)` for these instances, for statements that do it all in one round trip.
    ///
    /// # Errors
    /// Never for an instance made by [`crate::Runner::start`]; the data was serialized there.
    pub fn argument(started: &[&Self]) -> Result<String, serde_json::Error> {
        let rows: Vec<&InstanceRow> = started.iter().map(|started| &started.instance).collect();
        serde_json::to_string(&rows)
    }

    /// One element of that argument, for statements that put it together of those instances that are to be started.
    ///
    /// # Errors
    /// As [`Started::argument`].
    pub fn element(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.instance)
    }
}

/// An instance as it was loaded, locked until the transaction ends.
#[derive(Debug, Clone)]
pub struct Instance<D> {
    /// The instance.
    pub key: Uuid,
    /// The version of the definition it began with.
    pub version: u32,
    /// How often it has been saved.
    pub revision: i64,
    /// Where it stands.
    pub state: State,
    /// The saga's data.
    pub data: D,
    /// Counters of its key.
    pub sequences: Sequences,
    /// What its deadlines name as the cause of the messages they make.
    pub cause: Cause,
    /// Seconds since the first attempt of the present step, by the database's clock.
    pub step_seconds: f64,
}

/// An instance after one input.
#[derive(Debug, Clone)]
pub struct Advanced<D> {
    /// The instance.
    pub key: Uuid,
    /// The saga's data.
    pub data: D,
    /// The state in one word, after the input.
    pub status: Status,
    /// The state after the input.
    pub state: State,
    /// What the input asks for, in order; commands are in the messages already.
    pub effects: Vec<Effect>,
    /// `false` when the input was late, repeated or out of place: it is in the log and changed nothing.
    pub accepted: bool,
    /// Why it was not accepted.
    pub ignored: Option<Ignored>,
    /// Counters of its key, for a saga that follows this one.
    pub sequences: Sequences,
    /// The input's cause; a deadline's is the saga's own story. For what the owner has to say about the effects.
    pub cause: Cause,
}
