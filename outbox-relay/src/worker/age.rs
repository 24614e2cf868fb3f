//! How long rows have waited to be published, and reading for an answer. Known across tenures: what is unpublished when one
//! ends is so when the next begins.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::metrics::Metrics;

/// Shared by the tasks that read and publish.
pub(super) struct Age {
    began: Instant,
    state: Mutex<State>,
}

/// Times of rows are the database's, microseconds since 1970.
#[derive(Default)]
struct State {
    /// The database's clock less the time since the beginning; `None` before it was told.
    clock_ahead_us: Option<i64>,
    /// When the oldest row was made that is known and not on its way.
    unread_us: Option<i64>,
    /// Since when no read was answered that was asked.
    asked_at: Option<Instant>,
}

impl Default for Age {
    fn default() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }
}

impl Age {
    /// A read begins, or what comes before it.
    pub(super) fn asked(&self) {
        self.lock().asked_at.get_or_insert_with(Instant::now);
    }

    /// It was answered.
    pub(super) fn answered(&self) {
        self.lock().asked_at = None;
    }

    /// The database's clock now.
    pub(super) fn clock(&self, now_us: i64) {
        self.lock().clock_ahead_us = Some(now_us - self.elapsed_us());
    }

    /// The oldest row that waits and is not on its way; `None` when there is none.
    pub(super) fn unread(&self, oldest_us: Option<i64>) {
        self.lock().unread_us = oldest_us;
    }

    /// A tenure ends while this is the oldest row on its way.
    pub(super) fn given_up(&self, oldest_us: Option<i64>) {
        let mut state = self.lock();
        state.unread_us = oldest(state.unread_us, oldest_us);
    }

    /// Another relay reads and publishes.
    pub(super) fn forget(&self) {
        *self.lock() = State::default();
    }

    /// Into the metrics, with the oldest row on its way.
    pub(super) fn show(&self, on_its_way_us: Option<i64>, metrics: &Metrics) {
        let state = self.lock();
        metrics.oldest_age_seconds.set(self.oldest_seconds(&state, on_its_way_us));
        let unanswered = state.asked_at.map_or(0.0, |asked_at| asked_at.elapsed().as_secs_f64());
        metrics.unanswered_read_seconds.set(unanswered);
    }

    fn oldest_seconds(&self, state: &State, on_its_way_us: Option<i64>) -> f64 {
        let known = oldest(state.unread_us, on_its_way_us).zip(state.clock_ahead_us);
        known.map_or(0.0, |(oldest_us, ahead_us)| {
            (self.elapsed_us() + ahead_us - oldest_us).max(0) as f64 / 1e6
        })
    }

    fn elapsed_us(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn oldest(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_grows_old_until_it_is_read_or_left_to_another() {
        let (age, second) = (Age::default(), 1_000_000);
        let seconds = |on_its_way: Option<i64>| age.oldest_seconds(&age.lock(), on_its_way);
        assert_eq!(seconds(Some(second)), 0.0, "no clock was told yet");
        age.clock(100 * second);
        assert_eq!(seconds(None), 0.0);
        assert!(seconds(Some(60 * second)) >= 40.0);
        age.given_up(Some(60 * second));
        assert!(seconds(None) >= 40.0, "the next tenure has not read it yet");
        assert!(seconds(Some(90 * second)) >= 40.0);
        age.unread(Some(80 * second));
        assert!((20.0..40.0).contains(&seconds(None)), "the rest of a large round");
        age.unread(None);
        assert_eq!(seconds(None), 0.0);
        age.given_up(Some(60 * second));
        age.forget();
        assert_eq!(seconds(None), 0.0);
    }

    #[test]
    fn a_read_is_unanswered_since_the_first_that_was_asked() {
        let age = Age::default();
        age.asked();
        let first = age.lock().asked_at;
        age.asked();
        assert!(first.is_some() && age.lock().asked_at == first);
        age.answered();
        assert_eq!(age.lock().asked_at, None);
    }
}
