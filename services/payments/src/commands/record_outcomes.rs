//! Record outcomes: what calls to the provider have shown, with the replies, in one transaction for all of them.
//!
//! Five round trips whatever their number: begin, lock, save, append, commit.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use thiserror::Error;
use waybill_messaging::codec::CodecError;

use super::reply;
use crate::domain::outcome::{Outcome, apply};
use crate::domain::payment::{Operation, PaymentKey};
use crate::store::payments::{self, Save};

/// What one call has shown.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which payment.
    pub key: PaymentKey,
    /// What the provider was asked.
    pub operation: Operation,
    /// How many times, this one included.
    pub tries: i32,
    /// What came of it.
    pub outcome: Outcome,
}

/// Why outcomes were not recorded. Nothing was: the provider will be asked again.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The database's.
    #[error("the outcomes could not be written")]
    Database(#[from] sqlx::Error),
    /// A fault of this program.
    #[error("a reply could not be encoded")]
    Reply(#[from] CodecError),
}

/// Records outcomes, each at most once: one whose payment waits for something else by now is dropped.
/// Returns how many were news.
///
/// # Errors
/// [`RecordError`]; nothing is written then.
pub async fn record_outcomes(
    pool: &PgPool,
    topic_prefix: &str,
    found: &[Found],
    now: DateTime<Utc>,
) -> Result<usize, RecordError> {
    let orders: BTreeSet<_> = found.iter().map(|found| found.key.order_id).collect();
    let mut tx = pool.begin().await?;
    let kept = payments::payments_lock_in_tx(&mut tx, &orders.into_iter().collect::<Vec<_>>()).await?;
    let mut versions = BTreeMap::new();
    for payment in &kept {
        let version = versions.entry(payment.payment.key.order_id).or_insert(0);
        *version = payment.version.max(*version);
    }
    let mut kept: BTreeMap<PaymentKey, _> = kept.into_iter().map(|kept| (kept.payment.key, kept)).collect();
    let (mut saves, mut messages) = (Vec::new(), Vec::new());
    for Found { key, operation, tries, outcome } in found {
        let transition = kept.get(key).and_then(|kept| apply(&kept.payment, *operation, outcome, *tries));
        // One that is no news leaves room for one that is: an authorization's answer may come together with its void's.
        let Some(transition) = transition else { continue };
        // Removed: a second outcome of the same payment in one batch is no news.
        let Some(kept) = kept.remove(key) else { continue };
        let version = versions.entry(key.order_id).or_insert(0);
        if let Some(reply) = &transition.reply {
            *version += 1;
            messages.push(reply::message(&transition.payment, reply, *version, kept.cause.clone(), now)?);
        }
        let (payment, schedule, version) = (transition.payment, transition.schedule, *version);
        saves.push(Save { payment, version, schedule, cause: None, known: true });
    }
    payments::payments_save_in_tx(&mut tx, &saves).await?;
    waybill_outbox::append::append(&mut tx, topic_prefix, &messages).await?;
    tx.commit().await?;
    Ok(saves.len())
}
