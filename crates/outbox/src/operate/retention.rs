//! Settled dead letters, ended replays and the audit are forgotten after a long time. What is open never is, nor that a saga was
//! abandoned: its order stays, and nobody could tell any more why its books are not like those of others.

use std::time::Duration;

use sqlx::PgPool;
use waybill_runtime::config::Environment;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::round;

/// Kept unless told otherwise: two years, so that last year's incident can be read beside this one's.
const KEPT_DAYS: u32 = 730;
/// At least: the record of a forgotten letter would be another letter if it was read again, and topics keep 30 days.
const KEPT_DAYS_MIN: u32 = 60;
/// Ten years: more is a slip of the pen.
const KEPT_DAYS_MAX: u32 = 3_650;
const DAY: Duration = Duration::from_secs(86_400);
/// Rows of one statement: each is a transaction of some tens of milliseconds, payloads of a megabyte included.
const ROWS_MAX: i64 = 500;
/// Statements of one kind and round; the next round goes on.
const STATEMENTS_MAX: u32 = 500;
/// Between two rounds: nothing waits for it.
const ROUND_INTERVAL: Duration = Duration::from_secs(3_600);

/// What is forgotten, each in small parts. Items before their replay: one of 100,000 is not one transaction.
const FORGET: [&str; 4] = [
    "delete from dead_letters where id = any (array(
         select id from dead_letters
         where state in ('resolved', 'discarded') and last_failed_at < now() - make_interval(secs => $1) limit $2))",
    "delete from replay_items where (replay_id, number) in (
         select i.replay_id, i.number from replays r join replay_items i on i.replay_id = r.id
         where r.state in ('finished', 'cancelled') and r.updated_at < now() - make_interval(secs => $1) limit $2)",
    "delete from replays r where r.id = any (array(
         select id from replays
         where state in ('finished', 'cancelled') and updated_at < now() - make_interval(secs => $1) limit $2))
     and not exists (select from replay_items i where i.replay_id = r.id)",
    "delete from operator_audit where id = any (array(
         select id from operator_audit
         where at < now() - make_interval(secs => $1) and action <> 'sagas.abandon' limit $2))",
];

/// Reads `WAYBILL_OPERATE_RETENTION_DAYS` (default 730, at least 60).
pub fn read(env: &mut Environment) -> Duration {
    env.parsed_in("WAYBILL_OPERATE_RETENTION_DAYS", KEPT_DAYS, KEPT_DAYS_MIN..=KEPT_DAYS_MAX) * DAY
}

/// Forgets what was settled longer than `keep` ago (a letter: failed last), in short transactions; returns how many rows.
///
/// # Errors
/// The database's; what was forgotten until then stays so.
pub async fn forget(pool: &PgPool, keep: Duration) -> Result<u64, sqlx::Error> {
    let mut forgotten = 0;
    for statement in FORGET {
        for _ in 0..STATEMENTS_MAX {
            let forget = sqlx::query(statement).bind(keep.as_secs_f64()).bind(ROWS_MAX);
            let gone = round(forget.execute(pool)).await?;
            forgotten += gone.rows_affected();
            if gone.rows_affected() == 0 {
                break;
            }
        }
    }
    Ok(forgotten)
}

/// Forgets at the start and every hour until the shutdown; a failure is logged and tried again next time.
pub async fn run(pool: PgPool, keep: Duration, shutdown: Shutdown) {
    loop {
        match forget(&pool, keep).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "settled dead letters, ended replays and old audit forgotten"),
            Err(error) => tracing::warn!(%error, "what operators settled long ago could not be forgotten"),
        }
        if !shutdown.sleep(ROUND_INTERVAL).await {
            return;
        }
    }
}
