//! A piece handed over to the producer, until its last row is acknowledged.

use std::time::{Duration, Instant};

use crate::publish::Landing;
use crate::store::Row;

/// Kafka counts as away when no row of the oldest piece lands for longer. Not by the piece's age: rows that travel alone
/// after a refusal take their time, and each that lands shows that brokers answer.
const ACKNOWLEDGEMENT_SLOW: Duration = Duration::from_secs(5);

/// A piece handed over.
pub(super) struct OnItsWay {
    pub(super) number: u64,
    pub(super) slot: usize,
    pub(super) ids: Vec<i64>,
    /// Rows handed over; less than all only when the tenure ends in the middle.
    pub(super) sent: usize,
    pub(super) bytes: usize,
    /// When its oldest row was made, by the database's clock, microseconds since 1970.
    pub(super) oldest_us: i64,
    /// When its first row was about to be handed over.
    pub(super) began: Instant,
    /// Rows not acknowledged at the last look, and when a look first found so few.
    outstanding: usize,
    since: Instant,
}

impl OnItsWay {
    /// Before its first row is handed over.
    pub(super) fn begin(number: u64, slot: usize, rows: &[Row], bytes: usize) -> Self {
        let now = Instant::now();
        Self {
            number,
            slot,
            ids: rows.iter().map(Row::id).collect(),
            sent: 0,
            bytes,
            oldest_us: rows.iter().map(Row::created_at_us).min().unwrap_or_default(),
            began: now,
            outstanding: rows.len(),
            since: now,
        }
    }

    /// A look at it while it is the oldest; `anew` when the one before it has just landed.
    pub(super) fn look(&mut self, landing: &Landing, anew: bool) {
        let outstanding = landing.outstanding(self.slot);
        // Rows not sent yet are counted too: with them alone nothing is waited for from Kafka.
        let waits = outstanding > self.ids.len() - self.sent;
        if anew || outstanding != self.outstanding || !waits {
            (self.outstanding, self.since) = (outstanding, Instant::now());
        }
    }

    /// Whether some of it was handed over, and nothing of it was acknowledged for long.
    pub(super) fn stands_still(&self) -> bool {
        self.since.elapsed() > ACKNOWLEDGEMENT_SLOW
    }
}
