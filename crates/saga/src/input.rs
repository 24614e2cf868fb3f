//! What can happen to a saga: replies, deadlines, a cancel, an operator's verb; and why some of it is ignored.

use serde::{Deserialize, Serialize};

use crate::state::Phase;

/// What a participant answered. No answer before the deadline is a fourth outcome, unknown, and is told by [`Input::Deadline`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done.
    Done,
    /// It will not be done: nothing was done, and the same natural key gets this answer for ever.
    Refused {
        /// Machine-readable, e.g. `insufficient_stock`.
        reason: String,
    },
    /// It could not be done. Before and at the pivot as final as [`Outcome::Refused`]; for a retriable step and for a
    /// compensation it means "not now": the command is sent again after a back-off.
    Failed {
        /// Machine-readable.
        reason: String,
    },
}

/// An operator's verb: for a stuck saga, and [`Verb::Abandon`] for any that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Send the command again, with a new count of attempts.
    Retry,
    /// Take it as done (somebody did it by hand) and go on.
    Skip,
    /// End the saga as it stands.
    Abandon,
}

/// Something that happens to a saga.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A participant's reply.
    Reply {
        /// The step it is about.
        step: &'static str,
        /// The step or its compensation.
        phase: Phase,
        /// What it says.
        outcome: Outcome,
    },
    /// The current step's deadline, or its back-off, is over.
    Deadline,
    /// The whole saga's deadline is over.
    SagaDeadline,
    /// Somebody wants the saga to turn round.
    Cancel {
        /// Machine-readable; becomes the ending's reason.
        reason: String,
    },
    /// An operator's verb.
    Operator(Verb),
}

impl Input {
    /// A reply to a step's command.
    #[must_use]
    pub fn reply(step: &'static str, outcome: Outcome) -> Self {
        Self::Reply { step, phase: Phase::Act, outcome }
    }

    /// A reply to the command of a step's compensation.
    #[must_use]
    pub fn compensated(step: &'static str, outcome: Outcome) -> Self {
        Self::Reply { step, phase: Phase::Compensate, outcome }
    }
}

/// Why an input changed nothing. Never an error: late, repeated and crossing messages are everyday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ignored {
    /// The saga has ended.
    Ended,
    /// The reply is about another step, or about the other phase: late or repeated.
    OutOfPhase,
    /// The failure is known and the back-off runs.
    BackingOff,
    /// A cancel at the pivot, whose outcome is open, or after it.
    PastPivot,
    /// A cancel when the saga has already turned round.
    Compensating,
    /// The saga waits for an operator.
    Stuck,
    /// An operator's verb, other than abandon, for a saga that is not stuck.
    NotStuck,
}
