//! The runner: starts and advances instances of one saga, set-wise, in the caller's transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;
use sqlx::postgres::PgConnection;
use uuid::Uuid;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Message;
use waybill_runtime::failpoints;
use waybill_telemetry::trace::TraceContext;

use crate::definition::Definition;
use crate::engine::{self, Effect};
use crate::error::SagaError;
use crate::input::Input;
use crate::instance::{Advanced, Instance, InstanceRow, Started};
use crate::log::{Entry, Happened};
use crate::metrics::Metrics;
use crate::outgoing::Outgoing;
use crate::sequences::Sequences;
use crate::stepping::Batch;
use crate::store;
use crate::timer::{Timer, millis};

/// Starts and advances the instances of one saga. Holds every version of its definition that may still run.
///
/// A runner is cheap to use and keeps nothing between calls: all state is in the database, and every call works in the
/// transaction of its caller. When that is rolled back, nothing has happened.
pub struct Runner<D> {
    pub(crate) source: &'static str,
    pub(crate) saga: &'static str,
    pub(crate) definitions: BTreeMap<u32, Definition<D>>,
    starting: u32,
    pub(crate) metrics: Metrics,
}

impl<D> std::fmt::Debug for Runner<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("saga", &self.saga)
            .field("versions", &self.definitions.keys())
            .field("starting", &self.starting)
            .finish_non_exhaustive()
    }
}

impl<D> Runner<D> {
    /// A runner for all versions of one saga that may still have instances; the newest one starts.
    ///
    /// `source` is the `ce_source` of the commands, e.g. `/waybill/orders`. To roll a new version out over several processes,
    /// first deploy it everywhere with [`Self::starting`] at the old one: a reply can meet any of the processes.
    ///
    /// # Panics
    /// When there is no definition, when they have different names, or two have the same version.
    #[must_use]
    pub fn new(source: &'static str, definitions: Vec<Definition<D>>) -> Self {
        let saga = definitions.first().map_or("", Definition::name);
        assert!(!saga.is_empty(), "a runner needs at least one definition, with a name");
        let mut held = BTreeMap::new();
        for definition in definitions {
            let (name, version) = (definition.name(), definition.version());
            assert_eq!(name, saga, "one runner holds the versions of one saga");
            assert!(held.insert(version, definition).is_none(), "saga {saga}: version {version} twice");
        }
        let starting = held.keys().next_back().copied().unwrap_or_default();
        let metrics = Metrics::new(saga);
        Self { source, saga, definitions: held, starting, metrics }
    }

    /// Starts new instances on this version instead of the newest.
    ///
    /// # Panics
    /// When the runner does not hold it.
    #[must_use]
    pub fn starting(mut self, version: u32) -> Self {
        assert!(self.definitions.contains_key(&version), "saga {}: no version {version}", self.saga);
        self.starting = version;
        self
    }

    /// The saga's name.
    #[must_use]
    pub fn saga(&self) -> &'static str {
        self.saga
    }

    /// The definition an instance began with; `None` when this runner does not hold it.
    pub(crate) fn definition(&self, version: u32) -> Option<&Definition<D>> {
        self.definitions.get(&version)
    }

    /// What these instances can not be moved for: they began with `version`, or others that this runner does not hold.
    pub(crate) fn unknown_version(&self, keys: Vec<Uuid>, version: u32) -> SagaError {
        let known = self.definitions.keys().copied().collect();
        SagaError::UnknownVersion { saga: self.saga, keys, version, known }
    }
}

impl<D: Serialize + DeserializeOwned + Clone + Send + Sync> Runner<D> {
    /// Begins a saga. Pure: the caller stores the instance (with [`Self::start_in_tx`] or the SQL function `saga_start`),
    /// appends the messages to the outbox, and does the local effects, all in one transaction.
    ///
    /// `sequences`: `default()` for a key's first saga, else those of its former one, which must have ended.
    ///
    /// # Errors
    /// [`SagaError::Draft`] or [`SagaError::Stored`]: the data does not fit; a fault of the program.
    pub fn start(
        &self,
        key: Uuid,
        data: &D,
        cause: &Cause,
        sequences: Sequences,
        now: DateTime<Utc>,
    ) -> Result<Started, SagaError> {
        let definition = &self.definitions[&self.starting];
        let transition = engine::start(definition);
        let mut outgoing = Outgoing::new(self, definition, key, data, sequences, now);
        let did = outgoing.take(&transition.effects, cause)?;
        let (sequences, messages) = outgoing.into_parts();
        let status = transition.state.status();
        let timer = Timer::of(definition, &transition.state);
        let version = definition.version();
        let cause_id = cause.causation_id;
        let entry =
            Entry { input: Happened::Started { version }, cause: cause_id, ignored: None, did, status };
        let instance = InstanceRow {
            saga: self.saga,
            key,
            version,
            status,
            state: transition.state,
            data: to_raw_value(data).map_err(SagaError::stored(self.saga, key, "data"))?,
            sequences,
            due_in_ms: timer.due_in_ms,
            wait_ms: timer.wait_ms,
            deadline_ms: definition.deadline.filter(|_| !status.is_ended()).map(millis),
            sent: timer.sent,
            correlation_id: cause.correlation_id,
            traceparent: cause.trace.as_ref().map(TraceContext::traceparent),
            entry,
        };
        self.metrics.started();
        cause.story().tell(|| self.tell(key, &transition.effects));
        Ok(Started { instance, messages, effects: transition.effects })
    }

    /// Stores new instances and their first log entries: one statement. The messages are the caller's to append.
    ///
    /// # Errors
    /// [`SagaError::AlreadyStarted`] when a key has an instance already; [`SagaError::Database`]. The transaction is to be
    /// rolled back after either.
    pub async fn start_in_tx(&self, conn: &mut PgConnection, started: &[Started]) -> Result<(), SagaError> {
        if started.is_empty() {
            return Ok(());
        }
        let rows: Vec<&Started> = started.iter().collect();
        let argument = Started::argument(&rows).map_err(SagaError::stored(
            self.saga,
            started[0].instance.key,
            "data",
        ))?;
        store::instances_insert(conn, &argument).await.map_err(|source| match &source {
            sqlx::Error::Database(error) if error.is_unique_violation() => {
                SagaError::AlreadyStarted { saga: self.saga }
            }
            _ => SagaError::database(self.saga, "starting instances")(source),
        })?;
        failpoints::reach("saga_started");
        Ok(())
    }

    /// Takes inputs: loads and locks their instances, steps them in memory, saves them and appends to the log; two
    /// statements, whatever the number of inputs. Commands are pushed to `out`, for the caller to append to the outbox.
    ///
    /// Returns one [`Advanced`] per input, in the order of the inputs; inputs whose key has no instance are left out (and
    /// logged). Several inputs of one key are taken one after the other.
    ///
    /// # Errors
    /// Any [`SagaError`]; nothing has happened once the caller rolls back. [`SagaError::UnknownVersion`] names every
    /// instance it concerns; a fault concerns one, and a consumer repeats its batch in parts to find it.
    pub async fn advance(
        &self,
        conn: &mut PgConnection,
        inputs: Vec<(Uuid, Input, Cause)>,
        out: &mut Vec<Message>,
    ) -> Result<Vec<Advanced<D>>, SagaError> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let mut keys: Vec<Uuid> = inputs.iter().map(|(key, ..)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        let stored = store::instances_load(conn, self.saga, &keys)
            .await
            .map_err(SagaError::database(self.saga, "loading instances"))?;
        failpoints::reach("saga_loaded");
        let mut batch = Batch::new(self, stored)?;
        let mut advanced = Vec::with_capacity(inputs.len());
        for (key, input, cause) in inputs {
            // Lines about one saga of many carry the ids of its own story.
            advanced.extend(cause.story().tell(|| batch.take(key, input, &cause))?);
        }
        let (saves, log, messages) = batch.finish()?;
        if !log.keys.is_empty() {
            let expected = i64::try_from(saves.keys.len()).unwrap_or(i64::MAX);
            let saved = store::instances_save(conn, self.saga, &saves, &log)
                .await
                .map_err(SagaError::database(self.saga, "saving instances"))?;
            if saved != expected {
                let (expected, saved) = (expected.unsigned_abs(), saved.unsigned_abs());
                return Err(SagaError::Conflict { saga: self.saga, expected, saved });
            }
            failpoints::reach("saga_saved");
        }
        out.extend(messages);
        Ok(advanced)
    }

    /// Loads one instance and locks it until the transaction ends; `None` when the key has none.
    ///
    /// # Errors
    /// [`SagaError::Database`] or [`SagaError::Stored`].
    pub async fn load(&self, conn: &mut PgConnection, key: Uuid) -> Result<Option<Instance<D>>, SagaError> {
        let stored = store::instances_load(conn, self.saga, &[key])
            .await
            .map_err(SagaError::database(self.saga, "loading an instance"))?;
        stored.into_iter().next().map(|row| self.parse(row)).transpose()
    }

    /// What is due by the database's clock: the inputs of [`Self::advance`], which is to follow in the same transaction:
    /// the instances are locked. At most `limit` are looked at; instances locked by others are passed over, and so are those on
    /// versions this runner does not hold. With `within`, only those whose time came within so long: for looks that follow
    /// each other closely, of which each would step over all that ended since the table was last vacuumed.
    ///
    /// A deadline does not fire before its command is published: until the relay's position covers the transaction that
    /// appended it, the step's deadline is pushed on and the whole saga's clock stands still. Then the step has its
    /// full deadline.
    ///
    /// # Errors
    /// [`SagaError::Database`].
    pub async fn sweep_deadlines(
        &self,
        conn: &mut PgConnection,
        limit: u32,
        within: Option<Duration>,
    ) -> Result<Due, SagaError> {
        let versions: Vec<i32> =
            self.definitions.keys().filter_map(|version| i32::try_from(*version).ok()).collect();
        let within_ms = within.and_then(|within| i64::try_from(within.as_millis()).ok());
        let (woken, due) = store::deadlines_sweep(conn, self.saga, &versions, i64::from(limit), within_ms)
            .await
            .map_err(SagaError::database(self.saga, "sweeping deadlines"))?;
        let inputs = due.into_iter().map(|due| {
            let input = if due.saga_due { Input::SagaDeadline } else { Input::Deadline };
            (due.key, input, cause(due.correlation_id, due.traceparent.as_deref()))
        });
        Ok(Due { inputs: inputs.collect(), looked_at: usize::try_from(woken).unwrap_or_default() })
    }

    /// Sets the gauge `saga_stuck` from the table; the sweeper does it regularly.
    ///
    /// # Errors
    /// [`SagaError::Database`].
    pub async fn measure(&self, conn: &mut PgConnection) -> Result<(), SagaError> {
        let stuck = store::stuck_count(conn, self.saga)
            .await
            .map_err(SagaError::database(self.saga, "counting stuck instances"))?;
        self.metrics.stuck(stuck);
        Ok(())
    }

    pub(crate) fn parse(&self, row: store::Stored) -> Result<Instance<D>, SagaError> {
        let key = row.key;
        let bad = |column| SagaError::stored(self.saga, key, column);
        Ok(Instance {
            key,
            version: u32::try_from(row.version).unwrap_or_default(),
            revision: row.revision,
            state: serde_json::from_str(&row.state).map_err(bad("state"))?,
            data: serde_json::from_str(&row.data).map_err(bad("data"))?,
            sequences: serde_json::from_str(&row.sequences).map_err(bad("sequences"))?,
            cause: cause(row.correlation_id, row.traceparent.as_deref()),
            step_seconds: row.step_seconds,
        })
    }

    /// Metrics and log lines of what an input led to.
    pub(crate) fn tell(&self, key: Uuid, effects: &[Effect]) {
        for effect in effects {
            self.metrics.effect(effect);
            match effect {
                Effect::Stuck { step, phase, why } => tracing::error!(
                    saga = self.saga, %key, step, phase = phase.as_str(), why,
                    "saga is stuck: look at its log, then retry, skip or abandon it"
                ),
                Effect::Overdue => tracing::warn!(
                    saga = self.saga, %key,
                    "saga is past its deadline and can no longer turn round: it goes on, slower than it should"
                ),
                Effect::Finished(ending) => {
                    tracing::debug!(saga = self.saga, %key, ?ending, "saga ended");
                }
                Effect::Command { .. } | Effect::Local { .. } | Effect::LocalCompensation { .. } => {}
            }
        }
    }
}

/// What a look at the deadlines found.
#[derive(Debug)]
pub struct Due {
    /// What fires.
    pub inputs: Vec<(Uuid, Input, Cause)>,
    /// How many instances were looked at: those that fire, and those that were pushed on. As many as the limit: there may
    /// be more.
    pub looked_at: usize,
}

/// What messages made by a deadline name as their cause: the saga's own story.
fn cause(correlation_id: Uuid, traceparent: Option<&str>) -> Cause {
    Cause { correlation_id, causation_id: None, trace: traceparent.and_then(TraceContext::parse) }
}
