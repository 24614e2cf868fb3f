//! Ended sagas and their logs are deleted after their time, in small transactions; a live one never is.
//!
//! `saga_horizon` tells up to when: a saga that is missing had ended before it, or never was.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::types::PgInterval;
use waybill_runtime::config::Environment;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::round;
use waybill_runtime::retry::Backoff;

use crate::store;

/// Sagas deleted in one transaction, each with some ten log entries: tens of milliseconds.
const SAGAS_PER_TRANSACTION_MAX: i64 = 500;
/// Transactions of one round: a million sagas an hour.
const TRANSACTIONS_MAX: usize = 2_000;
/// Time between two rounds: ages are days.
const ROUND_INTERVAL: Duration = Duration::from_secs(3_600);
/// First wait after a failed round.
const RETRY_WAIT_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failed round.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(300);
/// Ten years: more is a slip of the pen.
const DAYS_MAX: u32 = 3_650;
/// A quarter: what an ended saga did is asked for that long, and what follows on it may still begin.
const DAYS_DEFAULT: u32 = 90;
const DAY: Duration = Duration::from_secs(86_400);

/// How long an ended saga is kept, from its last change on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention(pub Duration);

impl Default for Retention {
    fn default() -> Self {
        Self(DAYS_DEFAULT * DAY)
    }
}

impl Retention {
    /// `WAYBILL_SAGA_RETENTION_DAYS` (default 90, at least 1).
    pub fn read(env: &mut Environment) -> Self {
        Self(env.parsed_in("WAYBILL_SAGA_RETENTION_DAYS", DAYS_DEFAULT, 1..=DAYS_MAX) * DAY)
    }
}

/// Deletes sagas of every name that ended longer ago than this, with their logs; returns how many. What is more than a
/// million waits for the next call. Stuck sagas have not ended: they are kept however old they are, and with a saga that
/// is kept all others of its key are.
///
/// # Errors
/// What the database said; trying again is harmless.
pub async fn prune(pool: &PgPool, retention: Retention) -> Result<u64, sqlx::Error> {
    let age = PgInterval::try_from(retention.0).map_err(sqlx::Error::Encode)?;
    let cut = round(store::horizon_advance(pool, &age)).await?;
    let mut pruned = 0;
    for _ in 0..TRANSACTIONS_MAX {
        let gone = round(store::ended_delete(pool, cut, SAGAS_PER_TRANSACTION_MAX)).await?;
        pruned += gone.unsigned_abs();
        if gone < SAGAS_PER_TRANSACTION_MAX {
            break;
        }
    }
    Ok(pruned)
}

/// Prunes now and every hour until the shutdown is requested. Several may run: each row is deleted by one of them.
pub async fn run(pool: PgPool, retention: Retention, shutdown: Shutdown) {
    let mut backoff = Backoff::new(RETRY_WAIT_FIRST, RETRY_WAIT_MAX);
    while !shutdown.is_requested() {
        let pause = match prune(&pool, retention).await {
            Ok(pruned) => {
                if pruned > 0 {
                    tracing::info!(pruned, "ended sagas past their time were deleted");
                }
                backoff.reset();
                ROUND_INTERVAL
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "ended sagas were not deleted; trying again");
                backoff.next_wait()
            }
        };
        if !shutdown.sleep(pause).await {
            return;
        }
    }
}
