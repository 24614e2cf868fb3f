//! An open loop: transactions at a fixed rate, whatever becomes of them, and when the broker appended each of their rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use waybill_testkit::TestDatabase;

use crate::arguments::Arguments;
use crate::bare::Bare;
use crate::load::{self, Table};
use crate::relay;
use crate::topic::{Appended, Topic};

/// Rows of one transaction: as much as a busy service's batch, few enough that the rate is many transactions.
const TRANSACTION_ROWS: i64 = 20;
/// Written before what is counted, at the same rate: a broker that was just started compiles its own code meanwhile.
pub(crate) const WARM_UP: Duration = Duration::from_secs(20);
/// A transaction that begins later than this after its time began late: the load could not keep its rate.
pub(crate) const LATE: Duration = Duration::from_millis(5);
/// Begins the names of the transactions written meanwhile.
const WARMING: &str = "warming";

/// What came of it, after the warm-up.
pub(crate) struct Measured {
    /// Milliseconds from a commit's answer to the append of each of its rows.
    pub(crate) since_commit_ms: Vec<f64>,
    /// Milliseconds of each transaction, from its beginning to its commit's answer.
    pub(crate) transaction_ms: Vec<f64>,
    /// Which share of the transactions began late.
    pub(crate) late: f64,
}

/// Who publishes what is written.
#[derive(Clone)]
pub(crate) enum Publisher {
    /// Somebody who reads this table.
    Reader(Table),
    /// The writer itself, by a bare producer, as soon as its commit is answered: nothing can be sooner. It appends to the
    /// relay's table all the same.
    Writer(Arc<Bare>),
}

/// By a relay over these databases.
pub(crate) async fn by_relay(
    databases: &[TestDatabase],
    topic: &Topic,
    rate: f64,
    arguments: &Arguments,
) -> Measured {
    let mut relay = relay::start(&databases.iter().collect::<Vec<_>>(), None);
    relay.wait_ready(Duration::from_secs(60)).await;
    let found = measure(databases, Publisher::Reader(Table::Outbox), topic, rate, arguments).await;
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    found
}

/// Each database has its part of the rate.
pub(crate) async fn measure(
    databases: &[TestDatabase],
    publisher: Publisher,
    topic: &Topic,
    rate: f64,
    arguments: &Arguments,
) -> Measured {
    let before = topic.ends();
    let pause = Duration::from_secs_f64(TRANSACTION_ROWS as f64 * databases.len() as f64 / rate);
    let whole = WARM_UP + Duration::from_secs(arguments.seconds);
    let writers = databases.iter().enumerate().map(|(number, database)| {
        let writer = Writer {
            pool: database.pool.clone(),
            publisher: publisher.clone(),
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
    let since_commit_ms = found.map(|record| since_commit_ms(record, &commits)).collect();
    let took = commits.iter().filter(|(transaction, _)| counted(transaction));
    let transaction_ms: Vec<f64> = took.map(|(_, commit)| commit.took_ms).collect();
    let late = late as f64 / transaction_ms.len().max(1) as f64;
    Measured { since_commit_ms, transaction_ms, late }
}

/// As many as there are rows: none came twice, so each came once. Each has a key of its own: there is no order.
fn each_once(appended: &[Appended], commits: &HashMap<String, Commit>) {
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
fn since_commit_ms(record: &Appended, commits: &HashMap<String, Commit>) -> f64 {
    let commit =
        commits.get(&record.transaction).expect("every record is of a transaction that was committed");
    (record.appended_ms as f64 + 0.5 - commit.answered_ms).max(0.0)
}

struct Commit {
    /// By the clock that the broker has too.
    answered_ms: f64,
    took_ms: f64,
}

struct Written {
    /// By the transaction's name.
    commits: HashMap<String, Commit>,
    late: usize,
}

/// Who writes, and what.
#[derive(Clone)]
struct Writer {
    pool: PgPool,
    publisher: Publisher,
    topic: String,
    number: usize,
    bytes: i32,
}

impl Writer {
    async fn transaction(self, number: u64, counted: bool) -> (String, Commit) {
        let name = format!("{}{}-{number}", if counted { "" } else { WARMING }, self.number);
        let table = match &self.publisher {
            Publisher::Reader(table) => *table,
            Publisher::Writer(_) => Table::Outbox,
        };
        let began = Instant::now();
        load::transaction(&self.pool, table, &self.topic, &name, TRANSACTION_ROWS, self.bytes).await;
        let commit = Commit { answered_ms: now_ms(), took_ms: began.elapsed().as_secs_f64() * 1e3 };
        if let Publisher::Writer(bare) = &self.publisher {
            bare.send_all(&self.topic, &load::records(&name, TRANSACTION_ROWS, self.bytes));
        }
        (name, commit)
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
