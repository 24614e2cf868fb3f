//! What payments is told (`payments.commands`) and what it answers (`payments.events`), keyed by order id.

use serde::{Deserialize, Serialize};

use crate::{Currency, CustomerId, OrderId};

/// Hold the amount on the customer's means of payment. Command; answered by [`PaymentAuthorized`], [`PaymentDeclined`]
/// or [`PaymentFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizePayment {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// The customer who placed the order.
    pub customer_id: CustomerId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
    /// Amount to hold in minor units of the currency, more than zero.
    pub amount_minor: i64,
    /// ISO 4217 alphabetic code, for example EUR. Every amount of this message is in it.
    pub currency: Currency,
    /// The payment provider's name for the means of payment; it is no card data and of no use without the
    /// provider's credentials.
    pub payment_token: String,
}

/// Let the held amount go; before any authorization it makes a later [`AuthorizePayment`] a refusal. Command;
/// answered by [`PaymentVoided`] or [`PaymentFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoidPayment {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
}

/// Take the held amount. Command, retried until it succeeds; answered by [`PaymentCaptured`] or [`PaymentFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturePayment {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
}

/// Give a captured amount back. Command; answered by [`PaymentRefunded`] or [`PaymentFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundPayment {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
    /// Amount to give back in minor units of the payment's currency, at most what was captured.
    pub amount_minor: i64,
}

/// The amount is held. Reply to [`AuthorizePayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAuthorized {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
    /// Amount held in minor units of the currency.
    pub amount_minor: i64,
    /// ISO 4217 alphabetic code, for example EUR. Every amount of this message is in it.
    pub currency: Currency,
}

/// The provider refused to hold the amount; nothing is held. Reply to [`AuthorizePayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentDeclined {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
    /// Machine-readable code, for example `card_declined` or `voided`. New codes may appear.
    pub reason: String,
}

/// Nothing is held for the payment any more, and nothing will be. Reply to [`VoidPayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentVoided {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
}

/// The held amount is taken. Reply to [`CapturePayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentCaptured {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
    /// Amount taken in minor units of the currency.
    pub amount_minor: i64,
    /// ISO 4217 alphabetic code, for example EUR. Every amount of this message is in it.
    pub currency: Currency,
}

/// The amount is given back. Reply to [`RefundPayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRefunded {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
    /// Amount given back in minor units of the currency.
    pub amount_minor: i64,
    /// ISO 4217 alphabetic code, for example EUR. Every amount of this message is in it.
    pub currency: Currency,
}

/// Payments gave up an operation for good: a person has to look. Reply to any payment command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentFailed {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
    /// What was given up: `authorize`, `void`, `capture` or `refund`.
    pub operation: String,
    /// Machine-readable code for why it was given up. New codes may appear.
    pub reason: String,
}
