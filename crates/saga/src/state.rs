//! Where an instance stands: an enum whose variants hold their data; its JSON is the `state` column.

use serde::{Deserialize, Serialize};

/// Whether a step itself or its compensation is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The step.
    Act,
    /// The step's compensation.
    Compensate,
}

impl Phase {
    /// The phase as its JSON and its metric label have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Compensate => "compensate",
        }
    }
}

/// What an instance under way waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// The reply to its command, or that attempt's deadline.
    Reply,
    /// The end of the back-off after a failure; then the command is sent again.
    BackOff,
    /// The reply, a little longer: no attempt was answered in its time, or the whole saga's is over. The command was sent
    /// once more, and silence counts only when that one is seen to be published, and after as long again as that took (a
    /// quarter of the deadline at least, the deadline at most): a reply that was held up as it was is there by then.
    LastCall,
}

/// How a saga ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Every step is done.
    Completed,
    /// Every step that was done, or may have been, is taken back.
    Compensated {
        /// Why: a refusal's or failure's reason, the cancel's, or [`crate::engine::REASON_TIMED_OUT`].
        reason: String,
    },
    /// An operator gave it up as it stood.
    Abandoned,
}

/// Where an instance stands. Steps are named, so that the JSON reads without the definition at hand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A step's command is out. Left by its reply, its deadlines, or (before the pivot) a cancel.
    Acting {
        /// The step; those before it are done.
        step: String,
        /// How often its command has been sent; the last call is one more than the attempts it has.
        attempt: u32,
        /// What is waited for.
        wait: Wait,
    },
    /// A compensation's command is out. Left by its reply or its deadlines.
    Compensating {
        /// The step being taken back; those before it still have to be, those after it are.
        step: String,
        /// How often the command has been sent.
        attempt: u32,
        /// What is waited for.
        wait: Wait,
        /// Why the saga turned round.
        reason: String,
    },
    /// A retriable step, or a pivot of unknown outcome, has used up its attempts. Left by an operator, or by its late reply.
    StuckActing {
        /// The step.
        step: String,
        /// What is in the way.
        why: String,
    },
    /// A compensation has used up its attempts. Left by an operator, or by its late reply.
    StuckCompensating {
        /// The step to be taken back.
        step: String,
        /// What is in the way.
        why: String,
        /// Why the saga turned round.
        reason: String,
    },
    /// Nothing will happen any more.
    Ended(Ending),
}

/// The state in one word: the `status` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Going forward.
    Running,
    /// Going backward.
    Compensating,
    /// Ended with every step done.
    Completed,
    /// Ended with everything taken back.
    Compensated,
    /// Waits for an operator.
    Stuck,
    /// Given up by an operator.
    Abandoned,
}

impl Status {
    /// The word in the `status` column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether nothing will happen any more.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Abandoned)
    }
}

impl State {
    /// The state in one word.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Acting { .. } => Status::Running,
            Self::Compensating { .. } => Status::Compensating,
            Self::StuckActing { .. } | Self::StuckCompensating { .. } => Status::Stuck,
            Self::Ended(Ending::Completed) => Status::Completed,
            Self::Ended(Ending::Compensated { .. }) => Status::Compensated,
            Self::Ended(Ending::Abandoned) => Status::Abandoned,
        }
    }

    /// The step and phase it is at; `None` when it has ended.
    #[must_use]
    pub fn at(&self) -> Option<(&str, Phase)> {
        match self {
            Self::Acting { step, .. } | Self::StuckActing { step, .. } => Some((step, Phase::Act)),
            Self::Compensating { step, .. } | Self::StuckCompensating { step, .. } => {
                Some((step, Phase::Compensate))
            }
            Self::Ended(_) => None,
        }
    }
}
