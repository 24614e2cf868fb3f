//! The saga log: one JSON entry for every input, also for the ignored ones. It is the timeline's source.

use serde::Serialize;
use uuid::Uuid;

use crate::engine::Effect;
use crate::input::{Ignored, Input};
use crate::state::{Ending, Phase, Status};

/// What happened, as the `entry` column has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What came in.
    pub input: Happened,
    /// The message that brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Uuid>,
    /// Why it changed nothing; absent when it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored: Option<Ignored>,
    /// What followed, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub did: Vec<Did>,
    /// Where the saga stood afterwards.
    pub status: Status,
}

/// What came in: the start, or an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// The saga began.
    Started {
        /// On this version of its definition.
        version: u32,
    },
    /// An input.
    #[serde(untagged)]
    Input(Input),
}

/// One thing that followed: an [`Effect`], with the message it became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// A command was appended to the outbox.
    Sent {
        /// The step.
        step: &'static str,
        /// The step or its compensation.
        phase: Phase,
        /// 1 for the first time.
        attempt: u32,
        /// `ce_id`.
        message_id: Uuid,
        /// `ce_type`.
        kind: String,
        /// Topic without prefix.
        topic: String,
    },
    /// A local step was done.
    Local {
        /// The step.
        step: &'static str,
    },
    /// A local step was taken back.
    LocalCompensation {
        /// The step.
        step: &'static str,
    },
    /// The saga ended.
    Finished {
        /// How.
        ending: Ending,
    },
    /// The saga waits for an operator.
    Stuck {
        /// The step.
        step: &'static str,
        /// The step or its compensation.
        phase: Phase,
        /// What is in the way.
        why: String,
    },
    /// The whole saga's deadline passed when it could no longer turn round.
    Overdue,
}

impl Did {
    /// The effects that are not commands (a command becomes [`Did::Sent`] when its message is made).
    pub(crate) fn of(effect: &Effect) -> Option<Self> {
        match effect {
            Effect::Command { .. } => None,
            Effect::Local { step } => Some(Self::Local { step }),
            Effect::LocalCompensation { step } => Some(Self::LocalCompensation { step }),
            Effect::Finished(ending) => Some(Self::Finished { ending: ending.clone() }),
            Effect::Stuck { step, phase, why } => Some(Self::Stuck { step, phase: *phase, why: why.clone() }),
            Effect::Overdue => Some(Self::Overdue),
        }
    }
}
