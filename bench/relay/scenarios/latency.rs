//! From a commit's answer to the broker's append, in an open loop at a fifth of the drain's rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use waybill_testkit::TestDatabase;

use crate::arguments::Arguments;
use crate::bare::{self, Bare};
use crate::findings::{Aim, Finding, quantile};
use crate::load::{self, Table};
use crate::open_loop::{self, LATE, Measured, Publisher};
use crate::profile::Profile;
use crate::relay;
use crate::topic::Topic;

/// Questions and single records whose medians are the least that is possible.
const SINGLE_TRIES: usize = 1_000;
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
    let (mut found, profile) = profiled(&databases, &topic, rate, arguments).await;
    questions.extend(select_1_ms().await);
    sent.extend(bare::single_ms(&topic.name, SINGLE_TRIES));
    let bare = Publisher::Writer(Arc::new(Bare::start()));
    let mut soonest = open_loop::measure(&databases, bare, &topic, rate, arguments).await;
    let (question, sent) = (quantile(&mut questions, 0.5), quantile(&mut sent, 0.5));
    let least = question + sent;
    let (p50, p99) = (quantile(&mut found.since_commit_ms, 0.5), quantile(&mut found.since_commit_ms, 0.99));
    let what = format!("commit to append at {rate:.0} rows/s");
    let mut findings = vec![
        Finding::told("p50 of `select 1`", question, "ms"),
        Finding::told("p50 of one bare produce, acks=all", sent, "ms"),
        Finding::told(format!("{what}, p50"), p50, "ms"),
        Finding::told(format!("{what}, p99"), p99, "ms"),
        Finding::aimed("p50 against the least possible", p50 / least, "times", Aim::AtMost(3.0)),
        Finding::aimed("p99 against the least possible", p99 / least, "times", Aim::AtMost(10.0)),
        Finding::told(
            format!("transactions that began more than {LATE:?} late, of all"),
            100.0 * found.late,
            "%",
        ),
    ];
    let mut told = |what: &str, share: f64, of: &mut [f64]| {
        findings.push(Finding::told(format!("{what}, p{:.0}", share * 100.0), quantile(of, share), "ms"));
    };
    for share in [0.5, 0.99] {
        told("the load's transactions meanwhile", share, &mut found.transaction_ms);
        told(
            "commit to append when the writer sends by a bare producer",
            share,
            &mut soonest.since_commit_ms,
        );
        told("that load's transactions", share, &mut soonest.transaction_ms);
    }
    findings.extend(profile);
    findings
}

/// An empty outbox.
pub(crate) async fn prepared() -> TestDatabase {
    let database = TestDatabase::create("relay_latency").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    database
}

/// With what it is made of.
async fn profiled(
    databases: &[TestDatabase],
    topic: &Topic,
    rate: f64,
    arguments: &Arguments,
) -> (Measured, Vec<Finding>) {
    let mut relay = relay::start(&databases.iter().collect::<Vec<_>>(), None);
    relay.wait_ready(Duration::from_secs(60)).await;
    let measured = open_loop::measure(databases, Publisher::Reader(Table::Outbox), topic, rate, arguments);
    let (measured, profile) = tokio::join!(measured, Profile::of(&relay, arguments.seconds));
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    (measured, profile)
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
