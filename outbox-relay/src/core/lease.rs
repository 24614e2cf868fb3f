//! When to renew the lease, and when to stop publishing because it may have run out.
//!
//! The lease's end is written on the database's clock. Its holder measures from before it asked, on its own monotonic
//! clock, and trusts only half of the time: whoever takes over waits the whole. A holder that was stopped in between
//! can at worst publish what its producer had already taken: duplicates, which consumers drop.

use std::time::Duration;

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// How long it lasts from each renewal.
    length: Duration,
    /// Fences every write of the position.
    epoch: i64,
    /// When the last successful renewal was asked for, on the holder's monotonic clock.
    asked_at: Duration,
}

/// What the holder does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Publish.
    Publish,
    /// Publish, and renew.
    Renew,
    /// Stop publishing: half of the lease passed without a renewal.
    StepDown,
}

impl Lease {
    /// A lease asked for at `asked_at` and granted for `length` under `epoch`.
    #[must_use]
    pub fn granted(length: Duration, epoch: i64, asked_at: Duration) -> Self {
        Self { length, epoch, asked_at }
    }

    /// The epoch that every write of the position must show.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// A renewal asked for at `asked_at` succeeded.
    pub fn renewed(&mut self, asked_at: Duration) {
        self.asked_at = self.asked_at.max(asked_at);
    }

    /// When a renewal is due: a fifth of the lease, so that one may fail before the holder must step down.
    #[must_use]
    pub fn renew_at(&self) -> Duration {
        self.asked_at + self.length / 5
    }

    /// What to do at `now`.
    #[must_use]
    pub fn duty(&self, now: Duration) -> Duty {
        if now >= self.asked_at + self.length / 2 {
            Duty::StepDown
        } else if now >= self.renew_at() {
            Duty::Renew
        } else {
            Duty::Publish
        }
    }

    /// Whether rows may be handed to the producer at `now`.
    #[must_use]
    pub fn may_publish(&self, now: Duration) -> bool {
        self.duty(now) != Duty::StepDown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_at_a_fifth_and_steps_down_at_half() {
        let s = Duration::from_secs;
        let mut lease = Lease::granted(s(10), 7, s(100));
        assert_eq!(
            (lease.duty(s(101)), lease.duty(s(102)), lease.duty(s(105))),
            (Duty::Publish, Duty::Renew, Duty::StepDown)
        );
        lease.renewed(s(104));
        assert!(lease.may_publish(s(108)) && !lease.may_publish(s(109)));
        lease.renewed(s(103));
        assert!(!lease.may_publish(s(109)), "an older renewal adds nothing");
    }
}
