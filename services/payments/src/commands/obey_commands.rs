//! Obey commands: decide what each means for its payment, save them, answer the orders. Inside the consumer's transaction.
//!
//! Two statements a call, whatever their number: lock, save.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Message;
use waybill_outbox::inbox::HandlerError;
use waybill_runtime::planted::{Bug, is_planted};

use super::reply;
use crate::domain::obey::{Breach, PaymentCommand, obey};
use crate::domain::payment::PaymentKey;
use crate::store::payments::{self, Kept, Save};

/// One command as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Which payment.
    pub key: PaymentKey,
    /// What is asked of it.
    pub command: PaymentCommand,
    /// For the reply.
    pub cause: Cause,
}

/// Obeys commands of different orders. Answers, for each, whether it was obeyed; replies go to `out`.
///
/// # Errors
/// The database's, or a reply that can not be encoded.
pub async fn obey_commands(
    conn: &mut PgConnection,
    asked: &[Asked],
    now: DateTime<Utc>,
    out: &mut Vec<Message>,
) -> Result<Vec<Result<(), Breach>>, HandlerError> {
    let orders: Vec<_> = asked.iter().map(|asked| asked.key.order_id).collect();
    let kept = payments::payments_lock_in_tx(conn, &orders).await?;
    // Versions count over all payments of an order: its replies are one sequence on one topic.
    let mut versions = HashMap::new();
    for payment in &kept {
        let version = versions.entry(payment.payment.key.order_id).or_insert(0);
        *version = payment.version.max(*version);
    }
    let kept: HashMap<PaymentKey, Kept> = kept.into_iter().map(|kept| (kept.payment.key, kept)).collect();
    let (mut saves, mut verdicts) = (Vec::new(), Vec::new());
    for Asked { key, command, cause } in asked {
        let key = if is_planted(Bug::NaturalKeyMissing) { &unnatural(*key, command, &kept) } else { key };
        let known = kept.get(key);
        let transition = match obey(*key, known.map(|kept| &kept.payment), command) {
            Ok(transition) => transition,
            Err(breach) => {
                verdicts.push(Err(breach));
                continue;
            }
        };
        let mut version = versions.get(&key.order_id).copied().unwrap_or(0);
        if let Some(reply) = &transition.reply {
            version += 1;
            out.push(reply::message(&transition.payment, reply, version, cause.clone(), now)?);
        }
        verdicts.push(Ok(()));
        let (payment, schedule) = (transition.payment, transition.schedule);
        saves.push(Save { payment, version, schedule, cause: Some(cause.clone()), known: known.is_some() });
    }
    payments::payments_save_in_tx(conn, &saves).await?;
    Ok(verdicts)
}

/// The planted bug: an authorization that was asked for before is taken for another payment.
fn unnatural(key: PaymentKey, command: &PaymentCommand, kept: &HashMap<PaymentKey, Kept>) -> PaymentKey {
    let again = matches!(command, PaymentCommand::Authorize(_)) && kept.contains_key(&key);
    let others = kept.keys().filter(|other| other.order_id == key.order_id);
    let last = others.map(|other| other.attempt).max().unwrap_or_default();
    if again { PaymentKey { attempt: last + 1, ..key } } else { key }
}
