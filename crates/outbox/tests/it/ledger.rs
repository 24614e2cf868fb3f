//! The group these tests run: it notes each message in a table, answers it, and fails on demand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;
use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::Batch;
use waybill_messaging::envelope::{Cause, Envelope};
use waybill_messaging::headers;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, InboxProcessor, Verdict};
use waybill_outbox::retry::{Poisoned, Policy};
use waybill_runtime::clock::new_id;
use waybill_telemetry::story::Story;
use waybill_testkit::TestDatabase;

pub(crate) const TOPIC: &str = "orders.events";
pub(crate) const GROUP: &str = "ledger";
pub(crate) const PREFIX: &str = "t1.";

/// What a message asks the handler to do, besides noting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Note,
    Reject,
    Fault,
    Constraint,
    Deferred,
    Panic,
    Swallow,
    TooLarge,
    /// A statement goes over one of the server's limits.
    Limit,
    /// A statement goes over its time limit, always.
    TimesOut,
    EndBackendOnce,
    /// Waits for a row that a test may have locked.
    Row,
    /// Until the test lets it go on.
    Wait,
    /// Likewise, but its thread stands still, as all of a frozen process does.
    Hang,
    /// Likewise, before its transaction has begun.
    HangEarly,
    Quiet,
}

const ASKS: [(&str, Ask); 16] = [
    ("note", Ask::Note),
    ("reject", Ask::Reject),
    ("fault", Ask::Fault),
    ("constraint", Ask::Constraint),
    ("deferred", Ask::Deferred),
    ("panic", Ask::Panic),
    ("swallow", Ask::Swallow),
    ("too large", Ask::TooLarge),
    ("limit", Ask::Limit),
    ("times out", Ask::TimesOut),
    ("end backend once", Ask::EndBackendOnce),
    ("row", Ask::Row),
    ("wait", Ask::Wait),
    ("hang", Ask::Hang),
    ("hang early", Ask::HangEarly),
    ("quiet", Ask::Quiet),
];

#[derive(Clone, Default)]
pub(crate) struct Ledger {
    /// The keys of each call, in order.
    pub(crate) calls: Arc<Mutex<Vec<Vec<String>>>>,
    /// What lines of each `decode` and each call would have carried.
    pub(crate) decoded: Arc<Mutex<Vec<Option<Story>>>>,
    pub(crate) told: Arc<Mutex<Vec<Option<Story>>>>,
    backend_ended: Arc<AtomicBool>,
    /// Whether something waits or hangs until it may go on.
    pub(crate) waits: Arc<AtomicBool>,
    pub(crate) may_go_on: Arc<AtomicBool>,
}

/// Between two looks of something that waits.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

impl Handler for Ledger {
    type Message = Ask;

    fn group(&self) -> &str {
        GROUP
    }

    fn decode(&self, kind: &str, payload: &[u8]) -> Result<Option<Ask>, CodecError> {
        self.decoded.lock().unwrap().push(Story::current());
        if kind != "Noted" {
            return Ok(None);
        }
        let ask = ASKS.iter().find(|(text, _)| text.as_bytes() == payload);
        if let Some((_, Ask::HangEarly)) = ask {
            self.hang();
        }
        ask.map(|(_, ask)| Some(*ask)).ok_or(CodecError::NotAFrame { what: "it is no known word" })
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<Ask>],
        out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let keys = deliveries.iter().map(|d| d.envelope.subject.clone()).collect();
        self.calls.lock().unwrap().push(keys);
        self.told.lock().unwrap().push(Story::current());
        let mut verdicts = Vec::new();
        for delivery in deliveries {
            verdicts.push(self.one(conn, delivery, out).await?);
        }
        Ok(verdicts)
    }
}

impl Ledger {
    /// How many messages the handler was given, repeats counted.
    pub(crate) fn given(&self) -> usize {
        self.calls.lock().unwrap().iter().map(Vec::len).sum()
    }

    fn goes_on(&self) -> bool {
        self.waits.store(true, Ordering::SeqCst);
        self.may_go_on.load(Ordering::SeqCst)
    }

    /// The future can not be dropped meanwhile. (The runtime is told, or nobody might look after its timers.)
    fn hang(&self) {
        tokio::task::block_in_place(|| {
            while !self.goes_on() {
                std::thread::sleep(LOOK_PAUSE);
            }
        });
    }

    async fn one(
        &self,
        conn: &mut PgConnection,
        delivery: &Delivery<Ask>,
        out: &mut Vec<Message>,
    ) -> Result<Verdict, HandlerError> {
        note(conn, delivery, 1).await?;
        match delivery.message {
            Ask::Note => out.push(reply(&delivery.envelope, 10)),
            Ask::Quiet | Ask::HangEarly => {}
            Ask::Row => {
                sqlx::query("update rows set n = n + 1").execute(conn).await?;
            }
            Ask::Wait => {
                while !self.goes_on() {
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
            }
            Ask::Hang => self.hang(),
            Ask::Limit => {
                sqlx::query("select repeat('x', 1073741824)").execute(conn).await?;
            }
            Ask::TimesOut => time_out(conn).await?,
            Ask::Reject => return Ok(Verdict::Reject { class: "not_wanted", why: "as asked".to_owned() }),
            Ask::Fault => return Err(HandlerError::fault("faulty as asked")),
            Ask::Constraint => note(conn, delivery, -1).await?,
            Ask::Deferred => {
                sqlx::query("insert into deferred values (1), (1)").execute(conn).await?;
            }
            Ask::Panic => panic!("panics as asked"),
            Ask::Swallow => {
                let _swallowed = note(conn, delivery, -1).await;
            }
            Ask::TooLarge => out.push(reply(&delivery.envelope, 1_000_000)),
            Ask::EndBackendOnce => {
                if !self.backend_ended.swap(true, Ordering::SeqCst) {
                    sqlx::query("select pg_terminate_backend(pg_backend_pid())").execute(conn).await?;
                }
            }
        }
        Ok(Verdict::Done)
    }
}

/// A statement that takes longer than the server lets it; only this one's limit is short.
pub(crate) async fn time_out(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("set local statement_timeout = '50ms'").execute(&mut *conn).await?;
    sqlx::query("select pg_sleep(600)").execute(conn).await.map(|_| ())
}

/// Negative amounts break a constraint.
async fn note(conn: &mut PgConnection, delivery: &Delivery<Ask>, amount: i32) -> Result<(), sqlx::Error> {
    sqlx::query("insert into notes (key, message_id, sequence, amount) values ($1, $2, $3, $4)")
        .bind(&delivery.envelope.subject)
        .bind(delivery.envelope.id)
        .bind(delivery.envelope.sequence)
        .bind(amount)
        .execute(conn)
        .await?;
    Ok(())
}

fn reply(to: &Envelope, payload_bytes: usize) -> Message {
    let envelope =
        Envelope { id: new_id(), kind: "NoteTaken".to_owned(), cause: to.as_cause(), ..to.clone() };
    Message {
        topic: "ledger.events".to_owned(),
        key: to.subject.clone(),
        envelope,
        payload: vec![7; payload_bytes],
    }
}

/// A database with the crate's tables and the group's own.
pub(crate) async fn database(hint: &str) -> TestDatabase {
    let database = TestDatabase::create(hint).await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    tables(&database.pool).await;
    database
}

/// The group's own tables.
pub(crate) async fn tables(pool: &PgPool) {
    sqlx::raw_sql(
        "create table notes (place bigint generated always as identity, key text, message_id uuid, sequence bigint,
                             amount int check (amount > 0));
         create table deferred (n int unique deferrable initially deferred);
         create table rows as select 0 as n;",
    )
    .execute(pool)
    .await
    .unwrap();
}

/// The group on a pool whose sessions give up a lock soon.
pub(crate) async fn group(database: &TestDatabase, prefix: &str) -> (InboxProcessor<Ledger>, Ledger) {
    group_with(database, prefix, Policy { poisoned: Poisoned::Skip, ..Policy::default() }).await
}

/// As [`group`], with another policy than to skip dead letters.
pub(crate) async fn group_with(
    database: &TestDatabase,
    prefix: &str,
    policy: Policy,
) -> (InboxProcessor<Ledger>, Ledger) {
    let ledger = Ledger::default();
    let options = database.url.parse::<sqlx::postgres::PgConnectOptions>().unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(4)
        .connect_lazy_with(options.options([("lock_timeout", "200ms")]));
    (InboxProcessor::with_policy(pool, prefix, ledger.clone(), policy), ledger)
}

pub(crate) fn envelope(key: &str, sequence: i64) -> Envelope {
    Envelope {
        id: new_id(),
        source: "/waybill/orders".to_owned(),
        kind: "Noted".to_owned(),
        time: Utc::now(),
        subject: key.to_owned(),
        cause: Cause { correlation_id: new_id(), causation_id: None, trace: None },
        sequence,
    }
}

/// A record as the relay would have published it; `offset` is also its place.
pub(crate) fn record(envelope: &Envelope, offset: i64, payload: &[u8]) -> Record {
    Record {
        topic: format!("{PREFIX}{TOPIC}"),
        partition: 0,
        offset,
        timestamp_ms: Some(envelope.time.timestamp_millis()),
        key: Some(envelope.subject.clone().into()),
        headers: headers::encode(envelope).into_iter().map(|(n, v)| (n.to_owned(), v.into_bytes())).collect(),
        payload: Some(payload.to_vec().into()),
    }
}

/// Messages `(key, what is asked)` as one batch.
pub(crate) fn batch(messages: &[(&str, &str)]) -> Batch {
    let records = messages.iter().enumerate();
    let records =
        records.map(|(n, (key, ask))| record(&envelope(key, n as i64 + 1), n as i64, ask.as_bytes()));
    Batch { records: records.collect() }
}

/// What was noted: key and sequence, in order.
pub(crate) async fn notes(pool: &PgPool) -> Vec<(String, i64)> {
    sqlx::query_as("select key, sequence from notes order by place").fetch_all(pool).await.unwrap()
}

pub(crate) async fn count(pool: &PgPool, table: &'static str) -> i64 {
    let query = match table {
        "inbox" => "select count(*) from inbox",
        "outbox" => "select count(*) from outbox",
        "held_messages" => "select count(*) from held_messages",
        "dead_letters" => "select count(*) from dead_letters",
        other => panic!("no count of {other}"),
    };
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

pub(crate) fn message_ids(batch: &Batch) -> Vec<Uuid> {
    batch.records.iter().map(|record| headers::decode(record).unwrap().id).collect()
}
