//! What inventory is told (`inventory.commands`), what it answers, and what its catalogue holds (`inventory.events`).

use serde::{Deserialize, Serialize};

use crate::{Currency, OrderId, Sku};

/// Reserve every line for the order, or none of them. Command; answered by [`StockReserved`] or [`StockRejected`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveStock {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// What to reserve; at least one line.
    pub lines: Vec<StockLine>,
}

/// Pieces of one SKU: each SKU appears in one line only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLine {
    /// The product.
    pub sku: Sku,
    /// Pieces to reserve, 1 or more.
    pub quantity: i32,
}

/// Give the order's reservation back; before any reservation it makes a later [`ReserveStock`] a refusal. Command;
/// answered by [`StockReleased`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStock {
    /// The order; also the key of the record.
    pub order_id: OrderId,
}

/// The order is confirmed: its reserved pieces are shipped. Command, retried until it succeeds; answered by
/// [`StockCommitted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStock {
    /// The order; also the key of the record.
    pub order_id: OrderId,
}

/// Put the shipped pieces of a cancelled order back on the shelf. Command; answered by [`StockRestocked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestockOrder {
    /// The order; also the key of the record.
    pub order_id: OrderId,
}

/// Every line of the order is reserved. Reply to [`ReserveStock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReserved {
    /// The order; also the key of the record.
    pub order_id: OrderId,
}

/// Nothing is reserved for the order. Reply to [`ReserveStock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockRejected {
    /// The order; also the key of the record.
    pub order_id: OrderId,
    /// Machine-readable code, for example `insufficient_stock`, `unknown_sku` or `cancelled`. New codes may appear.
    pub reason: String,
    /// The first SKU that could not be reserved; null when the reason concerns no single one.
    pub sku: Option<Sku>,
}

/// The order holds no reservation any more, and will get none. Reply to [`ReleaseStock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReleased {
    /// The order; also the key of the record.
    pub order_id: OrderId,
}

/// The order's reserved pieces count as shipped. Reply to [`CommitStock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockCommitted {
    /// The order; also the key of the record.
    pub order_id: OrderId,
}

/// The order's shipped pieces are available again. Reply to [`RestockOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockRestocked {
    /// The order; also the key of the record.
    pub order_id: OrderId,
}

/// The catalogue has a new product. Event, version 1 of its SKU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductAdded {
    /// The product; also the key of the record.
    pub sku: Sku,
    /// What people call the product.
    pub name: String,
    /// Price of one piece in minor units of the currency (cents for EUR), zero or more.
    pub unit_price_minor: i64,
    /// ISO 4217 alphabetic code of the price, for example EUR.
    pub currency: Currency,
}

/// The product costs something else for orders placed from now on. Event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductPriceChanged {
    /// The product; also the key of the record.
    pub sku: Sku,
    /// Price of one piece in minor units of the currency (cents for EUR), zero or more.
    pub unit_price_minor: i64,
    /// ISO 4217 alphabetic code of the price, for example EUR.
    pub currency: Currency,
}

/// Pieces of the product came in. Event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReceived {
    /// The product; also the key of the record.
    pub sku: Sku,
    /// Pieces received, 1 or more.
    pub quantity: i32,
    /// Pieces available for new orders after this receipt.
    pub available: i64,
}
