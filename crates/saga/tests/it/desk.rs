//! What the tests on Postgres share: a database with the tables, a runner, transactions, a clock that can be moved.

use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};
use uuid::Uuid;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Message;
use waybill_outbox::append::append;
use waybill_runtime::clock::{Clock as _, SystemClock, new_id};
use waybill_saga::{Advanced, Definition, Input, Outcome, Runner, SagaError, Sequences, Started};
use waybill_testkit::TestDatabase;

use crate::sagas::Parcel;

pub(crate) struct Desk {
    pub(crate) database: TestDatabase,
    pub(crate) runner: Runner<Parcel>,
}

/// Longest that a look comes after what it looks at, in milliseconds, on a busy machine.
const LOOK_LATE_MS_MAX: i64 = 5_000;

/// Whether a time is so many milliseconds away, or less by what passed until it was looked at.
pub(crate) fn in_about(seen_ms: Option<i64>, ms: i64) -> bool {
    seen_ms.is_some_and(|seen_ms| (ms - LOOK_LATE_MS_MAX..=ms).contains(&seen_ms))
}

/// One instance's row, as far as the tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: String,
    pub(crate) revision: i64,
    pub(crate) state: Value,
    pub(crate) gated: bool,
    /// Milliseconds until then, rounded to tenths of a second.
    pub(crate) due_in_ms: Option<i64>,
    pub(crate) deadline_in_ms: Option<i64>,
    pub(crate) wakes: bool,
}

pub(crate) fn cause(key: Uuid) -> Cause {
    Cause { correlation_id: key, causation_id: Some(new_id()), trace: None }
}

pub(crate) fn done(step: &'static str) -> Input {
    Input::reply(step, Outcome::Done)
}

impl Desk {
    pub(crate) async fn open(hint: &str, definition: Definition<Parcel>) -> Self {
        let database = TestDatabase::create(hint).await;
        database.migrate(&[&waybill_outbox::MIGRATIONS, &waybill_saga::MIGRATIONS]).await;
        Self { database, runner: Runner::new("/test/parcels", vec![definition]) }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    pub(crate) fn begin(&self, key: Uuid) -> Started {
        let (data, now) = (Parcel { id: key }, SystemClock.now());
        self.runner.start(key, &data, &cause(key), Sequences::default(), now).expect("a saga that begins")
    }

    /// Starts as many sagas, in one transaction with their messages; returns their keys.
    pub(crate) async fn start(&self, count: usize) -> Vec<Uuid> {
        let keys: Vec<Uuid> = (0..count).map(|_| new_id()).collect();
        let started: Vec<Started> = keys.iter().map(|key| self.begin(*key)).collect();
        let messages: Vec<Message> = started.iter().flat_map(|s| s.messages.clone()).collect();
        let mut tx = self.pool().begin().await.unwrap();
        self.runner.start_in_tx(&mut tx, &started).await.unwrap();
        append(&mut tx, "", &messages).await.unwrap();
        tx.commit().await.unwrap();
        keys
    }

    /// Takes inputs in one transaction, the commands appended to the outbox.
    pub(crate) async fn try_take(
        &self,
        inputs: Vec<(Uuid, Input)>,
    ) -> Result<Vec<Advanced<Parcel>>, SagaError> {
        let inputs = inputs.into_iter().map(|(key, input)| (key, input, cause(key))).collect();
        let (mut tx, mut out) = (self.pool().begin().await.unwrap(), Vec::new());
        let advanced = self.runner.advance(&mut tx, inputs, &mut out).await?;
        append(&mut tx, "", &out).await.unwrap();
        tx.commit().await.unwrap();
        Ok(advanced)
    }

    pub(crate) async fn take(&self, key: Uuid, input: Input) -> Advanced<Parcel> {
        self.try_take(vec![(key, input)]).await.unwrap().remove(0)
    }

    /// Sweeps and takes what is due, in one transaction.
    pub(crate) async fn sweep(&self) -> Vec<Advanced<Parcel>> {
        let (mut tx, mut out) = (self.pool().begin().await.unwrap(), Vec::new());
        let due = self.runner.sweep_deadlines(&mut tx, 100, None).await.unwrap().inputs;
        let advanced = self.runner.advance(&mut tx, due, &mut out).await.unwrap();
        append(&mut tx, "", &out).await.unwrap();
        tx.commit().await.unwrap();
        advanced
    }

    /// Lets time pass for all instances: every time in their rows moves into the past.
    pub(crate) async fn pass(&self, seconds: f64) {
        sqlx::query(
            "update saga_instances set due_at = due_at - d, deadline_at = deadline_at - d, looked_at = looked_at - d,
                    wake_at = wake_at - d, step_at = step_at - d, updated_at = updated_at - d
             from (select $1 * interval '1 second' as d) as moved",
        )
        .bind(seconds)
        .execute(self.pool())
        .await
        .unwrap();
    }

    /// The relay has published everything committed so far.
    pub(crate) async fn publish(&self) {
        sqlx::query("update outbox_relay set position_from = pg_current_snapshot()")
            .execute(self.pool())
            .await
            .unwrap();
    }

    pub(crate) async fn see(&self, key: Uuid) -> Seen {
        let row = sqlx::query(
            "select status, revision, state::text, command_xid is not null as gated, wake_at is not null as wakes,
                    (round(extract(epoch from due_at - now()), 1) * 1000)::bigint as due_in_ms,
                    (round(extract(epoch from deadline_at - now()), 1) * 1000)::bigint as deadline_in_ms
             from saga_instances where key = $1",
        )
        .bind(key)
        .fetch_one(self.pool())
        .await
        .unwrap();
        Seen {
            status: row.get("status"),
            revision: row.get("revision"),
            state: serde_json::from_str(row.get("state")).unwrap(),
            gated: row.get("gated"),
            due_in_ms: row.get("due_in_ms"),
            deadline_in_ms: row.get("deadline_in_ms"),
            wakes: row.get("wakes"),
        }
    }

    /// `topic kind sequence` of every outbox row of the key, in order.
    pub(crate) async fn said(&self, key: Uuid) -> Vec<String> {
        let said = |row: PgRow| {
            let (topic, kind, sequence): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            format!("{topic} {kind} {sequence}")
        };
        sqlx::query(
            "select topic, headers ->> 'ce_type', headers ->> 'ce_sequence' from outbox
             where key = convert_to($1, 'UTF8') order by id",
        )
        .bind(key.to_string())
        .fetch_all(self.pool())
        .await
        .unwrap()
        .into_iter()
        .map(said)
        .collect()
    }

    /// The log of the key, in order.
    pub(crate) async fn log(&self, key: Uuid) -> Vec<Value> {
        sqlx::query("select entry::text from saga_log where key = $1 order by number")
            .bind(key)
            .fetch_all(self.pool())
            .await
            .unwrap()
            .into_iter()
            .map(|row| serde_json::from_str(row.get(0)).unwrap())
            .collect()
    }
}
