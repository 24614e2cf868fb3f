//! What a row of `payments` looks like, and how it becomes a payment.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use thiserror::Error;
use uuid::Uuid;
use waybill_events::{Currency, CustomerId, OrderId};
use waybill_messaging::envelope::Cause;
use waybill_telemetry::trace::TraceContext;

use crate::domain::payment::{Payment, PaymentKey, State, Terms};

/// A payment with what the table keeps beside it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The payment.
    pub payment: Payment,
    /// Replies given so far, over all payments of the order up to this one.
    pub version: i64,
    /// Times the provider was asked for the operation in progress.
    pub tries: i32,
    /// Of the command that waits for the answer.
    pub cause: Cause,
}

/// A row whose columns do not make a payment, though the table's checks passed.
#[derive(Debug, Error)]
#[error("the row of payment {key} in state {state:?} makes no payment")]
struct NoPayment {
    key: PaymentKey,
    state: String,
}

#[derive(FromRow)]
pub(super) struct PaymentRow {
    order_id: Uuid,
    attempt: i32,
    version: i64,
    state: String,
    reason: Option<String>,
    reference: Option<String>,
    customer_id: Option<Uuid>,
    amount_minor: Option<i64>,
    currency: Option<String>,
    payment_token: Option<String>,
    refunded_minor: i64,
    refund_minor: Option<i64>,
    tries: i32,
    correlation_id: Uuid,
    causation_id: Option<Uuid>,
    traceparent: Option<String>,
}

impl TryFrom<PaymentRow> for Kept {
    type Error = sqlx::Error;

    fn try_from(row: PaymentRow) -> Result<Self, sqlx::Error> {
        let key = PaymentKey { order_id: OrderId::from_uuid(row.order_id), attempt: row.attempt };
        let wrong = NoPayment { key, state: row.state.clone() };
        let cause = Cause {
            correlation_id: row.correlation_id,
            causation_id: row.causation_id,
            trace: row.traceparent.as_deref().and_then(TraceContext::parse),
        };
        let (version, tries) = (row.version, row.tries);
        let made = state_of(&row).and_then(|state| Some((terms_of(row)?, state)));
        let (terms, state) = made.ok_or_else(|| sqlx::Error::ColumnDecode {
            index: "state".to_owned(),
            source: Box::new(wrong),
        })?;
        Ok(Self { payment: Payment { key, terms, state }, version, tries, cause })
    }
}

/// All of the terms, or none of them.
#[expect(
    clippy::option_option,
    reason = "the outer one says whether the row is whole, the inner one whether it is a tombstone"
)]
fn terms_of(row: PaymentRow) -> Option<Option<Terms>> {
    match (row.customer_id, row.amount_minor, row.currency, row.payment_token) {
        (Some(customer_id), Some(amount_minor), Some(currency), Some(token)) => {
            let currency: Currency = currency.parse().ok()?;
            let customer_id = CustomerId::from_uuid(customer_id);
            Some(Some(Terms { customer_id, amount_minor, currency, token }))
        }
        (None, None, None, None) => Some(None),
        _ => None,
    }
}

fn state_of(row: &PaymentRow) -> Option<State> {
    let reason = || row.reason.clone();
    let reference = || row.reference.clone();
    Some(match row.state.as_str() {
        "authorizing" => State::Authorizing,
        "authorized" => State::Authorized { reference: reference()? },
        "declined" => State::Declined { reason: reason()? },
        "giving_up" => State::GivingUp { reason: reason()? },
        "failed" => State::Failed { reason: reason()? },
        "voiding" => State::Voiding,
        "voided" => State::Voided,
        "capturing" => State::Capturing { reference: reference()? },
        "captured" => State::Captured { reference: reference()? },
        "refunding" => State::Refunding { reference: reference()?, amount_minor: row.refund_minor? },
        "refunded" => State::Refunded { reference: reference()?, amount_minor: row.refunded_minor },
        _ => return None,
    })
}

/// What a reader of the API sees.
#[derive(Debug, Clone, FromRow)]
pub struct PaymentView {
    /// The order.
    pub order_id: Uuid,
    /// Which payment of the order.
    pub attempt: i32,
    /// The state's name.
    pub state: String,
    /// Why it was declined or given up.
    pub reason: Option<String>,
    /// What is to be paid, in minor units.
    pub amount_minor: Option<i64>,
    /// Of all amounts.
    pub currency: Option<String>,
    /// What was taken.
    pub captured_minor: i64,
    /// What was given back.
    pub refunded_minor: i64,
    /// Replies given so far.
    pub version: i64,
    /// When it was first heard of.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}
