//! What drives replays: verdicts are collected, and the next letters are sent when their turn has come.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::IntGauge;
use sqlx::PgPool;
use uuid::Uuid;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::round;
use waybill_runtime::retry::Backoff;
use waybill_telemetry::metrics::int_gauge_vec;

use super::step::{self, Stepped};
use crate::retry::Policy;

/// Between two looks while something runs: a verdict takes about that long.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks while nothing runs.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Replays that run side by side; more wait for the first to end.
const RUNNING_MAX: i64 = 20;
/// First wait after a failure.
const RETRY_WAIT_FIRST: Duration = Duration::from_millis(200);
/// Longest wait after a failure.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);

static RUNNING: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Replays of dead letters that run in the service's database; 20 means so many or more.";
    int_gauge_vec("replays_running", help, &[]).with_label_values::<&str>(&[])
});

/// Drives the replays of this database until the shutdown. Every instance of a service may run it: they take turns step
/// by step, and one's end in the middle of a step leaves nothing half done. What Postgres refuses is told and tried
/// again. `prefix` and `policy` are those of the service's `InboxProcessor`.
pub async fn run(pool: PgPool, prefix: String, policy: Policy, shutdown: Shutdown) {
    let mut backoff = Backoff::new(RETRY_WAIT_FIRST, RETRY_WAIT_MAX);
    while !shutdown.is_requested() {
        let wait = match look(&pool, &prefix, &policy).await {
            Ok(Looked { sent: true, failed: None, .. }) => {
                backoff.reset();
                continue;
            }
            Ok(Looked { running, failed: None, .. }) => {
                backoff.reset();
                if running { BUSY_INTERVAL } else { IDLE_INTERVAL }
            }
            // One that fails every time does not slow the others down for long.
            Ok(Looked { sent: true, failed: Some(error), .. }) => {
                tell(&error);
                backoff.reset();
                backoff.next_wait()
            }
            Ok(Looked { failed: Some(error), .. }) | Err(error) => {
                tell(&error);
                backoff.next_wait()
            }
        };
        shutdown.sleep(wait).await;
    }
}

fn tell(error: &sqlx::Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, "replays could not be driven; trying again");
}

/// What one look found.
struct Looked {
    running: bool,
    sent: bool,
    /// The first failure.
    failed: Option<sqlx::Error>,
}

/// Verdicts, then one step of each replay that runs, whatever becomes of the others.
async fn look(pool: &PgPool, prefix: &str, policy: &Policy) -> Result<Looked, sqlx::Error> {
    let running = sqlx::query_scalar("select id from replays where state = 'running' order by id limit $1");
    let ids: Vec<Uuid> = round(running.bind(RUNNING_MAX).fetch_all(pool)).await?;
    RUNNING.set(i64::try_from(ids.len()).unwrap_or(RUNNING_MAX));
    round(step::verdicts_take(pool)).await?;
    let mut looked = Looked { running: !ids.is_empty(), sent: false, failed: None };
    for id in &ids {
        match round(step::step(pool, prefix, policy, *id)).await {
            Ok(Stepped::Sent) => looked.sent = true,
            Ok(Stepped::Waits) => {}
            Err(error) => {
                looked.failed.get_or_insert(error);
            }
        }
    }
    Ok(looked)
}
