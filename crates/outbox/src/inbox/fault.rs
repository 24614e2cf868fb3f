//! Whose fault an error is: the message's, so that it becomes a dead letter, or the infrastructure's, so that all wait.

use std::error::Error;

use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::BatchError;
use waybill_runtime::pool;

use super::HandlerError;
use super::incoming::Failure;

/// Why a transaction over messages was not committed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The handler said of these items (by their places) that they are not done.
    Judged(Vec<(usize, Failure)>),
    /// Another member parked a key of ours meanwhile; again, it will be seen.
    ParkedMeanwhile,
    /// Trying again later may help; nothing is decided about any message.
    Infrastructure(BatchError),
    /// Some message of the transaction can not be handled, nobody knows which.
    Message {
        /// The dead letter's error class.
        class: &'static str,
        /// The dead letter's error message.
        why: String,
    },
    /// A statement of the handler ran into its time limit: because of some message, or the database is slow for everybody.
    TimedOut {
        /// What the server said.
        why: String,
    },
}

impl Trouble {
    /// A statement of ours failed. Ours do not depend on what a message says, so the fault is not the message's.
    pub(crate) fn ours(error: sqlx::Error) -> Self {
        Self::Infrastructure(BatchError::new(error))
    }

    /// The commit failed: a deferred constraint speaks about the handler's rows, all else about the server.
    pub(crate) fn commit(error: sqlx::Error) -> Self {
        Self::from(HandlerError::Database(error))
    }
}

impl From<HandlerError> for Trouble {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Fault(why) => Self::Message { class: "fault", why },
            HandlerError::Database(error) if is_of_message(&error) => {
                Self::Message { class: "database", why: chain(&error) }
            }
            HandlerError::Database(error) if is_timeout(&error) => Self::TimedOut { why: chain(&error) },
            HandlerError::Database(error) => Self::Infrastructure(BatchError::new(error)),
        }
    }
}

/// Whether this database error would come again with the same message and not with others.
///
/// Named are the errors that speak about data; everything else, also what nobody thought of, makes the group wait and
/// say so, because a wrongly waiting group is seen and mended, and a wrongly dead-lettered topic is a flood.
fn is_of_message(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // "No partition of relation found for row" has a check's code but names no constraint: upkeep mends it.
            let partition_missing = code == "23514" && database.constraint().is_none();
            // 21 cardinality, 22 data, 23 integrity, 44 check option, 54 a limit of the program (a value too long for an
            // index, a statement too complex), P0 raised; 25P02: an error was swallowed before.
            let of_data = ["21", "22", "23", "44", "54", "P0"].iter().any(|class| code.starts_with(class));
            (of_data && !partition_missing) || code == "25P02"
        }
        sqlx::Error::RowNotFound
        | sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}

/// Whether the server ended a statement by its time limit (or because somebody asked it to, which it tells alike).
fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("57014"))
}

/// [`pool::is_conflict`], of what made a batch fail.
pub(super) fn is_conflict(error: &BatchError) -> bool {
    error.0.downcast_ref().is_some_and(pool::is_conflict)
}

/// Whether a payload was not decoded because this program is wrong, not the payload: then every message would fail.
pub(crate) fn is_of_program(error: &CodecError) -> bool {
    matches!(error, CodecError::Schema { .. } | CodecError::Unfit { .. } | CodecError::AllocationLimit { .. })
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Some errors repeat their cause's text in their own.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_never_the_messages_fault() {
        for error in [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::WorkerCrashed,
            sqlx::Error::Io(std::io::Error::other("cut")),
            sqlx::Error::Protocol("cut".to_owned()),
        ] {
            assert!(pool::is_transient(&error) && !is_of_message(&error), "{error}");
        }
        assert!(is_of_message(&sqlx::Error::RowNotFound));
        assert!(is_of_message(&sqlx::Error::Encode("too large".into())));
    }

    #[test]
    fn causes_are_told_once() {
        let error = HandlerError::Database(sqlx::Error::Io(std::io::Error::other("cut off")));
        let text = chain(&error);
        assert!(text.starts_with("a statement failed: "), "{text}");
        assert_eq!(text.matches("cut off").count(), 1, "{text}");
    }
}
