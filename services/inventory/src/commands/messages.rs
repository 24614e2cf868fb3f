//! Everything inventory says, as drafts: catalogue events keyed by SKU, replies keyed by order.

use waybill_events::inventory::{
    ProductAdded, ProductPriceChanged, StockCommitted, StockReceived, StockRejected, StockReleased,
    StockReserved, StockRestocked,
};
use waybill_events::{OrderId, topic};
use waybill_messaging::codec::{CodecError, Contract};
use waybill_messaging::message::Draft;

use crate::domain::product::Product;
use crate::domain::reservation::Reply;
use crate::domain::stock::{Levels, Pieces};

/// `ce_source` of every message of this service.
pub const SOURCE: &str = "/waybill/inventory";

/// The catalogue has a new product.
///
/// # Errors
/// A fault of this program: see [`Draft::new`].
pub fn product_added(product: &Product) -> Result<Draft, CodecError> {
    about(
        product,
        &ProductAdded {
            sku: product.sku.clone(),
            name: product.name.as_str().to_owned(),
            unit_price_minor: product.price.minor(),
            currency: product.price.currency(),
        },
    )
}

/// The product has another price.
///
/// # Errors
/// A fault of this program: see [`Draft::new`].
pub fn product_price_changed(product: &Product) -> Result<Draft, CodecError> {
    about(
        product,
        &ProductPriceChanged {
            sku: product.sku.clone(),
            unit_price_minor: product.price.minor(),
            currency: product.price.currency(),
        },
    )
}

/// Pieces of the product came in; `levels` are those after the receipt.
///
/// # Errors
/// A fault of this program: see [`Draft::new`].
pub fn stock_received(product: &Product, pieces: Pieces, levels: Levels) -> Result<Draft, CodecError> {
    about(
        product,
        &StockReceived { sku: product.sku.clone(), quantity: pieces.get(), available: levels.available },
    )
}

/// What the order is told.
///
/// # Errors
/// A fault of this program: see [`Draft::new`].
pub fn reply(order_id: OrderId, reply: &Reply) -> Result<Draft, CodecError> {
    match reply {
        Reply::Reserved => told(order_id, &StockReserved { order_id }),
        Reply::Rejected(refusal) => told(
            order_id,
            &StockRejected { order_id, reason: refusal.reason().to_owned(), sku: refusal.sku().cloned() },
        ),
        Reply::Released => told(order_id, &StockReleased { order_id }),
        Reply::Committed => told(order_id, &StockCommitted { order_id }),
        Reply::Restocked => told(order_id, &StockRestocked { order_id }),
    }
}

fn about<T: Contract>(product: &Product, event: &T) -> Result<Draft, CodecError> {
    Draft::new(topic::INVENTORY_EVENTS, product.sku.as_str(), event)
}

fn told<T: Contract>(order_id: OrderId, reply: &T) -> Result<Draft, CodecError> {
    Draft::new(topic::INVENTORY_EVENTS, order_id.to_string(), reply)
}
