//! Day partitions of outbox and inbox, made before they are needed.

use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::retry::Backoff;

/// Partitions are made a week ahead, so that an hour is often enough.
const ROUND_INTERVAL: Duration = Duration::from_secs(3600);
/// First wait after a failed round.
const RETRY_WAIT_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failed round: there is a week until it matters.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(300);
/// The advisory lock of this work in each database, so that instances of a service take turns: any fixed number.
const LOCK_KEY: i64 = 0x7761_7962_696c_6c01;

/// Makes the day partitions that are missing, from some days ago to a week ahead; returns how many there were.
///
/// Call it once after the migrations and before anything appends or consumes: a service that was off for longer than
/// a week has no partition for today.
///
/// # Errors
/// What the database said. The wait for locks is bounded by two seconds; trying again is harmless.
pub async fn make(pool: &PgPool) -> Result<i32, sqlx::Error> {
    let outbox = make_of(pool, "select outbox_partitions_make()").await;
    let inbox = make_of(pool, "select inbox_partitions_make()").await;
    Ok(outbox? + inbox?)
}

/// One table in its own transaction: when the one is locked, the other is made all the same.
async fn make_of(pool: &PgPool, statement: &'static str) -> Result<i32, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK_KEY).execute(&mut *tx).await?;
    let made = sqlx::query_scalar(statement).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(made)
}

/// [`make`] now and every hour until the shutdown; a failed round is logged and tried again.
pub async fn run(pool: PgPool, shutdown: Shutdown) {
    let mut backoff = Backoff::new(RETRY_WAIT_FIRST, RETRY_WAIT_MAX);
    loop {
        let wait = match make(&pool).await {
            Ok(made) => {
                if made > 0 {
                    tracing::info!(made, "day partitions made");
                }
                backoff.reset();
                ROUND_INTERVAL
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "day partitions could not be made");
                backoff.next_wait()
            }
        };
        if !shutdown.sleep(wait).await {
            return;
        }
    }
}

/// [`run`] as a task of its own.
pub fn spawn(pool: PgPool, shutdown: Shutdown) -> JoinHandle<()> {
    tokio::spawn(run(pool, shutdown))
}
