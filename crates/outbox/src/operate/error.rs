//! Why an operator's wish was not done.

use uuid::Uuid;

use crate::retry::operate as letters;

/// What a caller can do about an [`OperateError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is no such thing: HTTP 404.
    NotFound,
    /// Not in the present state: HTTP 409. Look again, then decide.
    Conflict,
    /// The wish itself is wrong: HTTP 400.
    Invalid,
    /// As much of it as is done at once is being done: HTTP 503. Try again in a while.
    Busy,
    /// The database refused or is away: as any [`sqlx::Error`].
    Database,
}

/// Why it was not done. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The database refused.
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
    /// There is nothing of this name.
    #[error("there is no {what} {name}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// It is not in the state for it.
    #[error("{what} {name} is {state}, not {wanted}")]
    State {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
        /// Its state.
        state: String,
        /// The state it would have to be in.
        wanted: &'static str,
    },
    /// The number of dead letters is not the one that was expected.
    #[error("{found} dead letters match, and {expected} were expected; look at the plan again")]
    Count {
        /// What the caller expected.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The patch is not the one that the caller has seen.
    #[error("the patch of dead letter {id} is another than expected, by {by}; look at it again")]
    EditedMeanwhile {
        /// The letter.
        id: Uuid,
        /// Whose patch there is, and since when; `nobody` when there is none.
        by: String,
    },
    /// More than is done at once.
    #[error("{found} {what} are more than the {max} that are taken at once; narrow the filter")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// How many there are, or one more than the limit.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// The wish can not be read.
    #[error("{field}: {why}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong and what to write.
        why: String,
    },
    /// Another dry run has not ended, maybe one whose caller has hung up.
    #[error("another dry run is at it, and one runs at a time; it takes a minute at most: try again then")]
    Busy,
    /// A dead letter can not be sent or given up now.
    #[error(transparent)]
    Letter(letters::OperateError),
    /// The infrastructure did not let a handler run; nothing is known of any message.
    #[error("the handler could not be run: {0}")]
    Infrastructure(String),
}

impl OperateError {
    /// What a caller can do about it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unknown { .. } | Self::Letter(letters::OperateError::Unknown(_)) => Reason::NotFound,
            Self::State { .. } | Self::Count { .. } | Self::EditedMeanwhile { .. } | Self::Letter(_) => {
                Reason::Conflict
            }
            Self::TooMany { .. } | Self::Invalid { .. } => Reason::Invalid,
            Self::Busy => Reason::Busy,
            Self::Database(_) | Self::Infrastructure(_) => Reason::Database,
        }
    }

    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }

    pub(crate) fn unknown_letter(id: Uuid) -> Self {
        Self::Unknown { what: "dead letter", name: id.to_string() }
    }

    pub(crate) fn letter_not_open(id: Uuid, state: &str) -> Self {
        Self::State { what: "dead letter", name: id.to_string(), state: state.to_owned(), wanted: "open" }
    }
}

impl From<letters::OperateError> for OperateError {
    fn from(error: letters::OperateError) -> Self {
        match error {
            letters::OperateError::Database(error) => Self::Database(error),
            other => Self::Letter(other),
        }
    }
}
