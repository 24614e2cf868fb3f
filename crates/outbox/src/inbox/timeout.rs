//! Tells a message whose statement takes too long from a database that is slow for everybody. After a batch ran into the
//! time limit of a statement, its messages are tried one by one, in order, each in a transaction of its own: the limit is
//! some ten seconds, so that a search in halves would take minutes, and all of them alone take a second or two.
//!
//! | alone it | since the batch was begun | what is done |
//! |---|---|---|
//! | gets through | | it is settled |
//! | times out | another message of the group got through | it is retried by the policy, its key is parked |
//! | times out | none did, and no other was tried | likewise, but the attempt does not count: nobody knows whose fault it is, and whoever comes behind it will tell |
//! | times out | none did, and others time out too | nothing is decided: the same batch comes again |

use sqlx::PgConnection;
use tracing::Instrument as _;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::record::Record;

use super::incoming::{Failure, Incoming, Item};
use super::process::{Tried, found, settle};
use super::span::batch_span;
use super::transaction::judged;
use super::{Group, Handler};
use crate::retry::settle::can_be_retried;

/// Messages that time out alone before anybody got through, until the database is taken to be slow. Each takes as long as the
/// limit, and all of it must end before a consumer gives its batch up.
const SLOW_MAX: usize = 4;

/// Settles messages of which some statement timed out. `got_through` was read when their batch was begun.
pub(super) async fn each_alone<'a, H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    items: Vec<Item<'a, H::Message>>,
    got_through: u64,
    why: &str,
) -> Result<(), BatchError> {
    tracing::warn!(why, messages = items.len(), "a batch timed out, and its messages are tried one by one");
    // Those that timed out, and what lies behind them under their keys.
    let mut slow: Vec<Item<'a, H::Message>> = Vec::new();
    for item in items {
        let waits = item.key().is_some_and(|key| slow.iter().any(|slow| slow.key() == Some(key)));
        let timed_out = if waits { Some(item) } else { alone(this, conn, item).await? };
        slow.extend(timed_out);
        if this.got_through() != got_through {
            settle_slow(this, conn, &mut slow, true).await?;
        } else if timeouts(&slow) == SLOW_MAX {
            break;
        }
    }
    match timeouts(&slow) {
        0 => Ok(()),
        1 => settle_slow(this, conn, &mut slow, false).await,
        _ => Err(slow_for_all(why)),
    }
}

/// Tries a message alone, and gives it back when it times out.
async fn alone<'a, H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    item: Item<'a, H::Message>,
) -> Result<Option<Item<'a, H::Message>>, BatchError> {
    let mut one = Incoming { items: vec![item], skipped: 0 };
    let span = batch_span(this.handler.group(), &one.items);
    async {
        loop {
            match settle(this, conn, &mut one).await? {
                Tried::Committed => return Ok(None),
                Tried::TimedOut { why } => {
                    let mut item = one.items.pop();
                    if let Some(item) = &mut item {
                        item.failure = Some(Failure::timed_out(why, true));
                    }
                    return Ok(item);
                }
                // Buried with the next round.
                failed => found(&mut one.items, failed)?,
            }
        }
    }
    .instrument(span)
    .await
}

fn timeouts<M>(slow: &[Item<'_, M>]) -> usize {
    slow.iter().filter(|item| item.failure.is_some()).count()
}

/// Parks the keys of those that timed out, and holds what lies behind them.
async fn settle_slow<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    slow: &mut Vec<Item<'_, H::Message>>,
    counts: bool,
) -> Result<(), BatchError> {
    if slow.is_empty() {
        return Ok(());
    }
    let mut part = Incoming { items: std::mem::take(slow), skipped: 0 };
    let mut failures = Vec::new();
    for (place, item) in part.items.iter_mut().enumerate() {
        let Some(Failure { why, class, .. }) = item.failure.take() else { continue };
        let key = item.delivery.as_ref().map_or("", |delivery| delivery.envelope.subject.as_str());
        this.brake().note(key, Some(class));
        failures.push((place, verdict(this, item.record, why, counts)?));
    }
    judged(this, &mut part, failures)?;
    match settle(this, conn, &mut part).await? {
        Tried::Committed => Ok(()),
        failed => found(&mut part.items, failed),
    }
}

/// What is said of a message that timed out alone. When nobody else got through meanwhile, it must not become a dead letter
/// for it: it comes again, as often as it takes, or all wait for it.
///
/// # Errors
/// When it has nowhere to come again from.
pub(crate) fn verdict<H: Handler>(
    this: &Group<H>,
    record: &Record,
    why: String,
    counts: bool,
) -> Result<Failure, BatchError> {
    if counts || (this.policy.tiers() > 0 && can_be_retried(this, record)) {
        return Ok(Failure::timed_out(why, counts));
    }
    Err(slow_for_all(&why))
}

fn slow_for_all(why: &str) -> BatchError {
    BatchError::new(format!("no message gets through: {why}"))
}
