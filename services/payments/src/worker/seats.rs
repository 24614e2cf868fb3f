//! How many calls to the provider may be out at a time: quick ones, and those that have turned out to be slow.
//!
//! A call begins on a quick seat. When it has had no answer for a while it moves to a slow one, if there is one, so that
//! calls which hang do not hold up every payment behind them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Quick calls at a time: providers limit their clients, and each call holds a connection of theirs.
const QUICK_SEATS: usize = 64;
/// Slow calls at a time beside them. When these are taken too, slow calls keep their quick seats, and everybody waits.
const SLOW_SEATS: usize = 256;
/// How long a call may keep a quick seat: many times what an answer takes.
const QUICK_TIME: Duration = Duration::from_secs(1);

/// A seat of a call; free again when it is dropped.
pub(super) type Seat = OwnedSemaphorePermit;

/// All seats.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl Seats {
    /// All of them free.
    pub(super) fn new() -> Self {
        Self::of(QUICK_SEATS, SLOW_SEATS)
    }

    fn of(quick: usize, slow: usize) -> Self {
        Self { quick: Arc::new(Semaphore::new(quick)), slow: Arc::new(Semaphore::new(slow)) }
    }

    /// Calls that may begin now.
    pub(super) fn free(&self) -> usize {
        self.quick.available_permits()
    }

    /// Until a call may begin.
    pub(super) async fn some_free(&self) {
        // Only looked at, and given back. The semaphore is never closed.
        let _seen = self.quick.acquire().await;
    }

    /// A seat to begin on.
    pub(super) fn take(&self) -> Option<Seat> {
        Arc::clone(&self.quick).try_acquire_owned().ok()
    }

    /// Makes the call, which began on `seat`; answers with the seat it ended on.
    pub(super) async fn sit<T>(&self, seat: Seat, call: impl Future<Output = T>) -> (T, Seat) {
        tokio::pin!(call);
        if let Ok(done) = tokio::time::timeout(QUICK_TIME, call.as_mut()).await {
            return (done, seat);
        }
        let seat = Arc::clone(&self.slow).try_acquire_owned().unwrap_or(seat);
        (call.await, seat)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_slow_call_gives_up_its_quick_seat_while_there_is_a_slow_one() {
        let seats = Seats::of(2, 1);
        let mut calls = JoinSet::new();
        for _ in 0..2 {
            let (seats, seat) = (seats.clone(), seats.take().unwrap());
            calls.spawn(async move { seats.sit(seat, std::future::pending::<()>()).await });
        }
        assert!(seats.take().is_none());
        // One has moved; for the other there is no slow seat.
        seats.some_free().await;
        assert_eq!(seats.free(), 1);
        calls.shutdown().await;
        assert_eq!((seats.free(), seats.slow.available_permits()), (2, 1));
    }
}
