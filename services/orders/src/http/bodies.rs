//! JSON as it is on the wire, and its way from the domain's types.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::order::{PlacedOrder, Status};

/// A new order. Prices are not in it: they come from the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrderBody {
    /// What is ordered, each SKU in one line only.
    #[schema(min_items = 1, max_items = 100)]
    pub lines: Vec<PlaceOrderLine>,
    /// ISO 4217 code; the currency of every product ordered.
    #[schema(example = "EUR", min_length = 3, max_length = 3)]
    pub currency: String,
    /// The payment provider's name for the means of payment; not a card number.
    #[schema(example = "tok_approve", pattern = "^[A-Za-z0-9_]{1,64}$")]
    pub payment_token: String,
}

/// One line of a new order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrderLine {
    /// Stock keeping unit.
    #[schema(example = "TEA-GREEN-100", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub sku: String,
    /// Pieces.
    #[schema(example = 2, minimum = 1, maximum = 10_000)]
    pub quantity: i64,
}

/// An order as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderBody {
    /// The order.
    pub id: Uuid,
    /// PENDING until the saga has decided; then CONFIRMED or REJECTED. CANCELLING and CANCELLED after a cancel.
    pub status: OrderStatus,
    /// Machine-readable reason of REJECTED, CANCELLING and CANCELLED; else null. New codes may appear.
    #[schema(example = "insufficient_stock")]
    pub reason: Option<String>,
    /// ISO 4217 code of every amount.
    #[schema(example = "EUR")]
    pub currency: String,
    /// Sum of quantity times unit price, in minor units.
    #[schema(example = 1798)]
    pub total_minor: i64,
    /// In the order they were sent.
    pub lines: Vec<OrderLine>,
    /// How often the order has changed, from 1; `ce_sequence` of its last event.
    #[schema(example = 1)]
    pub version: i64,
    /// When it was placed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: String,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: String,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Accepted; the saga is at work.
    Pending,
    /// Stock is reserved and the payment authorized: the order will be delivered.
    Confirmed,
    /// It will not be delivered, and nothing is owed.
    Rejected,
    /// A cancel was accepted; stock and money are on their way back.
    Cancelling,
    /// Stock and money are back.
    Cancelled,
}

impl From<Status> for OrderStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Confirmed => Self::Confirmed,
            Status::Rejected => Self::Rejected,
            Status::Cancelling => Self::Cancelling,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderLine {
    /// Stock keeping unit.
    #[schema(example = "TEA-GREEN-100")]
    pub sku: String,
    /// Pieces.
    #[schema(example = 2)]
    pub quantity: i32,
    /// Price of one piece when the order was placed, in minor units.
    #[schema(example = 899)]
    pub unit_price_minor: i64,
}

impl From<&PlacedOrder> for OrderBody {
    fn from(PlacedOrder { order, lines }: &PlacedOrder) -> Self {
        let lines = lines.iter().map(|line| OrderLine {
            sku: line.sku.to_string(),
            quantity: line.quantity,
            unit_price_minor: line.unit_price_minor,
        });
        Self {
            id: order.id.as_uuid(),
            status: order.state.status().into(),
            reason: order.state.reason().map(ToString::to_string),
            currency: order.currency.to_string(),
            total_minor: order.total_minor,
            lines: lines.collect(),
            version: order.version,
            created_at: time(order.created_at),
            updated_at: time(order.updated_at),
        }
    }
}

/// RFC 3339, always to the microsecond, so that texts of equal length compare like the times they tell.
fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
