//! One transaction over messages of a batch: they are taken, delivered in waves, and what became of them is written.

use std::collections::HashMap;

use chrono::Utc;
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};
use waybill_messaging::consumer::BatchError;
use waybill_messaging::message::Message;
use waybill_runtime::failpoints;

use super::call::{handle, say};
use super::fault::Trouble;
use super::incoming::{Failure, Incoming, Item, Plan};
use super::span::log_handled;
use super::store::{self, Parked};
use super::{Delivery, Group, Handler, waves};
use crate::retry::decide::{Decision, Judgement};
use crate::retry::settle::{self, Failed};

/// An open transaction in which messages are taken: nobody else handles them until it ends.
pub(super) struct Taking<'c> {
    pub(super) tx: Transaction<'c, Postgres>,
    /// Which of their keys are parked; those are locked.
    pub(super) parked: HashMap<Vec<u8>, Parked>,
    duplicates: usize,
}

/// Begins, and takes every message; those that were taken before are gone from `incoming`.
pub(super) async fn take<'c, H: Handler>(
    this: &Group<H>,
    conn: &'c mut PgConnection,
    incoming: &mut Incoming<'_, H::Message>,
) -> Result<Taking<'c>, Trouble> {
    let mut tx = conn.begin().await.map_err(Trouble::ours)?;
    let taken =
        store::inbox_take_in_tx(&mut tx, this.handler.group(), incoming.ids(), 0, incoming.keys()).await;
    let taken = taken.map_err(Trouble::ours)?;
    failpoints::reach("batch_taken");
    let duplicates = incoming.keep_fresh(taken.fresh);
    Ok(Taking { tx, parked: taken.parked, duplicates })
}

/// Has the handler make the effects of these items, wave by wave, and notes for the brake how their keys fare.
pub(super) async fn deliver<H: Handler>(
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

/// Remembers what the handler said; an error when it says it of most keys.
pub(super) fn judged<H: Handler>(
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
    this.outcomes.paused_storm.inc();
    let keys = this.policy.brake.keys;
    Err(BatchError::new(format!(
        "most of the last {keys} keys ask to be retried with {class}: paused instead of parking them all; mend what they \
         need"
    )))
}

/// Says what the handler wants to say, writes what was decided about the rest, and commits.
pub(super) async fn finish<H: Handler>(
    this: &Group<H>,
    taking: Taking<'_>,
    incoming: &Incoming<'_, H::Message>,
    plan: &Plan,
    out: &[Message],
) -> Result<(), Trouble> {
    let (mut tx, items) = (taking.tx, &incoming.items);
    failpoints::reach("batch_handled");
    say(this, &mut tx, out).await?;
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
        this.one_got_through();
        this.handler.committed();
    }
    this.outcomes.duplicate.inc_by(taking.duplicates as u64);
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
