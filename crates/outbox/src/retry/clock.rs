//! The database's clock as this process knows it: what is due is decided by it, whatever this machine's own clock says.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

/// What the database said last and when it was heard, by a clock that nobody sets.
#[derive(Debug, Default)]
pub(crate) struct DatabaseClock(Mutex<Option<(DateTime<Utc>, Instant)>>);

impl DatabaseClock {
    /// The database has just said that it is this time.
    pub(crate) fn heard(&self, time: DateTime<Utc>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, Instant::now()));
    }

    /// The time there, at most the way of an answer behind; `None` when it was never asked.
    pub(crate) fn now(&self) -> Option<DateTime<Utc>> {
        let (time, heard) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        time.checked_add_signed(TimeDelta::from_std(heard.elapsed()).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_was_heard_and_has_nothing_to_do_with_ours() {
        let clock = DatabaseClock::default();
        assert_eq!(clock.now(), None);
        let theirs = Utc::now() + TimeDelta::hours(2);
        clock.heard(theirs);
        let first = clock.now().unwrap();
        assert!(first >= theirs && clock.now().unwrap() >= first, "{theirs} {first}");
        clock.heard(DateTime::UNIX_EPOCH);
        assert!(clock.now().unwrap() < theirs, "what was heard last counts");
    }
}
