//! Replies as messages on `payments.events`.

use chrono::{DateTime, Utc};
use waybill_events::{Published, payments as wire};
use waybill_messaging::codec::CodecError;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::{Draft, Message};
use waybill_runtime::clock;

use crate::domain::payment::{Payment, Reply, Terms};

/// What this service calls itself in `ce_source`.
const SOURCE: &str = "/waybill/payments";

/// The reply as a message: keyed by the order, `version` as its sequence.
///
/// # Errors
/// [`CodecError`] when a reply does not fit its schema: a fault of this program.
pub(super) fn message(
    payment: &Payment,
    reply: &Reply,
    version: i64,
    cause: Cause,
    now: DateTime<Utc>,
) -> Result<Message, CodecError> {
    Ok(draft(payment, reply)?.finish(clock::new_id(), now, SOURCE, version, cause))
}

fn draft(payment: &Payment, reply: &Reply) -> Result<Draft, CodecError> {
    let (order_id, attempt) = (payment.key.order_id, payment.key.attempt);
    match reply {
        Reply::Authorized => {
            let Terms { amount_minor, currency, .. } = terms(payment)?.clone();
            encoded(payment, &wire::PaymentAuthorized { order_id, attempt, amount_minor, currency })
        }
        Reply::Declined { reason } => {
            encoded(payment, &wire::PaymentDeclined { order_id, attempt, reason: reason.clone() })
        }
        Reply::Voided => encoded(payment, &wire::PaymentVoided { order_id, attempt }),
        Reply::Captured => {
            let Terms { amount_minor, currency, .. } = terms(payment)?.clone();
            encoded(payment, &wire::PaymentCaptured { order_id, attempt, amount_minor, currency })
        }
        Reply::Refunded { amount_minor } => {
            let (amount_minor, currency) = (*amount_minor, terms(payment)?.currency);
            encoded(payment, &wire::PaymentRefunded { order_id, attempt, amount_minor, currency })
        }
        Reply::Failed { operation, reason } => {
            let (operation, reason) = (operation.name().to_owned(), reason.clone());
            encoded(payment, &wire::PaymentFailed { order_id, attempt, operation, reason })
        }
    }
}

fn encoded<T: Published>(payment: &Payment, value: &T) -> Result<Draft, CodecError> {
    Draft::new(T::TOPIC, payment.key.order_id.to_string(), value)
}

/// Only a tombstone has no terms, and a tombstone is never told to be authorized, captured or refunded.
fn terms(payment: &Payment) -> Result<&Terms, CodecError> {
    payment
        .terms
        .as_ref()
        .ok_or(CodecError::NotAFrame { what: "a payment without terms has no amount to tell" })
}
