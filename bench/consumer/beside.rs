//! `beside`: how long other keys' messages take while some keys fail, are retried and hold their followers.
//!
//! Messages come at a fixed rate, whatever the group does. A message of a key that never fails is timed from its arrival to
//! the commit of its batch. Retries go round as they do with Kafka, through the outbox, taken from it here: each waits for
//! its time, its key's followers are held and drained. The same rate without failures is the measure.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::Utc;
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinHandle;
use uuid::Uuid;
use waybill_bench::findings::{Aim, Finding, quantile, table};
use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_messaging::envelope::{Cause, Envelope};
use waybill_messaging::headers;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, InboxProcessor, Verdict, appearance_in_tx};
use waybill_outbox::retry::Policy;
use waybill_runtime::clock::new_id;
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::TestDatabase;

use crate::Arguments;

const GROUP: &str = "beside";
const TOPIC: &str = "bench.events";
/// Keys in turn, so that a failing one comes again while it is retried: its followers are held.
const KEYS: u64 = 200;
/// A failing key fails in one of so many of its messages: it is mended before the next.
const FAILING_EVERY: u64 = 5;
/// Appearances that fail: the main topic's and the first retry's.
const FAILURES: i16 = 2;
/// The waits of the tiers.
const DELAYS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];
/// Between two looks of the stand-in for relay and broker.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Ids of outbox rows that are looked at again: transactions commit in another order than they take ids, by less.
const IDS_AGAIN: i64 = 5_000;
/// Longest wait until all that failed is handled.
const REST_MAX: Duration = Duration::from_secs(60);
/// What is not counted at the beginning: plans and pages are not there yet.
const WARM_UP: Duration = Duration::from_secs(1);
/// The payload of a message that fails, and of one that does not.
const FAILS: &[u8] = b"fails";
const DOES_NOT: &[u8] = b"does not fail";
/// A key, the number of its message, and which appearance was handled.
const EFFECTS: &str = "create table effects (id bigint generated always as identity, key text not null, number bigint not null)";

/// Keeps each message's number.
struct Numbered;

impl Handler for Numbered {
    type Message = bool;

    fn group(&self) -> &'static str {
        GROUP
    }

    fn decode(&self, _kind: &str, payload: &[u8]) -> Result<Option<bool>, CodecError> {
        Ok(Some(payload == FAILS))
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<bool>],
        _out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let mut verdicts = Vec::with_capacity(deliveries.len());
        for Delivery { envelope, message: fails } in deliveries {
            let again = *fails && appearance_in_tx(conn, GROUP, envelope.id).await? < FAILURES;
            let why = || "on purpose".to_owned();
            verdicts.push(if again { Verdict::Retry { class: "beside", why: why() } } else { Verdict::Done });
        }
        let keys: Vec<&str> = deliveries.iter().map(|delivery| delivery.envelope.subject.as_str()).collect();
        let numbers: Vec<i64> = deliveries.iter().map(|delivery| delivery.envelope.sequence).collect();
        sqlx::query("insert into effects (key, number) select * from unnest($1::text[], $2::bigint[])")
            .bind(&keys)
            .bind(&numbers)
            .execute(conn)
            .await?;
        Ok(verdicts)
    }
}

/// Whether any message of this key fails.
fn is_failing(key: u64, percent: u64) -> bool {
    key % 100 < percent
}

fn record(number: u64, percent: u64) -> Record {
    let (key, turn) = (number % KEYS, number / KEYS);
    let name = format!("key-{key}");
    let envelope = Envelope {
        id: new_id(),
        source: "/waybill/bench".to_owned(),
        kind: "Numbered".to_owned(),
        time: Utc::now(),
        subject: name.clone(),
        cause: Cause { correlation_id: new_id(), causation_id: None, trace: None },
        sequence: i64::try_from(turn).unwrap() + 1,
    };
    let fails = is_failing(key, percent) && turn.is_multiple_of(FAILING_EVERY);
    Record {
        topic: TOPIC.to_owned(),
        partition: 0,
        offset: i64::try_from(number).unwrap(),
        timestamp_ms: Some(envelope.time.timestamp_millis()),
        key: Some(name.into()),
        headers: headers::encode(&envelope)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .collect(),
        payload: Some(if fails { FAILS } else { DOES_NOT }.into()),
    }
}

/// Relay, retry topics and retry consumer in one: rows for the group's retry topics, each handled when it is due.
fn stand_in(pool: PgPool, processor: &InboxProcessor<Numbered>) -> JoinHandle<()> {
    let retries = processor.retries();
    let config = retries.consumer_config("", &[TOPIC]).expect("the policy has tiers");
    let due = config.due.expect("retries are due at a time");
    tokio::spawn(async move {
        let (mut seen, mut last) = (HashSet::new(), 0);
        let mut waiting: Vec<Record> = Vec::new();
        loop {
            for (id, record) in written(&pool, last - IDS_AGAIN).await {
                last = last.max(id);
                if seen.insert(id) {
                    waiting.push(record);
                }
            }
            let (ready, later) = waiting.into_iter().partition(|record| due.is_due(record));
            waiting = later;
            for record in ready {
                retries.handle(&Batch { records: vec![record] }).await.unwrap();
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    })
}

/// Outbox rows of retry topics above this id, as records.
async fn written(pool: &PgPool, above: i64) -> Vec<(i64, Record)> {
    type Row = (i64, String, Option<Vec<u8>>, serde_json::Value, Option<Vec<u8>>);
    let rows: Vec<Row> = sqlx::query_as(
        "select id, topic::text, key::bytea, headers::json, payload::bytea from outbox where id > $1 and topic like '%.retry.%' order by id",
    )
    .bind(above)
    .fetch_all(pool)
    .await
    .unwrap();
    let record = |(id, topic, key, headers, payload): Row| {
        let headers = headers.as_object().unwrap().iter();
        let headers = headers
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().as_bytes().to_vec()))
            .collect();
        let (key, payload) = (key.map(Into::into), payload.map(Into::into));
        (id, Record { topic, partition: 0, offset: id, timestamp_ms: None, key, headers, payload })
    };
    rows.into_iter().map(record).collect()
}

/// Milliseconds of the messages of keys that never fail, and how many messages failed.
struct Turn {
    latencies_ms: Vec<f64>,
    failed: i64,
}

async fn turn(arguments: &Arguments, percent: u64) -> Turn {
    let database = TestDatabase::create("consumer_beside").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    sqlx::raw_sql(EFFECTS).execute(&database.pool).await.unwrap();
    let policy = Policy::with_delays(&DELAYS);
    let processor = InboxProcessor::with_policy(database.pool.clone(), "", Numbered, policy.clone());
    let standing_in = stand_in(database.pool.clone(), &processor);
    let draining = tokio::spawn(processor.drainer().run(Shutdown::manual()));
    let latencies_ms = arrive(&processor, arguments, percent).await;
    let total = arguments.rate * arguments.seconds;
    at_rest(&database.pool, total).await;
    standing_in.abort();
    draining.abort();
    let failed = audit(&database.pool, total, percent).await;
    Turn { latencies_ms, failed }
}

/// Messages at their times, in batches of what has arrived; each is timed to the commit of its batch.
async fn arrive(processor: &InboxProcessor<Numbered>, arguments: &Arguments, percent: u64) -> Vec<f64> {
    let started = Instant::now();
    let arrival = |number: u64| Duration::from_secs_f64(number as f64 / arguments.rate as f64);
    let total = arguments.rate * arguments.seconds;
    let (mut next, mut latencies_ms) = (0, Vec::new());
    while next < total {
        if let Some(early) = arrival(next).checked_sub(started.elapsed()) {
            tokio::time::sleep(early).await;
        }
        let now = started.elapsed();
        let batch_max = arguments.batch as u64;
        let end =
            (next..total.min(next + batch_max)).take_while(|number| arrival(*number) <= now).count() as u64;
        let numbers = next..next + end;
        let records = numbers.clone().map(|number| record(number, percent)).collect();
        processor.handle(&Batch { records }).await.unwrap();
        let done = started.elapsed();
        for number in numbers.filter(|number| arrival(*number) >= WARM_UP) {
            // With and without failures the same keys are timed.
            if !is_failing(number % KEYS, arguments.failing_percent) {
                latencies_ms.push((done - arrival(number)).as_secs_f64() * 1_000.0);
            }
        }
        next += end;
    }
    latencies_ms
}

async fn at_rest(pool: &PgPool, total: u64) {
    let started = Instant::now();
    let question = "select (select count(*) from effects), (select count(*) from parked_keys)";
    loop {
        let (effects, parked): (i64, i64) = sqlx::query_as(question).fetch_one(pool).await.unwrap();
        if (effects, parked) == (i64::try_from(total).unwrap(), 0) {
            return;
        }
        assert!(
            started.elapsed() < REST_MAX,
            "{effects} of {total} handled, {parked} keys parked: no figure"
        );
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Every message had its effect once, each key's in order, and those that were to fail did: how many there were.
async fn audit(pool: &PgPool, total: u64, percent: u64) -> i64 {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select key, number from effects order by id").fetch_all(pool).await.unwrap();
    let mut last: HashMap<String, i64> = HashMap::new();
    for (key, number) in &rows {
        let before = last.insert(key.clone(), *number).unwrap_or(0);
        assert_eq!(*number, before + 1, "{key}: after {before}: this turn has no figure");
    }
    assert_eq!(rows.len() as u64, total, "this turn has no figure");
    let failing =
        |number: &u64| is_failing(number % KEYS, percent) && (number / KEYS).is_multiple_of(FAILING_EVERY);
    let wanted = i64::try_from((0..total).filter(failing).count()).unwrap();
    let failed: Vec<Uuid> = sqlx::query_scalar("select message_id from inbox where hop = $1")
        .bind(FAILURES)
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(failed.len() as i64, wanted, "messages that failed twice: this turn has no figure");
    let letters: i64 = sqlx::query_scalar("select count(*) from dead_letters").fetch_one(pool).await.unwrap();
    assert_eq!(letters, 0, "this turn has no figure");
    wanted
}

/// Turns without and with failures one after the other; medians of the runs.
pub(crate) async fn run(arguments: &Arguments) {
    let (mut p50, mut p99) = ([const { Vec::<f64>::new() }; 2], [const { Vec::<f64>::new() }; 2]);
    let (mut ratios, mut failed) = (Vec::new(), 0);
    for run in 1..=arguments.runs {
        for (place, percent) in [0, arguments.failing_percent].into_iter().enumerate() {
            let mut turn = turn(arguments, percent).await;
            p50[place].push(quantile(&mut turn.latencies_ms, 0.5));
            p99[place].push(quantile(&mut turn.latencies_ms, 0.99));
            failed = turn.failed;
        }
        let (without, with) = (p99[0][run - 1], p99[1][run - 1]);
        ratios.push(with / without);
        if !arguments.json {
            eprintln!(
                "run {run}: p99 without failures {without:.2} ms, with {with:.2} ms, {failed} messages failed twice"
            );
        }
    }
    let percent = arguments.failing_percent;
    let [without, with] = &mut p50;
    let [slow_without, slow_with] = &mut p99;
    let findings = [
        Finding::told("messages a second, at a fixed rate", arguments.rate as f64, "/s"),
        Finding::told("messages of a turn that failed twice", failed as f64, ""),
        Finding::told("other keys, without failures, p50", quantile(without, 0.5), "ms"),
        Finding::told(
            format!("other keys, while {percent} % of the keys fail, p50"),
            quantile(with, 0.5),
            "ms",
        ),
        Finding::told("other keys, without failures, p99", quantile(slow_without, 0.5), "ms"),
        Finding::told(
            format!("other keys, while {percent} % of the keys fail, p99"),
            quantile(slow_with, 0.5),
            "ms",
        ),
        Finding::aimed(
            "p99 of other keys with failures against without",
            quantile(&mut ratios, 0.5),
            "times",
            Aim::AtMost(2.0),
        ),
    ];
    println!("{}", serde_json::to_string_pretty(&findings).unwrap());
    if !arguments.json {
        eprintln!("{}", table(&findings));
    }
}
