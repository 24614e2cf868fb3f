//! From a commit's answer to the broker's append, in an open loop at a fifth of the drain's rate.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use waybill_testkit::TestDatabase;

use crate::arguments::Arguments;
use crate::bare;
use crate::findings::{Aim, Finding, quantile};
use crate::load::{self, Table};
use crate::relay;
use crate::topic::{Appended, Topic};

/// Rows of one transaction: as much as a busy service's batch, few enough that the rate is many transactions.
const TRANSACTION_ROWS: i64 = 20;
/// Questions and single records whose medians are the least that is possible.
const SINGLE_TRIES: usize = 1_000;
/// Written before what is counted, at the same rate: a broker that was just started compiles its own code meanwhile.
const WARM_UP: Duration = Duration::from_secs(20);
/// A transaction that begins later than this after its time began late: the load could not keep its rate.
const LATE: Duration = Duration::from_millis(5);
/// Begins the names of the transactions written meanwhile.
const WARMING: &str = "warming";
/// Rows of the drain that tells the rate when it is not given.
const PROBE_ROWS: i64 = 200_000;

pub(crate) async fn run(arguments: &Arguments) -> Vec<Finding> {
    let rate = match arguments.rate {
        Some(rate) => rate,
        None => probe(arguments).await / 5.0,
    };
    let topic = Topic::stamped_by_broker("latency", arguments.partitions).await;
    let databases = [prepared().await];
    // Before the loop and after it: servers that are warm answer sooner, and the loop meets both.
    let mut questions = select_1_ms().await;
    let mut sent = bare::single_ms(&topic.name, SINGLE_TRIES);
    let (mut found, late) = open_loop(&databases, &topic, rate, arguments).await;
    questions.extend(select_1_ms().await);
    sent.extend(bare::single_ms(&topic.name, SINGLE_TRIES));
    let (question, sent) = (quantile(&mut questions, 0.5), quantile(&mut sent, 0.5));
    let least = question + sent;
    let (p50, p99) = (quantile(&mut found, 0.5), quantile(&mut found, 0.99));
    let what = format!("commit to append at {rate:.0} rows/s");
    vec![
        Finding::told("p50 of `select 1`", question, "ms"),
        Finding::told("p50 of one bare produce, acks=all", sent, "ms"),
        Finding::told(format!("{what}, p50"), p50, "ms"),
        Finding::told(format!("{what}, p99"), p99, "ms"),
        Finding::aimed("p50 against the least possible", p50 / least, "times", Aim::AtMost(3.0)),
        Finding::aimed("p99 against the least possible", p99 / least, "times", Aim::AtMost(10.0)),
        Finding::told(format!("transactions that began more than {LATE:?} late, of all"), 100.0 * late, "%"),
    ]
}

/// An empty outbox.
pub(crate) async fn prepared() -> TestDatabase {
    let database = TestDatabase::create("relay_latency").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    database
}

/// As [`measure`], by a relay over these databases.
pub(crate) async fn open_loop(
    databases: &[TestDatabase],
    topic: &Topic,
    rate: f64,
    arguments: &Arguments,
) -> (Vec<f64>, f64) {
    let mut relay = relay::start(&databases.iter().collect::<Vec<_>>(), None);
    relay.wait_ready(Duration::from_secs(60)).await;
    let found = measure(databases, Table::Outbox, topic, rate, arguments).await;
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    found
}

/// Milliseconds from commit to append of every row that the databases' writers committed after the warm-up, and the
/// share of transactions that began late. Each database has its part of the rate. Somebody publishes meanwhile.
pub(crate) async fn measure(
    databases: &[TestDatabase],
    table: Table,
    topic: &Topic,
    rate: f64,
    arguments: &Arguments,
) -> (Vec<f64>, f64) {
    let before = topic.ends();
    let pause = Duration::from_secs_f64(TRANSACTION_ROWS as f64 * databases.len() as f64 / rate);
    let whole = WARM_UP + Duration::from_secs(arguments.seconds);
    let writers = databases.iter().enumerate().map(|(number, database)| {
        let writer = Writer {
            pool: database.pool.clone(),
            table,
            topic: topic.name.clone(),
            number,
            bytes: arguments.bytes,
        };
        tokio::spawn(write(writer, pause, whole))
    });
    let written = futures_util::future::join_all(writers).await;
    let (mut commits, mut late) = (HashMap::new(), 0);
    for one in written.into_iter().map(Result::unwrap) {
        late += one.late;
        commits.extend(one.commits);
    }
    let appended = topic.read_from(&before, commits.len() as i64 * TRANSACTION_ROWS);
    each_once(&appended, &commits);
    let counted = |transaction: &str| !transaction.starts_with(WARMING);
    let found = appended.iter().filter(|record| counted(&record.transaction));
    let found = found.map(|record| since_commit_ms(record, &commits)).collect();
    let all = commits.keys().filter(|transaction| counted(transaction)).count();
    (found, late as f64 / all.max(1) as f64)
}

/// As many as there are rows: none came twice, so each came once. Each has a key of its own: there is no order.
fn each_once(appended: &[Appended], commits: &HashMap<String, f64>) {
    let mut seen: HashMap<&str, u64> = HashMap::with_capacity(commits.len());
    for Appended { transaction, key, .. } in appended {
        let place: i64 = key.strip_prefix(transaction.as_str()).unwrap()[1..].parse().unwrap();
        assert!((1..=TRANSACTION_ROWS).contains(&place), "{key} was never written: no number");
        let rows = seen.entry(transaction).or_default();
        assert!(*rows & (1 << place) == 0, "{key} came twice: no number");
        *rows |= 1 << place;
    }
}

/// Whole milliseconds are what the broker tells; earlier than the commit's answer is at once.
fn since_commit_ms(record: &Appended, commits: &HashMap<String, f64>) -> f64 {
    let committed =
        commits.get(&record.transaction).expect("every record is of a transaction that was committed");
    (record.appended_ms as f64 + 0.5 - committed).max(0.0)
}

struct Written {
    /// When the commit was answered, by the transaction's name, in milliseconds of the clock that the broker has too.
    commits: HashMap<String, f64>,
    late: usize,
}

/// Who writes, and what.
#[derive(Clone)]
struct Writer {
    pool: PgPool,
    table: Table,
    topic: String,
    number: usize,
    bytes: i32,
}

impl Writer {
    async fn transaction(self, number: u64, counted: bool) -> (String, f64) {
        let name = format!("{}{}-{number}", if counted { "" } else { WARMING }, self.number);
        load::transaction(&self.pool, self.table, &self.topic, &name, TRANSACTION_ROWS, self.bytes).await;
        (name, now_ms())
    }
}

/// A transaction at every tick; one that comes late is not left out.
async fn write(writer: Writer, pause: Duration, time: Duration) -> Written {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = tokio::task::JoinSet::new();
    let started = Instant::now();
    let (mut written, mut next) = (Written { commits: HashMap::new(), late: 0 }, 0_u64);
    while started.elapsed() < time {
        let due = ticks.tick().await;
        let counted = started.elapsed() >= WARM_UP;
        if counted && due.elapsed() > LATE {
            written.late += 1;
        }
        running.spawn(writer.clone().transaction(next, counted));
        next += 1;
        while let Some(done) = running.try_join_next() {
            written.commits.extend([done.unwrap()]);
        }
    }
    while let Some(done) = running.join_next().await {
        written.commits.extend([done.unwrap()]);
    }
    written
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3
}

async fn select_1_ms() -> Vec<f64> {
    let database = TestDatabase::create("relay_question").await;
    let mut connection = database.pool.acquire().await.unwrap();
    let mut times = Vec::new();
    for _ in 0..SINGLE_TRIES {
        let started = Instant::now();
        sqlx::query("select 1").execute(&mut *connection).await.unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times
}

async fn probe(arguments: &Arguments) -> f64 {
    let database = prepared().await;
    let topic = Topic::create("probe", arguments.partitions).await;
    arguments.say("latency: a drain to know the rate ...");
    load::load(&database.pool, &topic.name, 0, PROBE_ROWS, arguments.bytes).await;
    let draining = async || relay::drain(&database, PROBE_ROWS, arguments.linger_ms).await;
    let run = super::audited(&topic, PROBE_ROWS, draining).await;
    arguments.say(&format!("{run}"));
    run.rows_per_second
}
