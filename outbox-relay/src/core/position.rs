//! How far everything is published and acknowledged.

use std::fmt;
use std::sync::Arc;

use super::snapshot::Snapshot;

/// Everything visible in `from` is published and acknowledged; inside a round, a part of what came after too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Everything it sees is published.
    pub from: Arc<Snapshot>,
    /// How far the round that leads from `from` to a newer snapshot has come; `None` between two rounds.
    pub inside: Option<Inside>,
}

/// A place inside a round: of the rows visible in `to` and not in the position's `from`, those up to `last_id` are
/// published.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inside {
    /// The snapshot the round leads to.
    pub to: Arc<Snapshot>,
    /// The id up to which it is published.
    pub last_id: i64,
}

impl Position {
    /// Between two rounds: everything that `from` sees is published, nothing else.
    #[must_use]
    pub fn at(from: Arc<Snapshot>) -> Self {
        Self { from, inside: None }
    }

    /// Inside the round `from` -> `to`, up to `last_id`.
    #[must_use]
    pub fn inside(from: Arc<Snapshot>, to: Arc<Snapshot>, last_id: i64) -> Self {
        Self { from, inside: Some(Inside { to, last_id }) }
    }

    /// The highest transaction id edge that this position speaks of.
    #[must_use]
    pub fn newest(&self) -> &Snapshot {
        self.inside.as_ref().map_or(&self.from, |inside| &inside.to)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inside {
            None => write!(f, "{}", self.from),
            Some(Inside { to, last_id }) => write!(f, "{} -> {to} up to id {last_id}", self.from),
        }
    }
}
