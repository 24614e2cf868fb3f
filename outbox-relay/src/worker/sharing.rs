//! What the workers of a process know of each other: how many databases it holds, and whether one is being handed over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::STANDBY_PAUSE;
use crate::core::share::{NOT_NOW, Share};

/// Shortest rest after a hand-over: in it each relay has asked four times, and shown what it holds.
const REST_MIN: Duration = STANDBY_PAUSE.saturating_mul(4);
/// After one that nobody took, so many rests: each such costs the database a second without a publisher.
const RESTS_NOT_TAKEN: u32 = 8;
/// After a fault of publishing, so many rests (a minute, as leases are by default) in which the process asks for nothing:
/// what it is given it might not be able to publish either.
const RESTS_AFTER_FAULT: u32 = 30;

/// Shared by the workers; cheap to clone.
#[derive(Clone)]
pub struct Sharing {
    rest: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    share: Share,
    rests_until: Option<Instant>,
    unwell_until: Option<Instant>,
}

impl Sharing {
    /// Of a process that holds nothing yet, with leases of this length.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self { rest: (lease / 5).max(REST_MIN), state: Arc::default() }
    }

    /// What those of its sessions show that wait.
    pub(super) fn shown(&self) -> usize {
        let state = self.lock();
        let unwell = state.unwell_until.is_some_and(|until| Instant::now() < until);
        if unwell { NOT_NOW } else { state.share.held() }
    }

    /// A lease was granted.
    pub(super) fn took(&self) {
        self.lock().share.took();
    }

    /// A lease was given back, or lost.
    pub(super) fn lost(&self) {
        self.lock().share.lost();
    }

    /// Whether a database is given back for one that waits for it and holds `fewest`: then how many this process held.
    pub(super) fn gives(&self, fewest: usize) -> Option<usize> {
        let mut state = self.lock();
        if state.rests_until.is_some_and(|until| Instant::now() >= until) {
            state.rests_until = None;
            state.share.rested();
        }
        state.share.gives(fewest).then(|| state.share.held())
    }

    /// It is known whether another has taken what was given back.
    pub(super) fn settled(&self, taken: bool) {
        let rests = if taken { 1 } else { RESTS_NOT_TAKEN };
        let mut state = self.lock();
        state.share.settled();
        state.rests_until = Some(Instant::now() + self.rest * rests);
    }

    /// Something that this process holds can not be published.
    pub(super) fn unwell(&self) {
        self.lock().unwell_until = Some(Instant::now() + self.rest * RESTS_AFTER_FAULT);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_hand_over_it_rests_and_after_a_fault_it_asks_for_nothing() {
        let sharing = Sharing::new(Duration::from_secs(600));
        (0..4).for_each(|_| sharing.took());
        assert_eq!((sharing.shown(), sharing.gives(0)), (4, Some(4)));
        sharing.lost();
        sharing.settled(true);
        assert_eq!((sharing.shown(), sharing.gives(0)), (3, None));
        sharing.unwell();
        assert_eq!(sharing.shown(), NOT_NOW);
    }
}
