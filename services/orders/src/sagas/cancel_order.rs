//! The cancel-order saga: what a completed place-order did is taken back. Forward only, every step retried until done.
//!
//! | step | kind | command | reply |
//! |---|---|---|---|
//! | refund-payment | retriable | RefundPayment | PaymentRefunded |
//! | restock | retriable | RestockOrder | StockRestocked |
//!
//! Nothing can refuse it: the customer's cancel was accepted (the order is CANCELLING) before it starts. The refund comes
//! first: should a step be stuck, then rather the goods than the customer's money.

use serde::{Deserialize, Serialize};
use waybill_events::inventory::RestockOrder;
use waybill_events::payments::RefundPayment;
use waybill_events::{OrderId, Published};
use waybill_messaging::codec::CodecError;
use waybill_messaging::message::Draft;
use waybill_saga::{Definition, Step};

use super::place_order::PlaceOrder;
use super::{PAYMENT_ATTEMPT, Patience};

/// Name of the saga, in its rows and in operators' commands.
pub const NAME: &str = "cancel-order";
/// Step name.
pub const REFUND_PAYMENT: &str = "refund-payment";
/// Step name.
pub const RESTOCK: &str = "restock";

/// What the saga knows of its order, fixed when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// The order; also the saga's key.
    pub order_id: OrderId,
    /// What was captured and is given back, in minor units.
    pub total_minor: i64,
}

impl From<&PlaceOrder> for CancelOrder {
    fn from(placed: &PlaceOrder) -> Self {
        Self { order_id: placed.order_id, total_minor: placed.total_minor }
    }
}

/// The saga's steps, version 1.
pub fn definition(patience: Patience) -> Definition<CancelOrder> {
    let step = |name, act| Step::command(name, act, patience.step_deadline, patience.retry_attempts_max);
    Definition::named(NAME, 1)
        .deadline(patience.saga_deadline)
        .without_pivot()
        .retriable(step(REFUND_PAYMENT, refund_payment))
        .retriable(step(RESTOCK, restock))
        .build()
}

fn refund_payment(saga: &CancelOrder) -> Result<Draft, CodecError> {
    let command =
        RefundPayment { order_id: saga.order_id, attempt: PAYMENT_ATTEMPT, amount_minor: saga.total_minor };
    draft(saga, &command)
}

fn restock(saga: &CancelOrder) -> Result<Draft, CodecError> {
    draft(saga, &RestockOrder { order_id: saga.order_id })
}

fn draft<T: Published>(saga: &CancelOrder, command: &T) -> Result<Draft, CodecError> {
    Draft::new(T::TOPIC, saga.order_id.to_string(), command)
}
