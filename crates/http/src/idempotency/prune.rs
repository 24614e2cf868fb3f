//! Keys are forgotten after a day.

use std::time::Duration;

use sqlx::postgres::PgPool;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::round;

/// How long an answer is kept: a client that tries again does so within the day.
pub const KEY_HOURS_MAX: i32 = 24;
/// Rows deleted by one statement: each is a short transaction.
const PRUNE_ROWS_MAX: i64 = 1_000;
/// Statements of one round of pruning; what is left waits for the next round.
const PRUNE_STATEMENTS_MAX: u32 = 500;
/// Pause between two rounds: old keys do no harm, they only take space.
const PRUNE_PAUSE: Duration = Duration::from_secs(600);

/// Deletes keys older than [`KEY_HOURS_MAX`], in short statements; returns how many.
///
/// # Errors
/// The database's; what was deleted until then stays deleted.
pub async fn keys_prune(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let mut pruned = 0;
    for _ in 0..PRUNE_STATEMENTS_MAX {
        let delete = sqlx::query(
            "delete from idempotency_keys where ctid = any (array(
                 select ctid from idempotency_keys where created_at < now() - make_interval(hours => $1) limit $2))",
        )
        .bind(KEY_HOURS_MAX)
        .bind(PRUNE_ROWS_MAX);
        let deleted = round(delete.execute(pool)).await?.rows_affected();
        pruned += deleted;
        if deleted == 0 {
            break;
        }
    }
    Ok(pruned)
}

/// Prunes at the start and every ten minutes until the shutdown; a failure is logged and tried again next time.
pub async fn run_pruning(pool: PgPool, shutdown: Shutdown) {
    loop {
        match keys_prune(&pool).await {
            Ok(0) => {}
            Ok(pruned) => tracing::info!(pruned, "old idempotency keys deleted"),
            Err(error) => tracing::warn!(%error, "old idempotency keys could not be deleted"),
        }
        if !shutdown.sleep(PRUNE_PAUSE).await {
            return;
        }
    }
}
