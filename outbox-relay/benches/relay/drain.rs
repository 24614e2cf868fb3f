//! The relay as it is shipped, a process of its own: drains the outbox, then idles.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use waybill_testkit::{Process, TestDatabase};

use crate::report::{Cost, Idle, Run, cpu_seconds};

/// No drain takes longer: a relay that hangs ends the measuring.
const DRAIN_MAX: Duration = Duration::from_secs(600);

fn start(database: &TestDatabase, linger_ms: u32) -> Process {
    Process::named("outbox-relay")
        .env("OUTBOX_RELAY_DATABASES", format!("bench={}", database.url))
        .env("OUTBOX_RELAY_LINGER_MS", linger_ms.to_string())
        .spawn()
}

/// From the start of the process until the last row is acknowledged.
pub(crate) async fn run(database: &TestDatabase, rows: i64, linger_ms: u32) -> Run {
    let client = reqwest::Client::new();
    let started = Instant::now();
    let mut relay = start(database, linger_ms);
    while published(&client, &relay).await < rows {
        assert!(started.elapsed() < DRAIN_MAX, "the drain takes too long:\n{}", relay.output());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (time, cpu) = (started.elapsed(), cpu_seconds(relay.pid().unwrap_or_default()));
    let mut run = Run::new(usize::try_from(rows).unwrap(), time, cpu);
    run.cost = Some(cost(&database.pool, &relay).await);
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    run
}

/// What an idle relay asks of its database.
pub(crate) async fn idle(database: &TestDatabase, time: Duration) -> Idle {
    let mut relay = start(database, 1);
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

async fn published(client: &reqwest::Client, relay: &Process) -> i64 {
    let Ok(answer) = client.get(format!("{}/metrics", relay.url)).send().await else { return 0 };
    let text = answer.text().await.unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("outbox_relay_published_rows_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

async fn cost(pool: &PgPool, relay: &Process) -> Cost {
    // Statistics of a session come a second late; only a statement brings them. The lease's renewal is one.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    let pid = relay.pid().unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kib: u64 =
        peak.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    Cost { wal_bytes: wal(pool).await, peak_memory_mib: peak_kib as f64 / 1024.0 }
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
