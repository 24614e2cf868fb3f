//! A batch in memory: the loaded instances, stepped by their inputs, then told as columns for the save and the log.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Message;
use waybill_runtime::clock::{Clock as _, SystemClock};

use crate::definition::Definition;
use crate::engine::{self, Transition};
use crate::error::SagaError;
use crate::input::{Input, Outcome};
use crate::instance::{Advanced, Instance};
use crate::log::{Entry, Happened};
use crate::outgoing::Outgoing;
use crate::runner::Runner;
use crate::state::State;
use crate::store::{Saves, Stored};
use crate::timer::Timer;

/// An instance, and how it differs from its row.
struct Touched<'a, D> {
    definition: &'a Definition<D>,
    instance: Instance<D>,
    loaded_state: State,
    /// An input was accepted: the row is saved.
    accepted: bool,
    /// Accepted and more than an alert: the timer is set anew.
    moved: bool,
    deadline_told: bool,
}

/// Log entries, a column each.
#[derive(Debug, Default)]
pub(crate) struct LogRows {
    pub(crate) keys: Vec<Uuid>,
    pub(crate) entries: Vec<String>,
}

/// The instances of one call of [`Runner::advance`].
pub(crate) struct Batch<'a, D> {
    runner: &'a Runner<D>,
    now: DateTime<Utc>,
    touched: BTreeMap<Uuid, Touched<'a, D>>,
    log: LogRows,
    messages: Vec<Message>,
}

impl<'a, D: serde::Serialize + serde::de::DeserializeOwned + Clone + Send + Sync> Batch<'a, D> {
    /// Parses what was loaded and finds each instance's definition.
    pub(crate) fn new(runner: &'a Runner<D>, stored: Vec<Stored>) -> Result<Self, SagaError> {
        let mut touched = BTreeMap::new();
        let mut unknown = Vec::new();
        for row in stored {
            let version = u32::try_from(row.version).unwrap_or_default();
            let Some(definition) = runner.definition(version) else {
                // Not parsed: another version's data may have another shape.
                unknown.push((row.key, version));
                continue;
            };
            let instance = runner.parse(row)?;
            let loaded_state = instance.state.clone();
            let (accepted, moved, deadline_told) = (false, false, false);
            touched.insert(
                instance.key,
                Touched { definition, instance, loaded_state, accepted, moved, deadline_told },
            );
        }
        if let Some((_, version)) = unknown.first() {
            let version = *version;
            return Err(runner.unknown_version(unknown.into_iter().map(|(key, _)| key).collect(), version));
        }
        let (now, log, messages) = (SystemClock.now(), LogRows::default(), Vec::new());
        Ok(Self { runner, now, touched, log, messages })
    }

    /// Takes one input; `None` when its key has no instance.
    pub(crate) fn take(
        &mut self,
        key: Uuid,
        input: Input,
        cause: &Cause,
    ) -> Result<Option<Advanced<D>>, SagaError> {
        let runner = self.runner;
        let Some(touched) = self.touched.get_mut(&key) else {
            tracing::warn!(saga = runner.saga, %key, ?input, "no such saga: the input is dropped");
            return Ok(None);
        };
        let instance = &mut touched.instance;
        let transition = engine::step(touched.definition, &instance.state, &input)
            .map_err(|source| SagaError::Step { saga: runner.saga, key, source })?;
        let sequences = std::mem::take(&mut instance.sequences);
        let mut outgoing =
            Outgoing::new(runner, touched.definition, key, &instance.data, sequences, self.now);
        let did = outgoing.take(&transition.effects, cause)?;
        let (sequences, messages) = outgoing.into_parts();
        instance.sequences = sequences;
        self.messages.extend(messages);
        measure(runner, instance, &input, &transition);

        let status = transition.state.status();
        let accepted = transition.ignored.is_none();
        touched.accepted |= accepted;
        // An alert leaves the state, and with it the timer, as it was.
        touched.moved |= accepted && input != Input::SagaDeadline || instance.state != transition.state;
        touched.deadline_told |= input == Input::SagaDeadline;
        let entry = Entry {
            input: Happened::Input(input),
            cause: cause.causation_id,
            ignored: transition.ignored,
            did,
            status,
        };
        self.log.keys.push(key);
        self.log.entries.push(serde_json::to_string(&entry).map_err(SagaError::stored(
            runner.saga,
            key,
            "entry",
        ))?);
        instance.state = transition.state.clone();
        Ok(Some(Advanced {
            key,
            data: instance.data.clone(),
            status,
            state: transition.state,
            effects: transition.effects,
            accepted,
            ignored: transition.ignored,
            sequences: instance.sequences.clone(),
            cause: cause.clone(),
        }))
    }

    /// The columns to save, in key order; the log; the messages in the order they were made.
    pub(crate) fn finish(self) -> Result<(Saves, LogRows, Vec<Message>), SagaError> {
        let saga = self.runner.saga;
        let mut saves = Saves::default();
        for (key, touched) in self.touched.into_iter().filter(|(_, touched)| touched.accepted) {
            let (definition, instance) = (touched.definition, touched.instance);
            let json = |column| SagaError::stored(saga, key, column);
            let timer = Timer::of(definition, &instance.state);
            saves.keys.push(key);
            saves.revisions.push(instance.revision);
            saves.statuses.push(instance.state.status().as_str());
            saves.states.push(serde_json::to_string(&instance.state).map_err(json("state"))?);
            saves.sequences.push(serde_json::to_string(&instance.sequences).map_err(json("sequences"))?);
            saves.moved.push(touched.moved);
            saves.sent.push(timer.sent);
            saves.due_in_ms.push(timer.due_in_ms);
            saves.wait_ms.push(timer.wait_ms);
            saves.deadline_over.push(touched.deadline_told || timer.due_in_ms.is_none());
            saves.step_began.push(instance.state.at() != touched.loaded_state.at());
        }
        Ok((saves, self.log, self.messages))
    }
}

/// Metrics and log lines of one input.
fn measure<D: serde::Serialize + serde::de::DeserializeOwned + Clone + Send + Sync>(
    runner: &Runner<D>,
    instance: &Instance<D>,
    input: &Input,
    transition: &Transition,
) {
    if let Some(why) = transition.ignored {
        runner.metrics.ignored();
        tracing::debug!(saga = runner.saga, key = %instance.key, ?input, ?why, "saga ignores an input");
    } else if let Input::Reply { step, phase, outcome: Outcome::Done | Outcome::Refused { .. } } = input {
        runner.metrics.step(step, *phase, instance.step_seconds);
    }
    runner.tell(instance.key, &transition.effects);
}
