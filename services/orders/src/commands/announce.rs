//! What an order's changes sound like on `orders.events`: the domain's event becomes the wire's.

use chrono::{DateTime, Utc};
use waybill_events::Published;
use waybill_events::orders::{
    OrderCancellationRequested, OrderCancelled, OrderConfirmed, OrderLine, OrderPlaced, OrderRejected,
};
use waybill_messaging::codec::CodecError;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::{Draft, Message};
use waybill_runtime::clock;

use crate::domain::order::{Order, OrderEvent, PlacedOrder};
use crate::sagas::SOURCE;

/// The first event of an order, version 1.
pub(super) fn placed(placed: &PlacedOrder, cause: Cause, now: DateTime<Utc>) -> Result<Message, CodecError> {
    let order = &placed.order;
    let lines = placed.lines.iter().map(|line| OrderLine {
        sku: line.sku.clone(),
        quantity: line.quantity,
        unit_price_minor: line.unit_price_minor,
    });
    let event = OrderPlaced {
        order_id: order.id,
        customer_id: order.customer_id,
        currency: order.currency,
        total_minor: order.total_minor,
        lines: lines.collect(),
        placed_at: order.created_at,
    };
    message(order, &event, cause, now)
}

/// The event of the change that brought the order to its present version.
pub(super) fn changed(
    order: &Order,
    event: &OrderEvent,
    cause: Cause,
    now: DateTime<Utc>,
) -> Result<Message, CodecError> {
    let (order_id, customer_id) = (order.id, order.customer_id);
    match event {
        OrderEvent::Confirmed => {
            let (currency, total_minor) = (order.currency, order.total_minor);
            message(order, &OrderConfirmed { order_id, customer_id, currency, total_minor }, cause, now)
        }
        OrderEvent::Rejected { reason } => {
            let reason = reason.to_string();
            message(order, &OrderRejected { order_id, customer_id, reason }, cause, now)
        }
        OrderEvent::CancellationRequested => {
            message(order, &OrderCancellationRequested { order_id, customer_id }, cause, now)
        }
        OrderEvent::Cancelled { reason } => {
            let reason = reason.to_string();
            message(order, &OrderCancelled { order_id, customer_id, reason }, cause, now)
        }
    }
}

/// `ce_sequence` is the order's version: each version has one event, so the sequence is 1..n.
fn message<T: Published>(
    order: &Order,
    event: &T,
    cause: Cause,
    now: DateTime<Utc>,
) -> Result<Message, CodecError> {
    let draft = Draft::new(T::TOPIC, order.id.to_string(), event)?;
    Ok(draft.finish(clock::new_id(), now, SOURCE, order.version, cause))
}
