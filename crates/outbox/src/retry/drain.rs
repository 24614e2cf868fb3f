//! Goes on with keys whose head is out of the way: their held messages in order, in bounded transactions, until none is
//! left and the key is unparked. It is told when there is something, and looks by itself: what a crash left, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use uuid::Uuid;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::headers::CE_ID;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::retry::Backoff;

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

/// A group's drainer. Any number of them may run; a key is drained by one at a time.
pub struct Drainer<H> {
    group: Arc<Group<H>>,
    /// When the open dead letters were counted last.
    counted: Option<Instant>,
}

impl<H: Handler> Drainer<H> {
    pub(crate) fn new(group: Arc<Group<H>>) -> Self {
        Self { group, counted: None }
    }

    /// Drains until the shutdown. What Postgres refuses is told and tried again.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(RETRY_WAIT_FIRST, RETRY_WAIT_MAX);
        while !shutdown.is_requested() {
            match self.look().await {
                Ok(0) => {
                    tokio::select! {
                        () = self.group.drain_wanted.notified() => {}
                        _ = shutdown.sleep(LOOK_INTERVAL) => {}
                    }
                }
                Ok(_) => backoff.reset(),
                Err(error) => {
                    let wait = backoff.next_wait();
                    self.tell(&error);
                    shutdown.sleep(wait).await;
                }
            }
        }
    }

    fn tell(&self, error: &BatchError) {
        let cause = error.0.as_ref() as &dyn std::error::Error;
        let group = self.group.handler.group();
        tracing::warn!(group, error = cause, "held messages could not be drained; trying again");
    }

    /// One transaction for each of the draining keys; returns how many there were that nobody else works on.
    async fn look(&mut self) -> Result<usize, BatchError> {
        let this = &*self.group;
        let is_due = self.counted.is_none_or(|last| last.elapsed() >= LETTERS_INTERVAL);
        let keys = async {
            let mut conn = this.pool.acquire().await?;
            this.outcomes.parked(&store::parked_summary(&mut conn, this.handler.group()).await?);
            if is_due {
                this.outcomes.letters_open.set(store::letters_open(&mut conn, this.handler.group()).await?);
            }
            store::draining_keys(&mut conn, this.handler.group(), KEYS_MAX).await
        };
        let keys = keys.await.map_err(|error: sqlx::Error| BatchError::new(error))?;
        if is_due {
            self.counted = Some(Instant::now());
        }
        let mut worked = 0;
        for key in keys {
            worked += usize::from(step(this, &key).await?);
        }
        Ok(worked)
    }
}

/// What is known to fail: which held message, and why.
type Known = Option<(i64, Failure)>;

/// Drains a part of a key; `false` when another member is at it.
async fn step<H: Handler>(this: &Group<H>, key: &[u8]) -> Result<bool, BatchError> {
    let mut known: Known = None;
    let mut limit = MESSAGES_MAX;
    let mut faults: u16 = 0;
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
    tx.commit().await.map_err(|error| Stopped { trouble: Trouble::commit(error), at: last })?;
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
