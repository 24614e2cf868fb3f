//! `beside`: how long other keys' messages take while some keys fail, are retried and hold their followers.
//!
//! Nothing stands in for anything: messages come to a topic at a fixed rate, whatever the group does; its members run the
//! consumers that services run; what fails travels through three retry topics, published by the relay, a process of its
//! own, and its key's followers are held and drained. One message fails on every tier: a dead letter, which blocks its key
//! until it is replayed at the end. A message of a key that never fails is timed from when it was to come to the commit of its
//! batch. The same rate without failures, in turn, is the measure.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::config::FromClientConfig as _;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinHandle;
use uuid::Uuid;
use waybill_bench::findings::{Aim, Finding, exit_code, quantile, table};
use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::{self, Batch, BatchError, BatchHandler, ConsumerConfig, ConsumerError};
use waybill_messaging::envelope::{Cause, Envelope};
use waybill_messaging::headers;
use waybill_messaging::message::Message;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, InboxProcessor, Verdict, appearance_in_tx};
use waybill_outbox::retry::{Policy, operate};
use waybill_runtime::clock::new_id;
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::{Process, TestDatabase, TestTopics};

use crate::Arguments;
use crate::failing::{DELAYS, Failing, KEYS};

const GROUP: &str = "beside";
const TOPIC: &str = "bench.events";
const PARTITIONS: i32 = 6;
/// Of the group, each with both consumers and a drainer.
const MEMBERS: usize = 2;
/// Messages before the clock runs, over all partitions: every member reads by then.
const FIRST: u64 = 60;
/// Before the number of the first ones' keys; none of them is counted.
const FIRST_KEY: &str = "first";
/// What is not counted at the beginning: plans and pages are not there yet.
const WARM_UP: Duration = Duration::from_secs(1);
/// Between two looks whether all is handled.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Longest wait until all that failed is handled, and for the relay and the group's first assignment.
const REST_MAX: Duration = Duration::from_secs(60);
/// A key and the number of its message, in the order in which they were handled.
const EFFECTS: &str = "create table effects (id bigint generated always as identity, key text not null, number bigint not null)";

/// Keeps each message's number. A message's value says how many of its appearances fail.
struct Numbered;

impl Handler for Numbered {
    type Message = i16;

    fn group(&self) -> &'static str {
        GROUP
    }

    fn decode(&self, _kind: &str, payload: &[u8]) -> Result<Option<i16>, CodecError> {
        let failures = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        failures.map(Some).ok_or(CodecError::NotAFrame { what: "it is no number" })
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<i16>],
        _out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let mut verdicts = Vec::with_capacity(deliveries.len());
        for Delivery { envelope, message: failures } in deliveries {
            let again = *failures > 0 && appearance_in_tx(conn, GROUP, envelope.id).await? < *failures;
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

/// When a message is to come, from the start of the clock.
fn arrival(number: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate as f64)
}

/// The clock, and when each message's batch was committed by it.
#[derive(Default)]
struct Times {
    started: OnceLock<Instant>,
    handled: Mutex<HashMap<u64, Duration>>,
}

/// The group's own handler, and the time at which it has committed.
struct Timed {
    processor: InboxProcessor<Numbered>,
    times: Arc<Times>,
}

impl BatchHandler for Timed {
    async fn handle(&self, batch: &Batch) -> Result<(), BatchError> {
        self.processor.handle(batch).await?;
        let Some(now) = self.times.started.get().map(Instant::elapsed) else { return Ok(()) };
        let mut handled = self.times.handled.lock().unwrap();
        for record in &batch.records {
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
            let sequence = record.headers.iter().find(|(name, _)| name == headers::CE_SEQUENCE);
            let turn = text(&sequence.unwrap().1).parse::<u64>().unwrap() - 1;
            let key = text(record.key.as_ref().unwrap());
            if let Some(key) = key.strip_prefix("key-") {
                handled.entry(turn * KEYS + key.parse::<u64>().unwrap()).or_insert(now);
            }
        }
        Ok(())
    }
}

/// One member of the group.
struct Member {
    shutdown: Shutdown,
    consumers: [JoinHandle<Result<(), ConsumerError>>; 2],
    drainer: JoinHandle<()>,
}

impl Member {
    fn start(database: &TestDatabase, topics: &TestTopics, policy: &Policy, times: &Arc<Times>) -> Self {
        let (pool, prefix, shutdown) = (database.pool.clone(), &topics.prefix, Shutdown::manual());
        let processor = InboxProcessor::with_policy(pool, prefix, Numbered, policy.clone());
        let retries = processor.retries().consumer_config(&topics.bootstrap, &[TOPIC]);
        let retries =
            consumer::run(retries.expect("the policy has tiers"), processor.retries(), shutdown.clone());
        let drainer = tokio::spawn(processor.drainer().run(shutdown.clone()));
        let main = ConsumerConfig::new(&topics.bootstrap, prefix, GROUP, &[TOPIC]);
        let timed = Timed { processor, times: Arc::clone(times) };
        let main = consumer::run(main, timed, shutdown.clone());
        Self { shutdown, consumers: [tokio::spawn(main), tokio::spawn(retries)], drainer }
    }

    async fn stop(self) {
        self.shutdown.request();
        for consumer in self.consumers {
            consumer.await.unwrap().unwrap();
        }
        self.drainer.await.unwrap();
    }
}

/// Where the messages come from.
struct Source {
    topic: String,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Source {
    fn new(topics: &TestTopics) -> Self {
        let config = waybill_messaging::config::producer(&topics.bootstrap, "beside");
        Self { topic: topics.full(TOPIC), producer: ThreadedProducer::from_config(&config).unwrap() }
    }

    /// The `sequence`th message of this key.
    fn send(&self, key: &str, sequence: u64, failures: i16) {
        let envelope = Envelope {
            id: new_id(),
            source: "/waybill/bench".to_owned(),
            kind: "Numbered".to_owned(),
            time: Utc::now(),
            subject: key.to_owned(),
            cause: Cause { correlation_id: new_id(), causation_id: None, trace: None },
            sequence: i64::try_from(sequence).unwrap(),
        };
        let headers =
            headers::encode(&envelope).into_iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: Some(value.as_bytes()) })
            });
        let payload = failures.to_string();
        let record = BaseRecord::to(&self.topic).key(key).payload(&payload).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Each message at its time.
    async fn run(&self, arguments: &Arguments, failing: Failing, started: Instant) {
        for number in 0..failing.total {
            if let Some(early) = arrival(number, arguments.rate).checked_sub(started.elapsed()) {
                tokio::time::sleep(early).await;
            }
            let (key, turn) = (number % KEYS, number / KEYS);
            self.send(&format!("key-{key}"), turn + 1, failing.appearances(number));
        }
    }
}

/// Milliseconds of the messages of keys that never fail, and how many messages failed.
struct Turn {
    latencies_ms: Vec<f64>,
    failed: i64,
}

async fn turn(arguments: &Arguments, percent: u64) -> Turn {
    let policy = Policy::with_delays(&DELAYS);
    let database = TestDatabase::create("consumer_beside").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    sqlx::raw_sql(EFFECTS).execute(&database.pool).await.unwrap();
    let topics = topics(&policy).await;
    let databases = format!("{GROUP}={}", database.url);
    let mut relay = Process::named("outbox-relay").env("OUTBOX_RELAY_DATABASES", databases).spawn();
    relay.wait_ready(REST_MAX).await;

    let times = Arc::new(Times::default());
    let mut members: Vec<Member> =
        (0..MEMBERS).map(|_| Member::start(&database, &topics, &policy, &times)).collect();
    let source = Source::new(&topics);
    for number in 0..FIRST {
        source.send(&format!("{FIRST_KEY}-{number}"), 1, 0);
    }
    at_rest(&database.pool, FIRST).await;
    let started = *times.started.get_or_init(Instant::now);
    let total = arguments.rate * arguments.seconds;
    let failing = Failing { percent, total };
    let restart = async {
        let Some(member) = arguments.restart.then(|| members.pop()).flatten() else { return };
        tokio::time::sleep(arrival(total / 3, arguments.rate)).await;
        member.stop().await;
        members.push(Member::start(&database, &topics, &policy, &times));
    };
    tokio::join!(source.run(arguments, failing, started), restart);
    if failing.letter().is_some() {
        replay(&database.pool, &topics.prefix, &policy).await;
    }
    at_rest(&database.pool, FIRST + total).await;
    for member in members {
        member.stop().await;
    }

    let failed = audit(&database.pool, failing).await;
    let handled = times.handled.lock().unwrap();
    // With and without failures the same keys are timed.
    let counted = |number: &u64| {
        let with = Failing { percent: arguments.failing_percent, total };
        arrival(*number, arguments.rate) >= WARM_UP && !with.has_key(*number % KEYS)
    };
    let latency = |number| (handled[&number] - arrival(number, arguments.rate)).as_secs_f64() * 1_000.0;
    Turn { latencies_ms: (0..total).filter(counted).map(latency).collect(), failed }
}

/// The group's: main, retries, dead letters.
async fn topics(policy: &Policy) -> TestTopics {
    let (retries, letters) = (policy.topics(TOPIC, GROUP), format!("{TOPIC}.{GROUP}.dlq"));
    let mut all = vec![(TOPIC, PARTITIONS), (letters.as_str(), 1)];
    all.extend(retries.iter().map(|name| (name.as_str(), 3)));
    TestTopics::create(&all).await
}

/// Waits until the one dead letter blocks its key, and sends it round again: the last of its failing appearances was on the
/// last tier.
async fn replay(pool: &PgPool, prefix: &str, policy: &Policy) {
    let started = Instant::now();
    let question = "select dead_letter_id from parked_keys where state = 'blocked'";
    let letter = loop {
        let blocked: Option<Uuid> = sqlx::query_scalar(question).fetch_optional(pool).await.unwrap();
        if let Some(letter) = blocked {
            break letter;
        }
        assert!(started.elapsed() < REST_MAX, "no key is blocked: no figure");
        tokio::time::sleep(LOOK_PAUSE).await;
    };
    let mut tx = pool.begin().await.unwrap();
    operate::replay_in_tx(&mut tx, prefix, policy, letter).await.unwrap();
    tx.commit().await.unwrap();
}

/// Waits until so many messages have had their effect and no key waits.
async fn at_rest(pool: &PgPool, wanted: u64) {
    let started = Instant::now();
    let question = "select (select count(*) from effects), (select count(*) from parked_keys)";
    loop {
        let (effects, parked): (i64, i64) = sqlx::query_as(question).fetch_one(pool).await.unwrap();
        if (effects, parked) == (i64::try_from(wanted).unwrap(), 0) {
            return;
        }
        assert!(
            started.elapsed() < REST_MAX,
            "{effects} of {wanted} handled, {parked} keys parked: no figure"
        );
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Every message had its effect once, each key's in order, and those that were to fail did, as often as they were to, one of
/// them as a dead letter that is resolved: how many there were.
async fn audit(pool: &PgPool, failing: Failing) -> i64 {
    let effects = "select key, number from effects where key not like $1 || '%' order by id";
    let rows: Vec<(String, i64)> = sqlx::query_as(effects).bind(FIRST_KEY).fetch_all(pool).await.unwrap();
    let mut last: HashMap<&str, i64> = HashMap::new();
    for (key, number) in &rows {
        let before = last.insert(key, *number).unwrap_or(0);
        assert_eq!(*number, before + 1, "{key}: after {before}: this turn has no figure");
    }
    assert_eq!(rows.len() as u64, failing.total, "this turn has no figure");
    let mut wanted: BTreeMap<i16, i64> = BTreeMap::new();
    for hop in (0..failing.total).flat_map(|number| 1..=failing.appearances(number)) {
        *wanted.entry(hop).or_default() += 1;
    }
    let hops = "select hop, count(*) from inbox where hop > 0 group by hop";
    let hops: Vec<(i16, i64)> = sqlx::query_as(hops).fetch_all(pool).await.unwrap();
    assert_eq!(BTreeMap::from_iter(hops), wanted, "appearances on retry topics: this turn has no figure");
    let letters = "select count(*), count(*) filter (where state = 'resolved') from dead_letters";
    let letters: (i64, i64) = sqlx::query_as(letters).fetch_one(pool).await.unwrap();
    let expected = i64::from(failing.letter().is_some());
    assert_eq!(letters, (expected, expected), "dead letters, and those resolved: this turn has no figure");
    wanted.get(&1).copied().unwrap_or_default()
}

/// Turns without and with failures one after the other; medians of the runs. Ends with 1 when the aim is missed.
pub(crate) async fn run(arguments: &Arguments) -> ExitCode {
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
                "run {run}: p99 without failures {without:.2} ms, with {with:.2} ms, {failed} messages failed, one of them on every tier"
            );
        }
    }
    let percent = arguments.failing_percent;
    let [without, with] = &mut p50;
    let [slow_without, slow_with] = &mut p99;
    let findings = [
        Finding::told("messages a second, at a fixed rate", arguments.rate as f64, "/s"),
        Finding::told("messages of a turn that failed, once to four times", failed as f64, ""),
        Finding::told(
            "members that ended and came back, in each turn",
            f64::from(u8::from(arguments.restart)),
            "",
        ),
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
    exit_code(&findings)
}
