//! A group that asks for retries as its messages tell it, and the pieces that run it: members, a small relay.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinHandle;
use uuid::Uuid;
use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::{self, ConsumerConfig, ConsumerError};
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, InboxProcessor, Verdict};
use waybill_outbox::retry::{Poisoned, Policy};
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{TestDatabase, TestTopics, kafka_bootstrap};

use crate::ledger::{self, GROUP, TOPIC};

/// Far beyond anything that is waited for here.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks of the small relay.
const RELAY_PAUSE: Duration = Duration::from_millis(10);

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To be retried so many times before it succeeds.
    Retries(u32),
    Reject,
    /// To be retried while [`Flaky::is_down`].
    WhileDown,
    /// A statement of it always times out.
    TimesOut,
}

/// Notes its messages, after so many failures of each.
#[derive(Clone, Default)]
pub(crate) struct Flaky {
    failures: Arc<Mutex<HashMap<Uuid, u32>>>,
    pub(crate) is_down: Arc<AtomicBool>,
    is_mended: bool,
    /// Another group than the usual one.
    other_group: Option<&'static str>,
}

impl Handler for Flaky {
    type Message = Ask;

    fn group(&self) -> &str {
        self.other_group.unwrap_or(GROUP)
    }

    fn decode(&self, kind: &str, payload: &[u8]) -> Result<Option<Ask>, CodecError> {
        let text = std::str::from_utf8(payload).unwrap_or_default();
        Ok(match (kind, text) {
            ("Noted", "reject") => Some(Ask::Reject),
            ("Noted", "while down") => Some(Ask::WhileDown),
            ("Noted", "times out") => Some(Ask::TimesOut),
            ("Noted", number) => {
                let number = number.parse().map_err(|_| CodecError::NotAFrame { what: "it is no number" })?;
                Some(Ask::Retries(number))
            }
            _ => None,
        })
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<Ask>],
        _out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let mut verdicts = Vec::new();
        for delivery in deliveries {
            // Noted before the verdict: what is not done must leave nothing.
            sqlx::query("insert into notes (key, message_id, sequence, amount) values ($1, $2, $3, 1)")
                .bind(&delivery.envelope.subject)
                .bind(delivery.envelope.id)
                .bind(delivery.envelope.sequence)
                .execute(&mut *conn)
                .await?;
            if delivery.message == Ask::TimesOut && !self.is_mended {
                ledger::time_out(&mut *conn).await?;
            }
            verdicts.push(self.verdict(delivery));
        }
        Ok(verdicts)
    }
}

impl Flaky {
    /// Whatever is asked, it is done.
    pub(crate) fn mended() -> Self {
        Self { is_mended: true, ..Self::default() }
    }

    /// Likewise, as another group.
    pub(crate) fn mended_of(group: &'static str) -> Self {
        Self { other_group: Some(group), ..Self::mended() }
    }

    fn verdict(&self, delivery: &Delivery<Ask>) -> Verdict {
        let retry = |why: &str| Verdict::Retry { class: "not_yet", why: why.to_owned() };
        match delivery.message {
            _ if self.is_mended => Verdict::Done,
            Ask::Reject => Verdict::Reject { class: "not_wanted", why: "as asked".to_owned() },
            Ask::WhileDown if self.is_down.load(Ordering::SeqCst) => retry("it is down"),
            Ask::WhileDown | Ask::TimesOut => Verdict::Done,
            Ask::Retries(times) => {
                let mut failures = self.failures.lock().unwrap();
                let failed = failures.entry(delivery.envelope.id).or_default();
                if *failed >= times {
                    return Verdict::Done;
                }
                *failed += 1;
                retry("as asked")
            }
        }
    }

    pub(crate) fn processor(&self, pool: &PgPool, prefix: &str, policy: &Policy) -> InboxProcessor<Flaky> {
        InboxProcessor::with_policy(pool.clone(), prefix, self.clone(), policy.clone())
    }
}

/// Three short tiers.
pub(crate) fn policy(poisoned: Poisoned) -> Policy {
    Policy { poisoned, ..Policy::with_delays(&[50, 100, 200].map(Duration::from_millis)) }
}

/// The topics of the group: main, retries, dead letters.
pub(crate) async fn topics(partitions: i32, policy: &Policy) -> TestTopics {
    let retries = policy.topics(TOPIC, GROUP);
    let dlq = format!("{TOPIC}.{GROUP}.dlq");
    let mut all: Vec<(&str, i32)> = retries.iter().map(|name| (name.as_str(), 2)).collect();
    all.extend([(TOPIC, partitions), (dlq.as_str(), 1)]);
    TestTopics::create(&all).await
}

/// One process of the group: both consumers and the drainer.
pub(crate) struct Member {
    shutdown: Shutdown,
    consumers: Vec<JoinHandle<Result<(), ConsumerError>>>,
    drainer: JoinHandle<()>,
}

impl Member {
    pub(crate) fn start(
        database: &TestDatabase,
        topics: &TestTopics,
        flaky: &Flaky,
        policy: &Policy,
    ) -> Self {
        let processor = flaky.processor(&database.pool, &topics.prefix, policy);
        let (bootstrap, prefix) = (kafka_bootstrap(), &topics.prefix);
        let mut main = ConsumerConfig::new(&bootstrap, prefix, GROUP, &[TOPIC]);
        main.batch_records_max = 20;
        main.close_timeout = Duration::from_secs(60);
        let mut retries = processor.retries().consumer_config(&bootstrap, &[TOPIC]).unwrap();
        retries.close_timeout = Duration::from_secs(60);
        let shutdown = Shutdown::manual();
        let drainer = tokio::spawn(processor.drainer().run(shutdown.clone()));
        let consumers = vec![
            tokio::spawn(consumer::run(retries, processor.retries(), shutdown.clone())),
            tokio::spawn(consumer::run(main, processor, shutdown.clone())),
        ];
        Self { shutdown, consumers, drainer }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        for consumer in self.consumers {
            consumer.await.unwrap().unwrap();
        }
        self.drainer.await.unwrap();
    }

    /// Nobody waits for it: the drainer is dropped where it stands, and the consumers' threads finish their batches
    /// beside whoever takes their place. A process that is killed is another matter: `e2e/tests/it/crashes.rs`.
    pub(crate) fn abandon(self) {
        self.drainer.abort();
        self.consumers.iter().for_each(JoinHandle::abort);
    }
}

/// Publishes outbox rows in order of their ids, every fifth twice; ends with its drop.
pub(crate) struct Relay(JoinHandle<()>);

impl Relay {
    pub(crate) fn start(database: &TestDatabase, topics: Arc<TestTopics>) -> Self {
        let pool = database.pool.clone();
        Self(tokio::spawn(async move {
            let mut published: Vec<i64> = Vec::new();
            loop {
                for id in publish(&pool, &topics, &published).await {
                    published.push(id);
                }
                tokio::time::sleep(RELAY_PAUSE).await;
            }
        }))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What lies in the outbox for topics that end so, in order, as a consumer would read it.
pub(crate) async fn sent(pool: &PgPool, ending: &str) -> Vec<Record> {
    let rows: Vec<OutboxRow> = sqlx::query_as(
        "select id, topic::text, key::bytea, headers::json, payload::bytea from outbox
         where topic like '%' || $1 order by id",
    )
    .bind(ending)
    .fetch_all(pool)
    .await
    .unwrap();
    let record = |(id, topic, key, headers, payload): OutboxRow| {
        let headers = headers.as_object().unwrap().iter();
        let headers = headers.map(|(n, v)| (n.clone(), v.as_str().unwrap().as_bytes().to_vec())).collect();
        let (key, payload) = (key.map(Into::into), payload.map(Into::into));
        Record { topic, partition: 0, offset: id, timestamp_ms: None, key, headers, payload }
    };
    rows.into_iter().map(record).collect()
}

/// The group's drainer works on the database until this is so.
pub(crate) async fn drained_until(
    group: &InboxProcessor<Flaky>,
    what: &str,
    look: impl AsyncFnMut() -> Option<()>,
) {
    let shutdown = Shutdown::manual();
    let drainer = tokio::spawn(group.drainer().run(shutdown.clone()));
    eventually_named(what, LIMIT, look).await;
    shutdown.request();
    drainer.await.unwrap();
}

/// Id, topic, key, headers, payload.
type OutboxRow = (i64, String, Option<Vec<u8>>, Value, Option<Vec<u8>>);

async fn publish(pool: &PgPool, topics: &TestTopics, published: &[i64]) -> Vec<i64> {
    let rows: Vec<OutboxRow> = sqlx::query_as(
        "select id, topic, key, headers, payload from outbox where id <> all($1) order by id limit 200",
    )
    .bind(published)
    .fetch_all(pool)
    .await
    .unwrap_or_default();
    for (id, topic, key, headers, payload) in &rows {
        let name = topic.strip_prefix(&topics.prefix).unwrap();
        let headers: Vec<(&str, &[u8])> = headers
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap().as_bytes()))
            .collect();
        for _ in 0..if id % 5 == 0 { 2 } else { 1 } {
            topics.produce(name, key.as_deref(), &headers, payload.as_deref()).await;
        }
    }
    rows.into_iter().map(|row| row.0).collect()
}
