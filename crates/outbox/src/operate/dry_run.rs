//! A dry run: the real handler handles dead letters in a transaction that is rolled back, and shows what it would write
//! and say.
//!
//! It leaves no trace in any table or topic. Values drawn from sequences are not given back, as after any rolled back
//! transaction; rows the handler locks are locked for as long as it runs. The handler keeps to its contract: no effect
//! but on its transaction. One runs at a time in a process: it takes two connections of the pool that the consumers use.

mod letters;
mod run;
mod writes;

use std::pin::Pin;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Filter, OperateError};
pub(crate) use run::Runner;

/// Dead letters of one dry run when nobody says.
pub const DRY_RUN_DEFAULT: u32 = 10;
/// Most dead letters of one dry run: each runs the handler and looks at the tables it wrote to.
pub const DRY_RUN_MAX: u32 = 100;

/// A group's handler that can be tried on dead letters, whatever its type: `InboxProcessor::dry_run` gives it.
pub trait DryRun: Send + Sync {
    /// The group, without prefix: only its letters are tried.
    fn group(&self) -> &str;

    /// Tries the first `limit` (1..=100) letters of the group that fulfil the filter, in the order in which a replay
    /// would send them. Those of one key are tried in one transaction: later ones see what earlier ones did. A letter
    /// that fails is taken back alone.
    ///
    /// # Errors
    /// [`OperateError`], when no letter could be tried: the filter is wrong, the database is away, or another dry run has
    /// not ended ([`OperateError::Busy`]).
    fn run<'a>(&'a self, filter: &'a Filter, limit: u32) -> DryRunFuture<'a>;

    /// Whether the group's decoder can read such a payload; nobody's interest can be read.
    ///
    /// # Errors
    /// Why it can not.
    fn check(&self, kind: &str, payload: &[u8]) -> Result<(), String>;
}

/// What [`DryRun::run`] answers with.
pub type DryRunFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<Tried>, OperateError>> + Send + 'a>>;

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It would be handled. Nobody's interest counts as handled, without writes.
    Done,
    /// The handler would ask for a retry.
    Retry,
    /// It would be a dead letter again: rejected, or it can not be decoded.
    Reject,
    /// The next appearance of the message is in the inbox already: it would be ignored.
    Duplicate,
    /// The handler failed, panicked or broke a constraint.
    Fault,
}

/// A letter that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tried {
    /// The letter.
    pub id: Uuid,
    /// The key, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key in base64, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, when it is not done.
    pub why: Option<String>,
    /// Whether its patch was tried instead of the original.
    pub patched: bool,
    /// Rows it would write; nothing when it is not done.
    pub writes: Vec<Write>,
    /// What it would say.
    pub messages: Vec<SaidDry>,
}

/// A row that would be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Write {
    /// The table, with its schema unless that is `public`.
    pub table: String,
    /// `insert`, `update` or `delete`; `unknown` when the rows could not be told, see `note`.
    pub operation: String,
    /// The row before, as JSON; long texts are cut.
    pub before: Option<Value>,
    /// The row after.
    pub after: Option<Value>,
    /// What is not shown, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A message that would be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SaidDry {
    /// With prefix.
    pub topic: String,
    /// The key.
    pub key: String,
    /// `ce_type`.
    pub kind: String,
    /// As they would be written; ids and times would be others.
    pub headers: Value,
    /// The framed value.
    pub payload_base64: String,
}
