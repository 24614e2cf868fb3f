//! How a tenure of the lease ends.

use crate::core::round::FromTheFuture;
use crate::publish::{Failure, ProducerError};
use crate::status::FaultKind;
use crate::store::{KeeperError, ReaderError};

/// A tenure that ended.
#[derive(Debug)]
pub(super) struct Tenure {
    pub(super) why: End,
    /// Whether rows were published in it.
    pub(super) progress: bool,
    /// Rows that brokers refused: where they are several, any of them may be the cause.
    pub(super) refused: usize,
}

impl Tenure {
    /// One that ended before anything was handed over.
    pub(super) fn before_publishing(why: End) -> Self {
        Self { why, progress: false, refused: 0 }
    }
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("shutdown")]
    Shutdown,
    #[error("given back for balance")]
    HandedOver,
    #[error("the lease is lost")]
    LeaseLost,
    #[error("reading the outbox failed")]
    Reading(#[from] ReadingError),
    #[error("keeping the lease failed")]
    Keeping(#[from] KeeperError),
    #[error("{0}")]
    Delivery(Refused),
    #[error("a row can not be published")]
    Row(#[source] ProducerError),
    #[error("the producer can not start")]
    Producer(#[source] ProducerError),
}

impl End {
    /// The fault that it is when the database is to blame.
    pub(super) fn fault_of_the_database(&self) -> Option<FaultKind> {
        match self {
            Self::Reading(error) if error.is_about_the_position() => Some(FaultKind::Position),
            Self::Reading(_) | Self::Keeping(_) => Some(FaultKind::Postgres),
            _ => None,
        }
    }

    /// Whether the next might end so too, whichever database is held.
    pub(super) fn is_a_fault(&self) -> bool {
        !matches!(self, Self::Shutdown | Self::HandedOver | Self::LeaseLost)
    }
}

/// A delivery that failed, with the row where it was one.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) id: Option<i64>,
    pub(super) failure: Failure,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = &self.failure.reason;
        match (self.id, &self.failure.topic) {
            (Some(id), Some(topic)) => write!(f, "row {id} was refused by topic {topic}: {reason}")?,
            _ => f.write_str(reason)?,
        }
        f.write_str("; nothing passes it, it is tried again")
    }
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadingError {
    #[error(transparent)]
    Reader(#[from] ReaderError),
    #[error(transparent)]
    FromTheFuture(#[from] FromTheFuture),
    #[error("the task that reads ended")]
    Gone,
}

impl ReadingError {
    /// The tables come from another cluster.
    pub(super) fn is_about_the_position(&self) -> bool {
        matches!(self, Self::FromTheFuture(_) | Self::Reader(ReaderError::ForeignRows))
    }
}
