//! The sweeper: a loop that lets deadlines fire, a bounded batch per transaction.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Acquire as _;
use sqlx::postgres::{PgConnection, PgPool};
use waybill_messaging::message::Message;
use waybill_outbox::append::append;
use waybill_runtime::failpoints;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::{is_transient, round};
use waybill_runtime::retry::Backoff;

use crate::error::SagaError;
use crate::instance::Advanced;
use crate::runner::{Due, Runner};
use crate::store;

/// Pause between two sweeps that found little: deadlines are seconds, a quarter of one more does not matter.
const SWEEP_INTERVAL_MS: u64 = 250;
/// Instances looked at in one transaction: keeps it to a few milliseconds, and its locks with it.
const SWEEP_INSTANCES_MAX: u32 = 200;
/// Most sweeps look only at those whose time came since not long before the last sweep. The index still holds the entries
/// of every saga that has ended since the table was last vacuumed, the oldest first: stepping over them four times a second
/// cost a tenth of what Postgres does for an order, at a thousand orders a second.
const RECENT: Duration = Duration::from_secs(2);
/// Every so many sweeps one looks at all (5 s): it finds those that were locked when their time came, and those written by
/// a transaction that was longer open than their time was ahead.
const SWEEPS_PER_WHOLE: u32 = 20;
/// Back-off bounds when the database is away or a sweep fails.
const FAILURE_BACKOFF_MS_MIN: u64 = 250;
/// As [`FAILURE_BACKOFF_MS_MIN`].
const FAILURE_BACKOFF_MS_MAX: u64 = 10_000;
/// An instance whose deadline can not be taken is left alone this long, so that it does not stop the others.
const POSTPONE_MS: i64 = 60_000;
/// The gauge of stuck sagas is set from the table every so many sweeps (about 10 s).
const MEASURE_SWEEPS: u32 = 40;

/// What the saga's owner does with the instances its deadlines have moved, in the same transaction: the same as after
/// [`Runner::advance`] in a consumer.
pub trait Apply<D>: Send + Sync {
    /// Does the effects: local steps, endings. Pushes what it wants to say to `out`, after the commands.
    ///
    /// # Errors
    /// Any error rolls the transaction back; the batch is then taken instance by instance.
    fn apply(
        &self,
        conn: &mut PgConnection,
        advanced: &[Advanced<D>],
        out: &mut Vec<Message>,
    ) -> impl Future<Output = Result<(), SweepError>> + Send;
}

/// Why a sweep failed. Nothing of it has happened.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A statement failed.
    #[error("sweeping deadlines: a statement failed")]
    Database(#[from] sqlx::Error),
    /// The instances could not be moved.
    #[error("sweeping deadlines: an instance could not be moved")]
    Saga(#[from] SagaError),
    /// The owner could not do the effects.
    #[error("sweeping deadlines: {0}")]
    Fault(String),
}

impl SweepError {
    /// One instance's own trouble, not the database's.
    fn is_fault(&self) -> bool {
        match self {
            Self::Database(source) | Self::Saga(SagaError::Database { source, .. }) => !is_transient(source),
            Self::Saga(SagaError::Conflict { .. }) => false,
            Self::Saga(_) | Self::Fault(_) => true,
        }
    }
}

/// Sweeps until the shutdown is requested. Several may run, in one process or many: instances are locked one by one.
///
/// Start it when the consumers of the replies run: after a long stop it would otherwise send again what has been answered.
pub async fn run<D, A>(pool: PgPool, runner: &Runner<D>, topic_prefix: &str, apply: &A, shutdown: Shutdown)
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync,
    A: Apply<D>,
{
    let mut backoff = Backoff::new(
        Duration::from_millis(FAILURE_BACKOFF_MS_MIN),
        Duration::from_millis(FAILURE_BACKOFF_MS_MAX),
    );
    let mut sweeps: u32 = 0;
    // Whether older ones may be left that the last sweep did not come to.
    let mut left = true;
    while !shutdown.is_requested() {
        let within = (!left && !sweeps.is_multiple_of(SWEEPS_PER_WHOLE)).then_some(RECENT);
        let sweep = sweep_or_singly(&pool, runner, topic_prefix, apply, within);
        let swept = round(failpoints::within("sweep", sweep)).await;
        // Also when nothing fired: those that wait for the relay are pushed on, and others stand behind them.
        left = swept.as_ref().map_or(true, |swept| swept.looked_at >= SWEEP_INSTANCES_MAX as usize);
        let pause = match swept {
            Ok(_) => {
                backoff.reset();
                if left { Duration::ZERO } else { Duration::from_millis(SWEEP_INTERVAL_MS) }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(saga = runner.saga(), error, "deadlines were not swept; trying again");
                backoff.next_wait()
            }
        };
        if sweeps.is_multiple_of(MEASURE_SWEEPS) {
            measure(&pool, runner).await;
        }
        sweeps = sweeps.wrapping_add(1);
        if !shutdown.sleep(pause).await {
            return;
        }
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Instances that were looked at: those whose deadline fired, and those that were pushed on.
    pub looked_at: usize,
    /// Instances whose deadline fired.
    pub fired: usize,
}

/// One sweep: fires what is due, in one transaction; with `within`, only what came due within so long.
///
/// # Errors
/// [`SweepError`]; the transaction is rolled back.
pub async fn sweep<D, A>(
    pool: &PgPool,
    runner: &Runner<D>,
    topic_prefix: &str,
    apply: &A,
    within: Option<Duration>,
) -> Result<Swept, SweepError>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync,
    A: Apply<D>,
{
    let mut tx = pool.begin().await?;
    let Due { inputs: due, looked_at } = runner.sweep_deadlines(&mut tx, SWEEP_INSTANCES_MAX, within).await?;
    let fired = due.len();
    if fired > 0 {
        failpoints::reach("deadlines_taken");
    }
    let mut out = Vec::new();
    let advanced = runner.advance(&mut tx, due, &mut out).await?;
    if fired > 0 {
        apply.apply(&mut tx, &advanced, &mut out).await?;
        failpoints::reach("deadlines_applied");
        append(&mut tx, topic_prefix, &out).await?;
        failpoints::reach("deadlines_said");
    }
    tx.commit().await?;
    if fired > 0 {
        failpoints::reach("deadlines_committed");
    }
    Ok(Swept { looked_at, fired })
}

async fn sweep_or_singly<D, A>(
    pool: &PgPool,
    runner: &Runner<D>,
    topic_prefix: &str,
    apply: &A,
    within: Option<Duration>,
) -> Result<Swept, SweepError>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync,
    A: Apply<D>,
{
    match sweep(pool, runner, topic_prefix, apply, within).await {
        Err(error) if error.is_fault() => {
            tracing::warn!(
                saga = runner.saga(),
                error = &error as &dyn std::error::Error,
                "a batch of deadlines failed; taking them one by one"
            );
            sweep_singly(pool, runner, topic_prefix, apply, within).await
        }
        swept => swept,
    }
}

/// Each due instance under its own savepoint; one that fails is left alone for a while.
async fn sweep_singly<D, A>(
    pool: &PgPool,
    runner: &Runner<D>,
    topic_prefix: &str,
    apply: &A,
    within: Option<Duration>,
) -> Result<Swept, SweepError>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync,
    A: Apply<D>,
{
    let mut tx = pool.begin().await?;
    let Due { inputs: due, looked_at } = runner.sweep_deadlines(&mut tx, SWEEP_INSTANCES_MAX, within).await?;
    let fired = due.len();
    for (key, input, cause) in due {
        let mut savepoint = tx.begin().await?;
        let mut out = Vec::new();
        let story = cause.story();
        let moved = async {
            let advanced = runner.advance(&mut savepoint, vec![(key, input, cause)], &mut out).await?;
            apply.apply(&mut savepoint, &advanced, &mut out).await?;
            append(&mut savepoint, topic_prefix, &out).await?;
            Ok::<(), SweepError>(())
        };
        match moved.await {
            Ok(()) => savepoint.commit().await?,
            Err(error) if error.is_fault() => {
                savepoint.rollback().await?;
                story.tell(|| {
                    tracing::error!(
                        saga = runner.saga(), %key, error = &error as &dyn std::error::Error,
                        "a saga's deadline can not be taken; left alone for a minute"
                    );
                });
                store::instance_postpone(&mut tx, runner.saga(), key, POSTPONE_MS).await?;
            }
            Err(error) => return Err(error),
        }
    }
    tx.commit().await?;
    Ok(Swept { looked_at, fired })
}

async fn measure<D>(pool: &PgPool, runner: &Runner<D>)
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync,
{
    let measured = async {
        let mut conn = pool.acquire().await?;
        Ok::<(), SweepError>(runner.measure(&mut conn).await?)
    };
    if let Err(error) = round(measured).await {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(saga = runner.saga(), error, "stuck sagas could not be counted");
    }
}
