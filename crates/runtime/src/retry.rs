//! Back-off between tries: exponential, with jitter, bounded. The only place that knows the `backoff` crate, which has
//! no maintainer (RUSTSEC-2025-0012) and can be exchanged here alone.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// How long to wait before the next try: doubles from `initial` to `max`, each wait spread by a quarter either way so that
/// processes that failed together do not come back together. It never gives up: whoever tries decides how often.
#[derive(Debug)]
pub struct Backoff {
    policy: ExponentialBackoff,
    initial: Duration,
    max: Duration,
}

impl Backoff {
    /// A back-off that begins with about `initial` and grows to about `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        let policy = ExponentialBackoff {
            current_interval: initial,
            initial_interval: initial,
            randomization_factor: 0.25,
            multiplier: 2.0,
            max_interval: max,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { policy, initial, max }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        self.policy.next_backoff().unwrap_or(self.max)
    }

    /// Begins again with the shortest wait; called after a success.
    pub fn reset(&mut self) {
        self.policy.reset();
        self.policy.current_interval = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_start_again() {
        let (initial, max) = (Duration::from_millis(10), Duration::from_millis(200));
        let mut backoff = Backoff::new(initial, max);
        let waits: Vec<_> = (0..50).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().all(|wait| *wait >= initial * 3 / 4 && *wait <= max * 5 / 4), "{waits:?}");
        assert!(waits[40] > initial * 2, "it grew: {waits:?}");
        backoff.reset();
        assert!(backoff.next_wait() <= initial * 5 / 4);
    }
}
