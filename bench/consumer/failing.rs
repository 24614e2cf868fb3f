//! Which messages of a turn of `beside` fail, and how often.

use std::time::Duration;

/// Keys in turn, so that a failing one comes again while it is retried: its followers are held.
pub(crate) const KEYS: u64 = 200;
/// A failing key fails in one of so many of its messages: it is mended before the next.
const FAILING_EVERY: u64 = 5;
/// The waits of the tiers.
pub(crate) const DELAYS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];

/// Which messages of a turn fail.
#[derive(Clone, Copy)]
pub(crate) struct Failing {
    pub(crate) percent: u64,
    /// How many messages come.
    pub(crate) total: u64,
}

impl Failing {
    /// Whether any message of this key fails.
    pub(crate) fn has_key(self, key: u64) -> bool {
        key % 100 < self.percent
    }

    /// How many appearances of this message fail: the main topic's and those of no, one or two retry topics; the third
    /// retries what has failed in all of them, but for the dead letter.
    pub(crate) fn appearances(self, number: u64) -> i16 {
        let (key, turn) = (number % KEYS, number / KEYS);
        let tiers = i16::try_from(DELAYS.len()).unwrap();
        if !self.has_key(key) || !turn.is_multiple_of(FAILING_EVERY) {
            0
        } else if self.letter() == Some(number) {
            tiers + 1
        } else {
            1 + i16::try_from(turn / FAILING_EVERY).unwrap() % tiers
        }
    }

    /// What becomes a dead letter: of the first key, half-way.
    pub(crate) fn letter(self) -> Option<u64> {
        let half_way = self.total / KEYS / 2 / FAILING_EVERY * FAILING_EVERY;
        (self.percent > 0).then_some(half_way * KEYS)
    }
}
