//! What can go wrong when sagas are started and advanced, and what a consumer makes of it.

use uuid::Uuid;
use waybill_messaging::codec::CodecError;
use waybill_outbox::inbox::HandlerError;

use crate::engine::UnknownStep;

/// Why sagas could not be started or advanced. Nothing has been written when the caller rolls its transaction back.
///
/// | variant | what to do |
/// |---|---|
/// | `Database` | roll back and repeat; infrastructure |
/// | `Conflict` | roll back and repeat: somebody saved the instance without its lock |
/// | `AlreadyStarted` | roll back; the saga of this key exists |
/// | `UnknownVersion` | not now: a handler asks for a retry of the messages of these keys ([`SagaError::UNKNOWN_VERSION`]) until a runner that holds the version is deployed |
/// | `Step`, `Stored`, `Draft` | a fault of the program or a row changed by hand; mend, then replay |
#[derive(Debug, thiserror::Error)]
pub enum SagaError {
    /// A statement failed.
    #[error("saga {saga}: {operation} failed")]
    Database {
        /// The saga's name.
        saga: &'static str,
        /// The statement.
        operation: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// An instance was saved by somebody else after it was loaded here.
    #[error(
        "saga {saga}: {saved} of {expected} instances could be saved, the others were changed meanwhile; repeat the transaction"
    )]
    Conflict {
        /// The saga's name.
        saga: &'static str,
        /// Instances to save.
        expected: u64,
        /// Instances whose revision was still the one loaded.
        saved: u64,
    },
    /// The key has an instance of this saga already.
    #[error("saga {saga} of one of these keys has been started before")]
    AlreadyStarted {
        /// The saga's name.
        saga: &'static str,
    },
    /// Instances began with a definition this runner does not hold.
    #[error(
        "saga {saga} of {} runs on version {version} of its definition; this process knows {known:?}; deploy one that knows {version}",
        .keys.iter().map(Uuid::to_string).collect::<Vec<_>>().join(", ")
    )]
    UnknownVersion {
        /// The saga's name.
        saga: &'static str,
        /// The instances: all of them that one call was about.
        keys: Vec<Uuid>,
        /// The version that the first of them began with.
        version: u32,
        /// The versions held here.
        known: Vec<u32>,
    },
    /// The stored state is not one of its definition.
    #[error("saga {saga} of {key} is in a state its definition does not have")]
    Step {
        /// The saga's name.
        saga: &'static str,
        /// The instance.
        key: Uuid,
        /// Why.
        #[source]
        source: UnknownStep,
    },
    /// A stored column can not be read, or the saga's data can not be written, as JSON.
    #[error("saga {saga} of {key}: column {column} does not fit its type")]
    Stored {
        /// The saga's name.
        saga: &'static str,
        /// The instance.
        key: Uuid,
        /// `state`, `data`, `sequences` or `entry`.
        column: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A step's command could not be made from the saga's data.
    #[error("saga {saga} of {key}: the command of step {step} can not be made")]
    Draft {
        /// The saga's name.
        saga: &'static str,
        /// The instance.
        key: Uuid,
        /// The step.
        step: &'static str,
        /// Why.
        #[source]
        source: CodecError,
    },
}

impl SagaError {
    /// The class of a retry that waits for a process which knows a newer definition.
    pub const UNKNOWN_VERSION: &'static str = "unknown_version";

    /// Makes the error of a statement.
    pub(crate) fn database(saga: &'static str, operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { saga, operation, source }
    }

    /// Makes the error of a JSON column.
    pub(crate) fn stored(
        saga: &'static str,
        key: Uuid,
        column: &'static str,
    ) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Stored { saga, key, column, source }
    }

    /// The whole chain of causes on one line, for logs and dead letters.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Database troubles and conflicts are infrastructure (the batch is repeated); anything else is a fault of this one message.
impl From<SagaError> for HandlerError {
    fn from(error: SagaError) -> Self {
        match error {
            SagaError::Database { source, .. } => Self::Database(source),
            conflict @ SagaError::Conflict { .. } => Self::Database(sqlx::Error::Protocol(conflict.chain())),
            fault => Self::Fault(fault.chain()),
        }
    }
}
