//! What orders says about its orders: events on `orders.events`, keyed by order id.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Currency, CustomerId, OrderId, Sku};

/// A customer placed an order; it is PENDING. Version 1 of every order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// The order.
    pub order_id: OrderId,
    /// Who placed it.
    pub customer_id: CustomerId,
    /// Every amount of this message is in it.
    pub currency: Currency,
    /// Sum over all lines, in minor units.
    pub total_minor: i64,
    /// What was ordered, in the customer's order; each SKU once, at least one line.
    pub lines: Vec<OrderLine>,
    /// When it was placed, to the microsecond; finer digits are dropped. For people.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub placed_at: DateTime<Utc>,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// The product.
    pub sku: Sku,
    /// Pieces ordered, 1 or more.
    pub quantity: i32,
    /// Price of one piece when the order was placed, in minor units of the order's currency.
    pub unit_price_minor: i64,
}

/// Stock is reserved and the payment authorized: the order will be delivered. The pivot of its saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderConfirmed {
    /// The order.
    pub order_id: OrderId,
    /// Who placed it.
    pub customer_id: CustomerId,
    /// The total's currency.
    pub currency: Currency,
    /// The order's total, in minor units.
    pub total_minor: i64,
}

/// The order ended without being confirmed; whatever had been done for it is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRejected {
    /// The order.
    pub order_id: OrderId,
    /// Who placed it.
    pub customer_id: CustomerId,
    /// Machine-readable code, e.g. `insufficient_stock` or `payment_declined`.
    pub reason: String,
}

/// The customer asked to cancel the order; it is CANCELLING until everything done for it is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancellationRequested {
    /// The order.
    pub order_id: OrderId,
    /// Who placed it.
    pub customer_id: CustomerId,
}

/// The order is cancelled; stock and money are back where they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// Who placed it.
    pub customer_id: CustomerId,
    /// Machine-readable code, e.g. `customer_request`.
    pub reason: String,
}
