//! The relay as it is shipped, a process of its own: drains outboxes, idles, says what it has used.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use waybill_testkit::process::peak_memory_kib;
use waybill_testkit::{Process, TestDatabase};

use crate::report::{Cost, Idle, Run, cpu_seconds};

/// No drain takes longer: a relay that hangs ends the measuring.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// The relay over these databases; `linger_ms` when it is not to be the default.
pub(crate) fn start(databases: &[&TestDatabase], linger_ms: Option<u32>) -> Process {
    let named: Vec<String> = databases
        .iter()
        .enumerate()
        .map(|(number, database)| format!("bench{number}={}", database.url))
        .collect();
    let mut relay = Process::named("outbox-relay").env("OUTBOX_RELAY_DATABASES", named.join(","));
    if let Some(linger_ms) = linger_ms {
        relay = relay.env("OUTBOX_RELAY_LINGER_MS", linger_ms.to_string());
    }
    relay.spawn()
}

/// From the start of the process until the last row is acknowledged.
pub(crate) async fn drain(database: &TestDatabase, rows: i64, linger_ms: u32) -> Run {
    let started = Instant::now();
    let mut relay = start(&[database], Some(linger_ms));
    until_published(&relay, rows).await;
    let (time, cpu) = (started.elapsed(), cpu_seconds(relay.pid().unwrap_or_default()));
    let mut run = Run::new(usize::try_from(rows).unwrap(), time, cpu);
    run.cost = Some(cost(&database.pool, &relay).await);
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    run
}

/// What an idle relay asks of its database.
pub(crate) async fn idle(database: &TestDatabase, time: Duration) -> Idle {
    let mut relay = start(&[database], None);
    relay.wait_ready(Duration::from_secs(30)).await;
    // What is asked at the start is not idling; statistics come a second late.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, wal_before, started) =
        (transactions(&database.pool).await, wal(&database.pool).await, Instant::now());
    tokio::time::sleep(time).await;
    let seconds = started.elapsed().as_secs_f64();
    let queries = transactions(&database.pool).await - before;
    let wal = wal(&database.pool).await - wal_before;
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    Idle { queries_per_second: queries as f64 / seconds, wal_bytes_per_second: wal as f64 / seconds }
}

/// Waits until this process has published so many rows of all its databases together.
pub(crate) async fn until_published(relay: &Process, rows: i64) {
    let (client, started) = (reqwest::Client::new(), Instant::now());
    while published(&client, relay).await < rows {
        assert!(started.elapsed() < DRAIN_MAX, "the drain takes too long:\n{}", relay.output());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn published(client: &reqwest::Client, relay: &Process) -> i64 {
    let Ok(answer) = client.get(format!("{}/metrics", relay.url)).send().await else { return 0 };
    let text = answer.text().await.unwrap_or_default();
    let of_databases = text.lines().filter(|line| line.starts_with("outbox_relay_published_rows_total"));
    of_databases.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
}

/// The most memory that a process has had resident.
pub(crate) fn peak_memory_mib(pid: u32) -> f64 {
    peak_memory_kib(pid).unwrap_or_default() as f64 / 1024.0
}

async fn cost(pool: &PgPool, relay: &Process) -> Cost {
    // Statistics of a session come a second late; only a statement brings them. The lease's renewal is one.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    Cost { wal_bytes: wal(pool).await, peak_memory_mib: peak_memory_mib(relay.pid().unwrap_or_default()) }
}

/// WAL written by the relay's sessions, theirs alone.
async fn wal(pool: &PgPool) -> i64 {
    let statement = "select coalesce(sum((pg_stat_get_backend_wal(pid)).wal_bytes), 0)::bigint
                     from pg_stat_activity where datname = current_database() and application_name = 'outbox-relay'";
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

async fn transactions(pool: &PgPool) -> i64 {
    let statement = "select xact_commit from pg_stat_database where datname = current_database()";
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}
