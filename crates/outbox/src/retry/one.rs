//! One record of a parked key in a transaction: its key's head, or the oldest of its held ones.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;

use super::decide::{self, Decision, Judgement, Source, Tried};
use super::settle;
use crate::inbox::call::handle;
use crate::inbox::fault::Trouble;
use crate::inbox::incoming::{Failure, Item};
use crate::inbox::{Group, Handler};

/// What was known of a record before this attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    pub(crate) source: Source,
    pub(crate) hop: i16,
    pub(crate) attempts: u16,
    pub(crate) first_failed_at: Option<DateTime<Utc>>,
}

/// What the handler made of a record: `None` when it is done (or nobody wants it any more).
///
/// # Errors
/// [`Trouble`]; everything of the transaction is rolled back.
pub(crate) async fn attempt<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    record: &Record,
    out: &mut Vec<Message>,
) -> Result<Option<Failure>, Trouble> {
    let item = Item::decode(&this.handler, record).map_err(Trouble::Infrastructure)?;
    let Some(item) = item else { return Ok(None) };
    if let (None, failure) = (&item.delivery, item.failure) {
        return Ok(failure);
    }
    let delivery: Vec<_> = item.delivery.into_iter().collect();
    let verdicts = handle(this, conn, &delivery, out).await?;
    Ok(verdicts.into_iter().find_map(Failure::of))
}

/// The decision about a record that failed; a retry of what can not be retried is a reject.
pub(crate) fn judge<H: Handler>(
    this: &Group<H>,
    record: &Record,
    before: Before,
    failure: &Failure,
) -> (Decision, u16) {
    let attempts = before.attempts.saturating_add(failure.attempts);
    let judgement = match failure.judgement {
        Judgement::Retry if !settle::can_be_retried(this, record) => Judgement::Reject,
        other => other,
    };
    (decide::judge(&this.policy, before.source, Tried { attempts, hop: before.hop }, judgement), attempts)
}

/// Tells the brake how a key fares whose head or held message was settled: an outage that is over is over for it too.
pub(crate) fn note<H: Handler>(this: &Group<H>, key: Option<&[u8]>, failure: Option<&Failure>) {
    let class = failure.filter(|failure| failure.judgement == Judgement::Retry).map(|failure| failure.class);
    this.brake().note(&String::from_utf8_lossy(key.unwrap_or_default()), class);
}

/// After so many beginnings of one record's transaction something is wrong with us, not with it.
pub(crate) const PASSES_MAX: usize = 6;

/// The error for that.
pub(crate) fn too_many_passes() -> BatchError {
    BatchError::new("a record of a parked key could not be settled in several passes; it is tried again")
}
