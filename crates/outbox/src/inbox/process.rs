//! One batch: all together if it can be; else what is at fault is searched for, in one transaction if it can be, else in
//! halves that are committed one by one.

use sqlx::PgConnection;
use tracing::Instrument as _;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::record::Record;
use waybill_runtime::pool::Checkout;

use super::fault::Trouble;
use super::halving::Halving;
use super::incoming::{Failure, Incoming, Item};
use super::search::{self, Searched};
use super::span::batch_span;
use super::timeout;
use super::transaction::{deliver, finish, judged, take};
use super::{Group, Handler};

/// How often messages are begun again together without what turns out to fail or to be parked, before they are halved:
/// each time more keys are known to fail, and usually all of them the first time.
const PASSES_MAX: usize = 8;

/// What came of messages that were tried together.
pub(super) enum Tried {
    /// Each of them is settled.
    Committed,
    /// Rolled back: one of them is at fault, nobody knows which unless it was alone.
    Failed { class: &'static str, why: String },
    /// Rolled back: a statement ran into its time limit.
    TimedOut { why: String },
    /// Rolled back every time: each time others failed or were parked meanwhile.
    Unsettled,
}

pub(super) async fn batch<H: Handler>(this: &Group<H>, records: &[Record]) -> Result<(), BatchError> {
    let incoming = Incoming::sort(&this.handler, records)?;
    this.outcomes.skipped.inc_by(incoming.skipped as u64);
    if incoming.items.is_empty() {
        return Ok(());
    }
    let span = batch_span(this.handler.group(), &incoming.items);
    async {
        // One for all tries: each begins with one round trip, and what failed is rolled back with the next one's.
        let mut conn = Checkout::of(&this.pool).await.map_err(BatchError::new)?;
        let settled = settle_all(this, &mut conn, incoming).await;
        conn.give_back();
        settled
    }
    .instrument(span)
    .await
}

async fn settle_all<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    mut incoming: Incoming<'_, H::Message>,
) -> Result<(), BatchError> {
    let got_through = this.got_through();
    match settle(this, conn, &mut incoming).await? {
        Tried::Committed => return Ok(()),
        Tried::TimedOut { why } => {
            this.outcomes.redone_batches.inc();
            return timeout::each_alone(this, conn, incoming.items, got_through, &why).await;
        }
        Tried::Failed { class, why } => {
            this.outcomes.redone_batches.inc();
            tracing::warn!(class, why, "a batch failed and is redone in parts, until what fails is alone");
            match search::in_one_transaction(this, conn, &mut incoming).await? {
                Searched::Committed => return Ok(()),
                Searched::TimedOut { why } => {
                    return timeout::each_alone(this, conn, incoming.items, got_through, &why).await;
                }
                Searched::GivenUp { why } => {
                    tracing::warn!(
                        why,
                        "the parts are committed one by one, since one transaction did not do"
                    );
                }
            }
        }
        Tried::Unsettled => this.outcomes.redone_batches.inc(),
    }
    in_halves(this, conn, incoming.items, got_through).await
}

/// Messages that failed together, in ever smaller parts until what is at fault is alone and buried: in order, each part
/// in its own transaction, none begun before the one before it is committed.
async fn in_halves<'a, H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    mut left: Vec<Item<'a, H::Message>>,
    got_through: u64,
) -> Result<(), BatchError> {
    let mut halving = Halving::of(left.len());
    while !left.is_empty() {
        let tried = halving.next(left.len());
        let mut rest = left.split_off(tried);
        let mut part = Incoming { items: left, skipped: 0 };
        let span = batch_span(this.handler.group(), &part.items);
        match settle(this, conn, &mut part).instrument(span).await? {
            Tried::Committed => {
                halving.kept(tried);
                left = rest;
            }
            Tried::TimedOut { why } => {
                part.items.append(&mut rest);
                return timeout::each_alone(this, conn, part.items, got_through, &why).await;
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
pub(super) fn found<M>(items: &mut [Item<'_, M>], failed: Tried) -> Result<(), BatchError> {
    match (items, failed) {
        ([item], Tried::Failed { class, why }) if item.failure.is_none() => {
            item.failure = Some(Failure::at_fault(class, why));
            Ok(())
        }
        (_, Tried::Failed { class, why }) => {
            Err(BatchError::new(format!("a dead letter was not written because of {class}: {why}")))
        }
        (_, Tried::TimedOut { why }) => Err(BatchError::new(why)),
        (_, Tried::Committed | Tried::Unsettled) => {
            Err(BatchError::new("other members parked this key again and again while it was handled"))
        }
    }
}

/// All of these in one transaction, again without those that turn out to fail.
pub(super) async fn settle<H: Handler>(
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
            Err(Trouble::TimedOut { why }) => return Ok(Tried::TimedOut { why }),
        }
    }
    Ok(Tried::Unsettled)
}

/// Every message in one transaction.
async fn together<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    incoming: &mut Incoming<'_, H::Message>,
) -> Result<(), Trouble> {
    let mut taking = take(this, conn, incoming).await?;
    let plan = incoming.plan(&this.policy, &taking.parked);
    let mut out = Vec::new();
    deliver(this, &mut taking.tx, incoming, &plan.deliver, &mut out).await?;
    finish(this, taking, incoming, &plan, &out).await
}
