//! Goes on with keys whose head is out of the way: their held messages in order, in bounded transactions, until none is
//! left and the key is unparked. It is told when there is something, and looks by itself: what a crash left, too.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::Utc;
use prometheus::IntGaugeVec;
use uuid::Uuid;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::headers::CE_ID;
use waybill_runtime::failpoints;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::round;
use waybill_runtime::retry::Backoff;
use waybill_telemetry::metrics::int_gauge_vec;

use super::decide::{self, Source};
use super::heads::failed;
use super::one::{self, Before, PASSES_MAX};
use super::settle;
use super::store::{self, Held};
use crate::inbox::call::say;
use crate::inbox::fault::Trouble;
use crate::inbox::incoming::Failure;
use crate::inbox::{Group, Handler};

/// How often it looks without being told: what another process's end or an operator left waits this long.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Keys of one look; each gets one transaction before the next look, so that a long one does not hold up the others.
const KEYS_MAX: i64 = 64;
/// Held messages of one transaction: the key's other messages wait for its lock meanwhile, and with them a batch.
const MESSAGES_MAX: i64 = 20;
/// How often the group's open dead letters are counted for the metric: an alert needs no more.
const LETTERS_INTERVAL: Duration = Duration::from_secs(5);
/// First wait after a failure.
const RETRY_WAIT_FIRST: Duration = Duration::from_millis(100);
/// Longest wait after a failure.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// A key whose draining failed is left alone for so many times as long as the failing took: others get most of the time.
const PUT_OFF_TIMES: u32 = 4;
/// And at least so long.
const PUT_OFF_MIN: Duration = Duration::from_secs(1);
/// Keys that are left alone at most; with more of them it is no matter of keys.
const PUT_OFF_KEYS_MAX: usize = 1_000;
/// How long one key's transaction may take, its passes together: as long as a consumer gives a batch. A database that hangs, its
/// connections open, answers nothing and ends nothing.
const STEP_TIME_MAX: Duration = Duration::from_secs(90);
/// A head that was due longer ago has not just waited behind others: it is lost, or nobody reads its topic.
const OVERDUE_AFTER: Duration = Duration::from_secs(300);

static OVERDUE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Parked keys whose head was due more than five minutes ago and has no verdict, by the database's clock.";
    int_gauge_vec("retry_overdue_keys", help, &["group"])
});

/// A group's drainer. Any number of them may run; a key is drained by one at a time. It also tells the group what time it
/// is at the database.
pub struct Drainer<H> {
    group: Arc<Group<H>>,
    /// Keys whose last try failed, and until when they are left alone.
    put_off: HashMap<Vec<u8>, Instant>,
    /// When the open dead letters were counted last.
    counted: Option<Instant>,
}

impl<H: Handler> Drainer<H> {
    pub(crate) fn new(group: Arc<Group<H>>) -> Self {
        Self { group, put_off: HashMap::new(), counted: None }
    }

    /// Drains until the shutdown. What Postgres refuses is told and tried again.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(RETRY_WAIT_FIRST, RETRY_WAIT_MAX);
        while !shutdown.is_requested() {
            let Looked { worked, failed } = self.look(&shutdown).await;
            failed.iter().for_each(|error| self.tell(error));
            match (worked, failed) {
                (0, None) => {
                    tokio::select! {
                        () = self.group.drain_wanted.notified() => {}
                        _ = shutdown.sleep(LOOK_INTERVAL) => {}
                    }
                }
                (0, Some(_)) => {
                    shutdown.sleep(backoff.next_wait()).await;
                }
                // What failed is left alone for a while.
                _ => backoff.reset(),
            }
        }
    }

    fn tell(&self, error: &BatchError) {
        let cause = error.0.as_ref() as &dyn std::error::Error;
        let group = self.group.handler.group();
        tracing::warn!(group, error = cause, "held messages could not be drained; trying again");
    }

    /// One transaction for each of the draining keys, whatever becomes of the others.
    async fn look(&mut self, shutdown: &Shutdown) -> Looked {
        let mut looked = Looked::default();
        let keys = match round(self.keys()).await {
            Ok(keys) => keys,
            Err(error) => return Looked { failed: Some(BatchError::new(error)), ..looked },
        };
        for key in keys {
            if shutdown.is_requested() {
                break;
            }
            let began = Instant::now();
            match in_time(step(&self.group, &key)).await {
                Ok(worked) => looked.worked += usize::from(worked),
                Err(error) => {
                    let left_alone = (began.elapsed() * PUT_OFF_TIMES).max(PUT_OFF_MIN);
                    self.put_off.insert(key, Instant::now() + left_alone);
                    let is_everybodys = is_away(&error) || self.put_off.len() > PUT_OFF_KEYS_MAX;
                    looked.failed.get_or_insert(error);
                    if is_everybodys {
                        break;
                    }
                }
            }
        }
        looked
    }

    /// The draining keys whose turn has come; and what there is to tell of the group on the way.
    async fn keys(&mut self) -> Result<Vec<Vec<u8>>, sqlx::Error> {
        let this = &*self.group;
        let group = this.handler.group();
        let mut conn = this.pool.acquire().await?;
        let (time, overdue) = store::keys_overdue(&mut conn, group, OVERDUE_AFTER).await?;
        this.clock.heard(time);
        OVERDUE.with_label_values(&[group]).set(overdue);
        this.outcomes.parked(&store::parked_summary(&mut conn, group).await?);
        if self.counted.is_none_or(|last| last.elapsed() >= LETTERS_INTERVAL) {
            this.outcomes.letters_open.set(store::letters_open(&mut conn, group).await?);
            self.counted = Some(Instant::now());
        }
        let now = Instant::now();
        self.put_off.retain(|_, until| *until > now);
        let without: Vec<Vec<u8>> = self.put_off.keys().cloned().collect();
        store::draining_keys(&mut conn, group, &without, KEYS_MAX).await
    }
}

/// What one look came to.
#[derive(Default)]
struct Looked {
    /// Keys that were worked on, and that nobody else was at.
    worked: usize,
    /// The first failure.
    failed: Option<BatchError>,
}

/// Whether the database itself is away, so that every key would fail alike.
fn is_away(error: &BatchError) -> bool {
    error.0.downcast_ref::<sqlx::Error>().is_some_and(|error| {
        waybill_runtime::pool::is_transient(error) && !matches!(error, sqlx::Error::Database(_))
    })
}

/// Work with the database that is given up past [`STEP_TIME_MAX`].
async fn in_time<T>(work: impl Future<Output = Result<T, BatchError>>) -> Result<T, BatchError> {
    let timed_out = |_| Err(BatchError::new(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
    tokio::time::timeout(STEP_TIME_MAX, work).await.unwrap_or_else(timed_out)
}

/// What is known to fail: which held message, and why.
type Known = Option<(i64, Failure)>;

/// Drains a part of a key; `false` when another member is at it.
async fn step<H: Handler>(this: &Group<H>, key: &[u8]) -> Result<bool, BatchError> {
    let mut known: Known = None;
    let mut limit = MESSAGES_MAX;
    let mut faults: u16 = 0;
    let got_through = this.got_through();
    for _ in 0..PASSES_MAX {
        match pass(this, key, limit, &known).await {
            Ok(worked) => return Ok(worked),
            Err(Stopped { trouble: Trouble::Infrastructure(error), .. }) => return Err(error),
            Err(Stopped { trouble: Trouble::ParkedMeanwhile, .. }) => {}
            Err(Stopped { trouble: Trouble::Judged(failures), at }) => {
                known = at.zip(failures.into_iter().next().map(|(_, failure)| failure));
            }
            // Alone, and once more: then it is this one's fault, and nobody's in the way of whom it was.
            Err(Stopped { trouble: Trouble::Message { class, why }, at }) => {
                faults += 1;
                if limit == 1 && faults > 1 {
                    known = at.map(|at| (at, Failure::reject(class, why, 1)));
                }
                limit = 1;
            }
            // One call of the handler is one message's. While nobody else gets through, the key waits as it is.
            Err(Stopped { trouble: Trouble::TimedOut { why }, at }) => {
                if this.got_through() == got_through {
                    return Err(BatchError::new(why));
                }
                known = at.map(|at| (at, Failure::timed_out(why, true)));
            }
        }
    }
    Err(one::too_many_passes())
}

/// A transaction that was rolled back, and the held message it stopped at, when it is known.
struct Stopped {
    trouble: Trouble,
    at: Option<i64>,
}

fn nowhere(trouble: Trouble) -> Stopped {
    Stopped { trouble, at: None }
}

async fn pass<H: Handler>(this: &Group<H>, key: &[u8], limit: i64, known: &Known) -> Result<bool, Stopped> {
    let ours = |error| nowhere(Trouble::ours(error));
    let group = this.handler.group();
    let mut tx = this.pool.begin().await.map_err(ours)?;
    if !store::draining_lock_in_tx(&mut tx, group, key).await.map_err(ours)? {
        return Ok(false);
    }
    let held = store::held_first_in_tx(&mut tx, group, key, limit).await.map_err(ours)?;
    let (mut out, mut handled, mut last) = (Vec::new(), 0, None);
    let mut failing = None;
    for one in &held {
        last = Some(one.id);
        if let Some((_, failure)) = known.as_ref().filter(|(id, _)| *id == one.id) {
            failing = Some((one, failure));
            break;
        }
        let stopped = |trouble| Stopped { trouble, at: Some(one.id) };
        if let Some(failure) = one::attempt(this, &mut tx, &one.record, &mut out).await.map_err(stopped)? {
            return Err(stopped(Trouble::Judged(vec![(0, failure)])));
        }
        handled += 1;
    }
    say(this, &mut tx, &out).await.map_err(|trouble| Stopped { trouble, at: last })?;
    let left = match last {
        Some(last) => store::held_delete_in_tx(&mut tx, group, key, last).await.map_err(ours)?,
        None => 0,
    };
    let failed: Vec<_> = failing.into_iter().map(|(one, failure)| failed_held(this, one, failure)).collect();
    let told = settle::failed_in_tx(this, &mut tx, &failed, true).await.map_err(nowhere)?;
    let goes_on = failed.first().is_none_or(|f| f.decision.key == Some(super::KeyState::Draining));
    if goes_on && decide::drained(left).is_none() {
        store::parked_delete_in_tx(&mut tx, group, key).await.map_err(ours)?;
    }
    if !held.is_empty() {
        failpoints::reach("held_handled");
    }
    tx.commit().await.map_err(|error| Stopped { trouble: Trouble::commit(error), at: last })?;
    if !held.is_empty() {
        failpoints::reach("held_committed");
    }
    match failed.first() {
        Some(failed) => one::note(this, Some(key), Some(failed.failure)),
        None if handled > 0 => one::note(this, Some(key), None),
        None => {}
    }
    if handled > 0 {
        this.one_got_through();
    }
    this.outcomes.handled.inc_by(handled);
    told.tell(this);
    Ok(true)
}

fn failed_held<'a, H: Handler>(this: &Group<H>, held: &'a Held, failure: &'a Failure) -> settle::Failed<'a> {
    let id: Option<Uuid> = held.record.header(CE_ID).and_then(|id| id.parse().ok());
    let before =
        Before { source: Source::Held, hop: held.hop, attempts: 0, first_failed_at: Some(Utc::now()) };
    failed(this, &held.record, id, before, failure)
}
