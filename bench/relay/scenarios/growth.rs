//! How cost grows: rate and latency over the number of databases, and over the rows that are retained.

use std::time::Instant;

use waybill_testkit::TestDatabase;

use super::latency;
use crate::arguments::Arguments;
use crate::audit::{self, Loaded};
use crate::findings::{Finding, quantile};
use crate::open_loop;
use crate::plot::{self, Point};
use crate::topic::Topic;
use crate::{load, relay};

const DATABASES: [usize; 3] = [1, 4, 16];
/// Rows of one drain, over all databases together.
const DRAIN_ROWS: i64 = 320_000;
/// Rows per second of the open loops: low, since it is the growth that counts.
const RATE: f64 = 2_000.0;

pub(crate) async fn run(arguments: &Arguments) -> Vec<Finding> {
    let mut over_databases = Vec::new();
    for count in DATABASES {
        let mut databases = Vec::new();
        for _ in 0..count {
            databases.push(latency::prepared().await);
        }
        over_databases.push(measured(&databases, count as f64, arguments).await);
    }
    plot::write(&arguments.plots.join("relay-databases.svg"), "databases of one relay", &over_databases);

    let mut over_rows = Vec::new();
    let database = [latency::prepared().await];
    let old = Topic::create("retained", arguments.partitions).await;
    for retained in [arguments.many_rows / 10, arguments.many_rows] {
        let there = rows(&database[0]).await;
        arguments.say(&format!("growth: loading up to {retained} rows that are published and retained ..."));
        load::load(&database[0].pool, &old.name, there, retained - there, arguments.bytes).await;
        // As if published: the relay begins behind them.
        let forward = "update outbox_relay set position_from = pg_current_snapshot(), position_to = null, position_id = 0";
        sqlx::query(forward).execute(&database[0].pool).await.unwrap();
        over_rows.push(measured(&database, retained as f64, arguments).await);
    }
    plot::write(&arguments.plots.join("relay-retained-rows.svg"), "retained rows", &over_rows);
    let told = |what: &'static str, point: &Point| {
        [
            Finding::told(format!("drain over {what}: {}", point.x), point.rate, "rows/s"),
            Finding::told(format!("commit to append over {what}: {}, p50", point.x), point.p50_ms, "ms"),
            Finding::told(format!("commit to append over {what}: {}, p99", point.x), point.p99_ms, "ms"),
        ]
    };
    let databases = over_databases.iter().flat_map(|point| told("databases", point));
    databases.chain(over_rows.iter().flat_map(|point| told("retained rows", point))).collect()
}

async fn measured(databases: &[TestDatabase], x: f64, arguments: &Arguments) -> Point {
    let drained = Topic::create("drained", arguments.partitions).await;
    let each = DRAIN_ROWS / databases.len() as i64;
    for (number, database) in databases.iter().enumerate() {
        load::load(&database.pool, &drained.name, number as i64 * each, each, arguments.bytes).await;
    }
    let (before, started) = (drained.ends(), Instant::now());
    let mut relay = relay::start(&databases.iter().collect::<Vec<_>>(), Some(arguments.linger_ms));
    relay::until_published(&relay, DRAIN_ROWS).await;
    let rate = DRAIN_ROWS as f64 / started.elapsed().as_secs_f64();
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    audit::loaded(&drained, &before, Loaded { rows: DRAIN_ROWS, of_each: each });
    let topic = Topic::stamped_by_broker("grown", arguments.partitions).await;
    let mut found = open_loop::by_relay(databases, &topic, RATE, arguments).await.since_commit_ms;
    let point = Point { x, rate, p50_ms: quantile(&mut found, 0.5), p99_ms: quantile(&mut found, 0.99) };
    arguments.say(&format!(
        "growth at {x}: {:.0} rows/s, p50 {:.1} ms, p99 {:.1} ms",
        point.rate, point.p50_ms, point.p99_ms
    ));
    point
}

async fn rows(database: &TestDatabase) -> i64 {
    sqlx::query_scalar("select count(*) from outbox").fetch_one(&database.pool).await.unwrap()
}
