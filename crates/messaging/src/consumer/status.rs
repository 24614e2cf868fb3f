//! How a consumer fares, told to `/ready`: does it have its partitions, does it poll, does its work succeed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Polling stands still while a batch is handled; longer than this, something hangs.
const POLL_AGE_MAX: Duration = Duration::from_secs(60);
/// A rebalance takes seconds and is no reason to take a service out of its load balancer; longer than this it is.
const REBALANCE_AGE_MAX: Duration = Duration::from_secs(60);

/// A shared view of one consumer. Clones see the same consumer.
#[derive(Debug, Clone, Default)]
pub struct ConsumerStatus(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How many partitions the last assignment gave (none is fine: more members than partitions).
    partitions: Option<usize>,
    ever_assigned: bool,
    unassigned_since: Option<Instant>,
    last_poll: Option<Instant>,
    failing: Option<String>,
    brokers_down: Option<String>,
    topic_missing: Option<String>,
}

impl ConsumerStatus {
    /// Whether the consumer can be relied on now.
    ///
    /// # Errors
    /// What is wrong, in words for an operator.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state();
        if let Some(why) = &state.brokers_down {
            return Err(format!("Kafka does not answer: {why}"));
        }
        let Some(last_poll) = state.last_poll else {
            return Err("not started yet".to_owned());
        };
        if let Some(why) = &state.failing {
            return Err(format!("a batch fails and is tried again: {why}"));
        }
        if let Some(why) = &state.topic_missing {
            return Err(format!("a topic is missing: {why}"));
        }
        if !state.ever_assigned {
            return Err("waiting for the group's first assignment of partitions".to_owned());
        }
        if state.unassigned_since.is_some_and(|since| since.elapsed() > REBALANCE_AGE_MAX) {
            return Err(format!("without partitions for more than {} s", REBALANCE_AGE_MAX.as_secs()));
        }
        if last_poll.elapsed() > POLL_AGE_MAX {
            return Err(format!("last polled {} s ago", last_poll.elapsed().as_secs()));
        }
        Ok(())
    }

    /// How many partitions this member has; `None` before the first assignment and during a rebalance.
    #[must_use]
    pub fn partitions(&self) -> Option<usize> {
        self.state().partitions
    }

    pub(super) fn polled(&self) {
        self.state().last_poll = Some(Instant::now());
    }

    pub(super) fn assigned(&self, partitions: usize) {
        let mut state = self.state();
        state.partitions = Some(partitions);
        state.ever_assigned = true;
        state.unassigned_since = None;
        state.brokers_down = None;
        if partitions > 0 {
            state.topic_missing = None;
        }
    }

    pub(super) fn revoked(&self) {
        let mut state = self.state();
        state.partitions = None;
        state.unassigned_since = Some(Instant::now());
    }

    pub(super) fn failing(&self, why: String) {
        self.state().failing = Some(why);
    }

    pub(super) fn working(&self) {
        self.state().failing = None;
    }

    pub(super) fn brokers_down(&self, why: &str) {
        self.state().brokers_down = Some(why.to_owned());
    }

    /// Until partitions are assigned: a group without topics is assigned none, and that is not being ready.
    pub(super) fn topic_missing(&self, why: &str) {
        self.state().topic_missing = Some(why.to_owned());
    }

    pub(super) fn broker_up(&self) {
        self.state().brokers_down = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a plain assignment, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_told_from_start_to_failure_and_back() {
        let status = ConsumerStatus::default();
        assert!(status.check().is_err(), "not started");
        status.polled();
        assert!(status.check().unwrap_err().contains("first assignment"));
        status.assigned(0);
        assert_eq!(status.check(), Ok(()), "more members than partitions is fine");
        status.failing("Postgres is away".to_owned());
        assert!(status.check().unwrap_err().contains("Postgres is away"));
        status.working();
        status.revoked();
        assert_eq!(status.check(), Ok(()), "a rebalance is no failure");
        assert_eq!(status.partitions(), None);
        status.brokers_down("1/1 brokers are down");
        assert!(status.check().unwrap_err().contains("Kafka"));
        status.broker_up();
        assert_eq!(status.check(), Ok(()));
    }
}
