//! Effects become messages: each command gets its draft from the saga's data, a new id and the next sequence of its topic.

use chrono::{DateTime, Utc};
use uuid::Uuid;
use waybill_messaging::codec::CodecError;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::{Draft, Message};
use waybill_runtime::clock::new_id;

use crate::definition::{Act, Definition, Kind};
use crate::engine::Effect;
use crate::error::SagaError;
use crate::log::Did;
use crate::runner::Runner;
use crate::sequences::Sequences;
use crate::state::Phase;

/// Makes the messages of one instance.
pub(crate) struct Outgoing<'a, D> {
    runner: &'a Runner<D>,
    definition: &'a Definition<D>,
    key: Uuid,
    data: &'a D,
    sequences: Sequences,
    now: DateTime<Utc>,
    messages: Vec<Message>,
}

impl<'a, D> Outgoing<'a, D> {
    pub(crate) fn new(
        runner: &'a Runner<D>,
        definition: &'a Definition<D>,
        key: Uuid,
        data: &'a D,
        sequences: Sequences,
        now: DateTime<Utc>,
    ) -> Self {
        Self { runner, definition, key, data, sequences, now, messages: Vec::new() }
    }

    /// Makes the messages of `effects` and says what was done, for the log.
    pub(crate) fn take(&mut self, effects: &[Effect], cause: &Cause) -> Result<Vec<Did>, SagaError> {
        let mut did = Vec::with_capacity(effects.len());
        for effect in effects {
            if let Effect::Command { step, phase, attempt } = effect {
                did.extend(self.send(step, *phase, *attempt, cause)?);
            } else {
                did.extend(Did::of(effect));
            }
        }
        Ok(did)
    }

    /// The counters after the messages, and the messages.
    pub(crate) fn into_parts(self) -> (Sequences, Vec<Message>) {
        (self.sequences, self.messages)
    }

    fn send(
        &mut self,
        step: &'static str,
        phase: Phase,
        attempt: u32,
        cause: &Cause,
    ) -> Result<Option<Did>, SagaError> {
        let Some(draft) = self.draft(step, phase) else {
            return Ok(None);
        };
        let saga = self.runner.saga;
        let draft = draft.map_err(|source| SagaError::Draft { saga, key: self.key, step, source })?;
        let sequence = self.sequences.next(draft.topic);
        let (message_id, kind, topic) = (new_id(), draft.kind.to_owned(), draft.topic.to_owned());
        self.messages.push(draft.finish(message_id, self.now, self.runner.source, sequence, cause.clone()));
        Ok(Some(Did::Sent { step, phase, attempt, message_id, kind, topic }))
    }

    /// The draft of a step's or compensation's command; `None` for what sends none, which the engine never asks for.
    fn draft(&self, step: &str, phase: Phase) -> Option<Result<Draft, CodecError>> {
        let row = &self.definition.rows[self.definition.place(step)?];
        let act = match (phase, &row.kind) {
            (Phase::Act, _) => &row.step.act,
            (Phase::Compensate, Kind::Compensatable(compensation)) => &compensation.act,
            (Phase::Compensate, Kind::Pivot | Kind::Retriable) => return None,
        };
        match act {
            Act::Command(command) => Some(command(self.data)),
            Act::Local => None,
        }
    }
}
