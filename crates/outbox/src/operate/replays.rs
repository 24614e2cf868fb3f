//! Replay as an operation: a selection of dead letters, fixed when it is made, sent again to their own groups only.
//!
//! It is sent in steps of 1, 2, 5, 10, 20, 50, ... letters (the ramp), each after the verdicts of the one before, not
//! faster than its rate, and it stops at the first failures. The letters of one key go one after another, each when the
//! one before is resolved and what it held up is drained. Everything an operation knows is in Postgres: whichever
//! instance of the service runs [`run`] goes on with it, also after the end of another in the middle of a step.

mod change;
mod drive;
mod look;
mod step;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Filter;

pub use self::change::{TARGETS_MAX, cancel, create, pause, resume};
pub use self::drive::run;
pub use self::look::{list, show};

/// What is wished for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewReplay {
    /// Which open dead letters.
    pub filter: Filter,
    /// Letters per second at most, 1..=1000.
    #[serde(default = "rate_default")]
    pub rate_per_s: u32,
    /// Whether it begins with few.
    #[serde(default = "ramp_default")]
    pub ramp: bool,
    /// At how many failures it stops, 1..=100,000.
    #[serde(default = "stop_default")]
    pub stop_after_failures: u32,
}

fn rate_default() -> u32 {
    50
}

fn ramp_default() -> bool {
    true
}

fn stop_default() -> u32 {
    5
}

impl NewReplay {
    /// With the defaults: 50 per second, ramp, stop at 5 failures.
    #[must_use]
    pub fn of(filter: Filter) -> Self {
        Self { filter, rate_per_s: rate_default(), ramp: ramp_default(), stop_after_failures: stop_default() }
    }
}

/// A replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Replay {
    /// Its id; a UUIDv7.
    pub id: Uuid,
    /// `running`, `paused`, `stopped` (at failures; can be resumed), `finished` or `cancelled`.
    pub state: String,
    /// Letters.
    pub total: i64,
    /// Letters that were sent, whatever came of them.
    pub sent: i64,
    /// Letters that were handled.
    pub resolved: i64,
    /// Letters that are open again, or could not be sent because another letter blocks their key.
    pub failed: i64,
    /// Letters that somebody else has dealt with, or that can not be sent at all.
    pub skipped: i64,
    /// Letters that failed once more and wait on a later tier; they count as failures until they are resolved.
    pub retrying: i64,
    /// Letters without an outcome: not sent yet, or without a verdict.
    pub remaining: i64,
    /// The selection.
    #[schema(value_type = Object)]
    pub filter: Filter,
    /// Why.
    pub reason: String,
    /// Whose wish.
    pub by: String,
    /// Letters per second at most.
    pub rate_per_s: i32,
    /// Whether it began with few.
    pub ramp: bool,
    /// At how many failures it stops.
    pub stop_after_failures: i32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its state or its counts changed.
    pub updated_at: DateTime<Utc>,
    /// Why it is not running (any more).
    pub stop_reason: Option<String>,
}
