//! The group that is measured: each message adds to its key's balance and is answered with one message.

use chrono::Utc;
use sqlx::PgConnection;
use waybill_messaging::codec::CodecError;
use waybill_messaging::envelope::{Cause, Envelope};
use waybill_messaging::headers;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, InboxProcessor, Verdict};
use waybill_outbox::retry::{Poisoned, Policy};
use waybill_runtime::clock::new_id;
use waybill_testkit::TestDatabase;

/// Bytes of a message's and of an answer's value: an order event's size.
const PAYLOAD_BYTES: usize = 200;
/// Keys in turn: many more than a batch has records, so that none waits for another of its key.
const KEYS: u64 = 10_000;
/// How often one fails, when one does.
const FAILING_EVERY: u64 = 1_000;
/// An amount that the table's constraint refuses.
const REFUSED: i32 = -1;

/// Which messages fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    None,
    Undecodable,
    Breaking,
}

/// Makes one new message after the other.
pub(crate) struct Messages {
    failing: Failing,
    made: u64,
}

impl Messages {
    pub(crate) fn new(failing: Failing) -> Self {
        Self { failing, made: 0 }
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.next()).collect()
    }

    fn failed(&self) -> u64 {
        if self.failing == Failing::None { 0 } else { self.made / FAILING_EVERY }
    }

    fn next(&mut self) -> Record {
        self.made += 1;
        let (key, offset) = (format!("key-{}", self.made % KEYS), i64::try_from(self.made).unwrap());
        let envelope = Envelope {
            id: new_id(),
            source: "/waybill/bench".to_owned(),
            kind: "Added".to_owned(),
            time: Utc::now(),
            subject: key.clone(),
            cause: Cause { correlation_id: new_id(), causation_id: None, trace: None },
            sequence: offset,
        };
        let mut payload = vec![1; PAYLOAD_BYTES];
        if self.made.is_multiple_of(FAILING_EVERY) {
            match self.failing {
                Failing::None => {}
                Failing::Undecodable => payload.clear(),
                Failing::Breaking => payload[0] = 0xff,
            }
        }
        let headers = headers::encode(&envelope);
        Record {
            topic: "bench.events".to_owned(),
            partition: 0,
            offset,
            timestamp_ms: Some(envelope.time.timestamp_millis()),
            key: Some(key.into()),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
            payload: Some(payload.into()),
        }
    }
}

pub(crate) struct Balances;

impl Handler for Balances {
    type Message = i32;

    fn group(&self) -> &'static str {
        "balances"
    }

    fn decode(&self, _kind: &str, payload: &[u8]) -> Result<Option<i32>, CodecError> {
        match payload.first() {
            None => Err(CodecError::NotAFrame { what: "it is empty" }),
            Some(0xff) => Ok(Some(REFUSED)),
            Some(amount) => Ok(Some(i32::from(*amount))),
        }
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<i32>],
        out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let keys: Vec<&str> = deliveries.iter().map(|delivery| delivery.envelope.subject.as_str()).collect();
        let amounts: Vec<i32> = deliveries.iter().map(|delivery| delivery.message).collect();
        sqlx::query(
            "insert into balances (key, amount, messages)
             select key, amount, 1 from unnest($1::text[], $2::int[]) as m (key, amount) order by key
             on conflict (key) do update
             set amount = balances.amount + excluded.amount, messages = balances.messages + 1",
        )
        .bind(&keys)
        .bind(&amounts)
        .execute(conn)
        .await?;
        out.extend(deliveries.iter().map(|delivery| answer(&delivery.envelope)));
        Ok(deliveries.iter().map(|_| Verdict::Done).collect())
    }
}

fn answer(to: &Envelope) -> Message {
    let envelope = Envelope { id: new_id(), kind: "Answered".to_owned(), cause: to.as_cause(), ..to.clone() };
    Message {
        topic: "bench.answers".to_owned(),
        key: to.subject.clone(),
        envelope,
        payload: vec![7; PAYLOAD_BYTES],
    }
}

pub(crate) const TABLE: &str =
    "create table balances (key text primary key, amount bigint not null, messages bigint not null,
                            constraint added check (amount >= 0)) with (fillfactor = 70)";

/// The tables and the group. A dead letter does not block its key here: the next of its key are to be handled.
pub(crate) async fn prepare(database: &TestDatabase) -> InboxProcessor<Balances> {
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    sqlx::raw_sql(TABLE).execute(&database.pool).await.unwrap();
    let policy = Policy { poisoned: Poisoned::Skip, ..Policy::default() };
    InboxProcessor::with_policy(database.pool.clone(), "", Balances, policy)
}

/// Every message had its effect once and one answer, every failing one is a dead letter.
pub(crate) async fn audit(database: &TestDatabase, messages: &Messages) {
    let good = i64::try_from(messages.made - messages.failed()).unwrap();
    let failed = i64::try_from(messages.failed()).unwrap();
    let found: (i64, i64, i64) = sqlx::query_as(
        "select coalesce((select sum(messages) from balances), 0)::bigint,
                (select count(*) from outbox where topic = 'bench.answers'), (select count(*) from dead_letters)",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!(found, (good, good, failed), "effects, answers, dead letters: this turn has no figure");
}
