//! The lease's renewals and the position's writes go on beside the rows: nothing that is published waits for them.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::core::position::Position;
use crate::store::{Keeper, KeeperError};

/// The connection that keeps the lease: it does one thing at a time.
pub(super) enum Keeping {
    /// It has nothing to do.
    Free(Keeper),
    /// It was asked for a renewal.
    Asked(Asked),
    /// The task that had it is gone.
    Gone,
}

/// A renewal, and what is stored with it.
pub(super) struct Asked {
    at: Duration,
    reached: Option<Position>,
    answer: JoinHandle<(Keeper, Result<Option<usize>, KeeperError>)>,
}

/// A renewal that succeeded.
pub(super) struct Kept {
    /// When it was asked for: the lease counts from then.
    pub(super) asked_at: Duration,
    /// What was stored with it.
    pub(super) stored: Option<Position>,
    /// What the one holds that holds the fewest of those who wait.
    pub(super) fewest: Option<usize>,
}

impl Keeping {
    /// Asks for a renewal now, and for this position to be stored with it. Nothing when one is on its way.
    pub(super) fn ask(&mut self, epoch: i64, reached: Option<Position>, now: Duration) {
        let mut keeper = match std::mem::replace(self, Self::Gone) {
            Self::Free(keeper) => keeper,
            other => return *self = other,
        };
        let stored = reached.clone();
        let answer = tokio::spawn(async move {
            let kept = keeper.keep(epoch, stored.as_ref()).await;
            (keeper, kept)
        });
        *self = Self::Asked(Asked { at: now, reached, answer });
    }

    /// Whether nothing is on its way.
    pub(super) fn is_free(&self) -> bool {
        matches!(self, Self::Free(_))
    }

    /// Whether an answer is there that was not taken.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self, Self::Asked(asked) if asked.answer.is_finished())
    }

    /// Waits for the answer to what is on its way; `None` when nothing is.
    pub(super) async fn answer(&mut self) -> Result<Option<Kept>, KeeperError> {
        let Self::Asked(asked) = self else { return Ok(None) };
        let answer = (&mut asked.answer).await;
        let (asked_at, stored) = (asked.at, asked.reached.take());
        *self = Self::Gone;
        let (keeper, kept) = answer.map_err(|_| KeeperError::Gone)?;
        *self = Self::Free(keeper);
        kept.map(|fewest| Some(Kept { asked_at, stored, fewest }))
    }

    /// The connection itself, when it is free.
    pub(super) fn keeper(&mut self) -> Result<&mut Keeper, KeeperError> {
        match self {
            Self::Free(keeper) => Ok(keeper),
            _ => Err(KeeperError::Gone),
        }
    }
}
