//! One batch: all together if it can be, else in halves.

use chrono::Utc;
use sqlx::{Connection as _, PgConnection};
use tracing::Instrument as _;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;
use waybill_runtime::failpoints;

use super::call::{handle, say};
use super::fault::Trouble;
use super::halving::Halving;
use super::incoming::{Failure, Incoming, Item};
use super::span::{batch_span, log_handled};
use super::{Delivery, Group, Handler, store, waves};
use crate::retry::decide::{Decision, Judgement};
use crate::retry::settle::{self, Failed};

/// How often a message was tried when it becomes a dead letter by a fault: with others, and alone.
const FAULT_ATTEMPTS: u16 = 2;
/// How often messages are begun again together without what turns out to fail or to be parked, before they are halved:
/// each time more keys are known to fail, and usually all of them the first time.
const PASSES_MAX: usize = 8;

/// What came of messages that were tried together.
enum Tried {
    /// Each of them is settled.
    Committed,
    /// Rolled back: one of them is at fault, nobody knows which unless it was alone.
    Failed { class: &'static str, why: String },
    /// Rolled back every time: each time others failed or were parked meanwhile.
    Unsettled,
}

pub(super) async fn batch<H: Handler>(this: &Group<H>, records: &[Record]) -> Result<(), BatchError> {
    let mut incoming = Incoming::sort(&this.handler, records)?;
    this.outcomes.skipped.inc_by(incoming.skipped as u64);
    if incoming.items.is_empty() {
        return Ok(());
    }
    let span = batch_span(this.handler.group(), &incoming.items);
    async {
        // One for all tries: each begins with one round trip, and what failed is rolled back with the next one's.
        let mut conn = this.pool.acquire().await.map_err(BatchError::new)?;
        match settle(this, &mut conn, &mut incoming).await? {
            Tried::Committed => return Ok(()),
            Tried::Failed { class, why } => {
                tracing::warn!(
                    class,
                    why,
                    "a batch failed and is redone in halves, until what fails is alone"
                );
            }
            Tried::Unsettled => {}
        }
        this.outcomes.redone_batches.inc();
        in_halves(this, &mut conn, incoming.items).await
    }
    .instrument(span)
    .await
}

/// Messages that failed together, in ever smaller parts until what is at fault is alone and buried: in order, each part
/// in its own transaction, none begun before the one before it is committed.
async fn in_halves<'a, H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    mut left: Vec<Item<'a, H::Message>>,
) -> Result<(), BatchError> {
    let mut halving = Halving::of(left.len());
    while !left.is_empty() {
        let tried = halving.next(left.len());
        let mut rest = left.split_off(tried);
        let mut part = Incoming { items: left, skipped: 0 };
        let span = batch_span(this.handler.group(), &part.items);
        match settle(this, conn, &mut part).instrument(span).await? {
            Tried::Committed => {
                halving.committed(tried);
                left = rest;
            }
            failed => {
                // Those that turned out to be duplicates are gone.
                if halving.failed(part.items.len()) {
                    found(&mut part.items, failed)?;
                }
                part.items.append(&mut rest);
                left = part.items;
            }
        }
    }
    Ok(())
}

/// Notes that this message, which was tried alone, is at fault: it is not handled any more, but buried with what is tried
/// next.
fn found<M>(items: &mut [Item<'_, M>], failed: Tried) -> Result<(), BatchError> {
    match (items, failed) {
        ([item], Tried::Failed { class, why }) if item.failure.is_none() => {
            item.failure = Some(Failure::reject(class, why, FAULT_ATTEMPTS));
            Ok(())
        }
        (_, Tried::Failed { class, why }) => {
            Err(BatchError::new(format!("a dead letter was not written because of {class}: {why}")))
        }
        (_, Tried::Committed | Tried::Unsettled) => {
            Err(BatchError::new("other members parked this key again and again while it was handled"))
        }
    }
}

/// All of these in one transaction, again without those that turn out to fail.
async fn settle<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    incoming: &mut Incoming<'_, H::Message>,
) -> Result<Tried, BatchError> {
    for _ in 0..PASSES_MAX {
        match together(this, conn, incoming).await {
            Ok(()) => return Ok(Tried::Committed),
            Err(Trouble::Infrastructure(error)) => return Err(error),
            Err(Trouble::ParkedMeanwhile) => {}
            Err(Trouble::Judged(failures)) => judged(this, incoming, failures)?,
            Err(Trouble::Message { class, why }) => return Ok(Tried::Failed { class, why }),
        }
    }
    Ok(Tried::Unsettled)
}

/// Remembers what the handler said; an error when it says it of most keys.
fn judged<H: Handler>(
    this: &Group<H>,
    incoming: &mut Incoming<'_, H::Message>,
    failures: Vec<(usize, Failure)>,
) -> Result<(), BatchError> {
    for (place, mut failure) in failures {
        let Some(item) = incoming.items.get_mut(place) else { continue };
        if !settle::can_be_retried(this, item.record) {
            failure.judgement = Judgement::Reject;
        }
        item.failure = Some(failure);
    }
    let Some(class) = this.brake().storm() else { return Ok(()) };
    this.outcomes.paused("storm");
    let keys = this.policy.brake.keys;
    Err(BatchError::new(format!(
        "most of the last {keys} keys ask to be retried with {class}: paused instead of parking them all; mend what they \
         need"
    )))
}

/// Every message in one transaction.
async fn together<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    incoming: &mut Incoming<'_, H::Message>,
) -> Result<(), Trouble> {
    let group = this.handler.group();
    let mut tx = conn.begin().await.map_err(Trouble::ours)?;
    let taken = store::inbox_take_in_tx(&mut tx, group, incoming.ids(), 0, incoming.keys());
    let taken = taken.await.map_err(Trouble::ours)?;
    failpoints::reach("batch_taken");
    let duplicates = incoming.keep_fresh(taken.fresh);
    let plan = incoming.plan(&this.policy, &taken.parked);
    let mut out = Vec::new();
    deliver(this, &mut tx, incoming, &plan.deliver, &mut out).await?;
    failpoints::reach("batch_handled");
    say(this, &mut tx, &out).await?;
    let items = &incoming.items;
    let failed: Vec<Failed<'_>> = plan
        .failed
        .iter()
        .filter_map(|(place, decision)| failed_on_main(&items[*place], *decision))
        .collect();
    let told = settle::failed_in_tx(this, &mut tx, &failed, false).await?;
    let held: Vec<_> = plan.hold.iter().map(|place| (items[*place].record, items[*place].id, 0)).collect();
    settle::hold_in_tx(this, &mut tx, &held).await?;
    failpoints::reach("batch_said");
    tx.commit().await.map_err(Trouble::commit)?;
    // Its offsets are not stored yet.
    failpoints::reach("batch_committed");

    if !plan.deliver.is_empty() {
        this.handler.committed();
    }
    this.outcomes.duplicate.inc_by(duplicates as u64);
    this.outcomes.handled.inc_by(plan.deliver.len() as u64);
    this.outcomes.held.inc_by(held.len() as u64);
    plan.deliver
        .iter()
        .filter_map(|place| items[*place].delivery.as_ref())
        .for_each(|d| log_handled(&d.envelope));
    told.tell(this);
    Ok(())
}

fn failed_on_main<'a, M>(item: &'a Item<'_, M>, decision: Decision) -> Option<Failed<'a>> {
    let failure = item.failure.as_ref()?;
    Some(Failed {
        record: item.record,
        id: item.id,
        hop: 0,
        attempts: failure.attempts,
        first_failed_at: failure.at.min(Utc::now()),
        failure,
        decision,
    })
}

/// Has the handler make the effects of these items, wave by wave, and notes for the brake how their keys fare.
async fn deliver<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    incoming: &mut Incoming<'_, H::Message>,
    places: &[usize],
    out: &mut Vec<Message>,
) -> Result<(), Trouble> {
    let items = &mut incoming.items;
    let subjects = places.iter().filter_map(|place| items[*place].delivery.as_ref());
    let numbers = waves::numbers(subjects.map(|delivery| delivery.envelope.subject.as_str()));
    let mut placed: Vec<(usize, usize)> = numbers.into_iter().zip(places.iter().copied()).collect();
    // Stable: inside a wave, arrival order stays.
    placed.sort_by_key(|(wave, _)| *wave);
    for wave in placed.chunk_by(|one, other| one.0 == other.0) {
        let lent: Vec<Delivery<H::Message>> =
            wave.iter().filter_map(|(_, place)| items[*place].delivery.take()).collect();
        let verdicts = handle(this, conn, &lent, out).await;
        for ((_, place), delivery) in wave.iter().zip(lent) {
            items[*place].delivery = Some(delivery);
        }
        let mut failures = Vec::new();
        let mut brake = this.brake();
        for ((_, place), verdict) in wave.iter().zip(verdicts?) {
            let key = items[*place].delivery.as_ref().map_or("", |d| d.envelope.subject.as_str());
            let failure = Failure::of(verdict);
            let asks_again = failure.as_ref().filter(|f| f.judgement == Judgement::Retry);
            brake.note(key, asks_again.map(|failure| failure.class));
            failures.extend(failure.map(|failure| (*place, failure)));
        }
        drop(brake);
        if !failures.is_empty() {
            return Err(Trouble::Judged(failures));
        }
    }
    Ok(())
}
