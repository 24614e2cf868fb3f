//! The wall clock and new ids: read here, handed to pure code as arguments.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Tells the time. Informative only: nothing is ordered by it, and deadlines run on the database's clock.
pub trait Clock: Send + Sync {
    /// Now, UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// This machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A new id: a UUIDv7, whose time part keeps index inserts local. An id never decides order.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
