//! Day partitions of outbox and inbox: made before they are needed, dropped after their time.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::types::PgInterval;
use tokio::task::JoinHandle;
use waybill_runtime::config::Environment;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool;
use waybill_runtime::retry::Backoff;

use crate::status;

/// Partitions are made a week ahead, so that an hour is often enough.
const ROUND_INTERVAL: Duration = Duration::from_secs(3600);
/// First wait after a failed round.
const RETRY_WAIT_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failed round: there is a week until it matters.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(300);
/// The advisory lock of this work in each database, so that instances of a service take turns: any fixed number.
const LOCK_KEY: i64 = 0x7761_7962_696c_6c01;
/// Days dropped in one round at most; the next round goes on. More than a year's are never due at once.
const DROPS_PER_ROUND_MAX: usize = 400;
/// Rows of the inbox's default partition forgotten in one transaction: tens of milliseconds.
const STRAYS_PER_TRANSACTION_MAX: i32 = 10_000;
/// Transactions of that kind in one round: five million rows an hour.
const STRAYS_TRANSACTIONS_MAX: usize = 500;
const DAY: Duration = Duration::from_secs(86_400);
/// The inbox's partitions are made for eight days back; a shorter retention would drop what is made again.
const INBOX_DAYS_MIN: u32 = 9;
/// Topics keep their records for at most 30 days: whoever reads one from its beginning finds them known. A row and its
/// index entry are some 130 bytes, so that ten messages a second cost 4 GiB; a service that hears more and has natural
/// keys may keep less.
const INBOX_DAYS: u32 = 35;
/// Ten years: more is a slip of the pen.
const DAYS_MAX: u32 = 3_650;

/// How long rows are kept at least, whole days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Published rows of the outbox: how far back they can be published again.
    pub outbox: Duration,
    /// Ids in the inbox: how far back a repeated message is known. More than the topics' retention.
    pub inbox: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { outbox: 7 * DAY, inbox: INBOX_DAYS * DAY }
    }
}

impl Retention {
    /// `WAYBILL_OUTBOX_RETENTION_DAYS` (default 7, at least 1) and `WAYBILL_INBOX_RETENTION_DAYS` (default 35, at least 9).
    pub fn read(env: &mut Environment) -> Self {
        let outbox = env.parsed_in("WAYBILL_OUTBOX_RETENTION_DAYS", 7, 1..=DAYS_MAX);
        let inbox = env.parsed_in("WAYBILL_INBOX_RETENTION_DAYS", INBOX_DAYS, INBOX_DAYS_MIN..=DAYS_MAX);
        Self { outbox: outbox * DAY, inbox: inbox * DAY }
    }
}

/// What a round of retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Partitions dropped, by name.
    pub partitions: Vec<String>,
    /// Ids forgotten that were in no day's partition.
    pub strays: u64,
    /// Partitions of the outbox that are past their time and stay: a relay has not published all of them.
    pub unpublished: Vec<String>,
    /// Locks could not be had in time: somebody has an old transaction open. The next round tries again.
    pub busy: bool,
}

/// Makes the day partitions that are missing, from some days ago to a week ahead; returns how many there were.
///
/// Call it once after the migrations and before anything appends or consumes: a service that was off for longer than
/// a week has no partition for today.
///
/// # Errors
/// What the database said. The wait for locks is bounded by two seconds; trying again is harmless.
pub async fn make(pool: &PgPool) -> Result<i32, sqlx::Error> {
    let outbox = pool::round(make_of(pool, "select outbox_partitions_make()")).await;
    let inbox = make_inbox(pool).await;
    Ok(outbox? + inbox?)
}

/// Day after day: ids of no known day wait while one is made, and get through before the next.
async fn make_inbox(pool: &PgPool) -> Result<i32, sqlx::Error> {
    let mut made = 0;
    while pool::round(make_of(pool, "select (inbox_partition_make() is not null)::int")).await? > 0 {
        made += 1;
    }
    Ok(made)
}

/// In a transaction of its own: when one table is locked, the other's partitions are made all the same.
async fn make_of(pool: &PgPool, statement: &'static str) -> Result<i32, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK_KEY).execute(&mut *tx).await?;
    let made = sqlx::query_scalar(statement).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(made)
}

/// Drops the partitions whose time is over. Of the outbox only what every relay has published, however old it is.
///
/// Each partition goes in a transaction of its own. Appends are held up for 200 ms at most while an old transaction
/// is waited for, then it is left for later ([`Dropped::busy`]).
///
/// # Errors
/// What the database said; trying again is harmless.
pub async fn drop_old(pool: &PgPool, retention: Retention) -> Result<Dropped, sqlx::Error> {
    let mut dropped = Dropped::default();
    drop_of(pool, "select outbox_partition_drop($1)", retention.outbox, &mut dropped).await?;
    drop_of(pool, "select inbox_partition_drop($1)", retention.inbox, &mut dropped).await?;
    for _ in 0..STRAYS_TRANSACTIONS_MAX {
        let delete = sqlx::query_scalar("select inbox_strays_delete($1, $2)")
            .bind(interval(retention.inbox))
            .bind(STRAYS_PER_TRANSACTION_MAX);
        let gone: i64 = pool::round(delete.fetch_one(pool)).await?;
        dropped.strays += u64::try_from(gone).unwrap_or_default();
        if gone < i64::from(STRAYS_PER_TRANSACTION_MAX) {
            break;
        }
    }
    let kept = "select name from outbox_partitions() where ends_at <= now() - $1 and not published";
    let kept = sqlx::query_scalar(kept).bind(interval(retention.outbox));
    dropped.unpublished = pool::round(kept.fetch_all(pool)).await?;
    Ok(dropped)
}

/// Partition after partition, until none is due or a lock is not to be had.
async fn drop_of(
    pool: &PgPool,
    statement: &'static str,
    keep: Duration,
    dropped: &mut Dropped,
) -> Result<(), sqlx::Error> {
    for _ in 0..DROPS_PER_ROUND_MAX {
        match pool::round(drop_one(pool, statement, keep)).await {
            Ok(Some(name)) => dropped.partitions.push(name),
            Ok(None) => return Ok(()),
            Err(error) if is_busy(&error) => {
                dropped.busy = true;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn drop_one(
    pool: &PgPool,
    statement: &'static str,
    keep: Duration,
) -> Result<Option<String>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("set transaction isolation level read committed").execute(&mut *tx).await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK_KEY).execute(&mut *tx).await?;
    let name = sqlx::query_scalar(statement).bind(interval(keep)).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(name)
}

/// A lock was not to be had in time, or waiting for it would have been a deadlock.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "55P03" || code == "40P01")
}

fn interval(time: Duration) -> PgInterval {
    // In microseconds, not days: a day of a clock change is no other day here.
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(time.as_micros()).unwrap_or(i64::MAX) }
}

/// [`make`] and [`drop_old`] now and every hour until the shutdown; a failed round is logged and tried again.
pub async fn run_with(pool: PgPool, retention: Retention, shutdown: Shutdown) {
    let mut backoff = Backoff::new(RETRY_WAIT_FIRST, RETRY_WAIT_MAX);
    loop {
        let wait = match round(&pool, retention).await {
            Ok(false) => {
                backoff.reset();
                ROUND_INTERVAL
            }
            Ok(true) => backoff.next_wait(),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the upkeep of the partitions failed"
                );
                backoff.next_wait()
            }
        };
        if !shutdown.sleep(wait).await {
            return;
        }
    }
}

/// One round; whether something is left for soon.
async fn round(pool: &PgPool, retention: Retention) -> Result<bool, sqlx::Error> {
    let made = make(pool).await?;
    if made > 0 {
        tracing::info!(made, "day partitions made");
    }
    let dropped = drop_old(pool, retention).await?;
    for partition in &dropped.partitions {
        tracing::info!(partition, "dropped: published and past its time");
    }
    if dropped.strays > 0 {
        tracing::info!(rows = dropped.strays, "message ids of unknown days forgotten");
    }
    if !dropped.unpublished.is_empty() {
        tracing::warn!(
            partitions = dropped.unpublished.join(","),
            "past their time and kept: a relay has not published all of them (relay {:?} or another row of outbox_relay)",
            status::RELAY_DEFAULT
        );
    }
    Ok(dropped.busy)
}

/// [`run_with`] the default retention.
pub async fn run(pool: PgPool, shutdown: Shutdown) {
    run_with(pool, Retention::default(), shutdown).await;
}

/// [`run`] as a task of its own.
pub fn spawn(pool: PgPool, shutdown: Shutdown) -> JoinHandle<()> {
    tokio::spawn(run(pool, shutdown))
}
