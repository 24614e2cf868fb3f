//! The place-order saga: reserve, authorize, confirm (the pivot), capture, commit; or all the way back.
//!
//! | step | kind | command | reply | going back |
//! |---|---|---|---|---|
//! | reserve-stock | compensatable | ReserveStock | StockReserved, StockRejected | ReleaseStock, StockReleased |
//! | authorize-payment | compensatable | AuthorizePayment | PaymentAuthorized, PaymentDeclined, PaymentFailed | VoidPayment, PaymentVoided |
//! | confirm | pivot | none: the order is CONFIRMED here | | |
//! | capture-payment | retriable | CapturePayment | PaymentCaptured | |
//! | commit-stock | retriable | CommitStock | StockCommitted | |

use serde::{Deserialize, Serialize};
use waybill_events::inventory::{CommitStock, ReleaseStock, ReserveStock, StockLine};
use waybill_events::payments::{AuthorizePayment, CapturePayment, VoidPayment};
use waybill_events::{Currency, CustomerId, OrderId, Published};
use waybill_messaging::codec::CodecError;
use waybill_messaging::message::Draft;
use waybill_saga::{Compensation, Definition, Step};

use super::{PAYMENT_ATTEMPT, Patience};

/// Name of the saga, in its rows and in operators' commands.
pub const NAME: &str = "place-order";
/// Step name.
pub const RESERVE_STOCK: &str = "reserve-stock";
/// Step name.
pub const AUTHORIZE_PAYMENT: &str = "authorize-payment";
/// Step name: the pivot.
pub const CONFIRM: &str = "confirm";
/// Step name.
pub const CAPTURE_PAYMENT: &str = "capture-payment";
/// Step name.
pub const COMMIT_STOCK: &str = "commit-stock";

/// What the saga knows of its order, fixed when it is placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceOrder {
    /// The order; also the saga's key.
    pub order_id: OrderId,
    /// Whose order.
    pub customer_id: CustomerId,
    /// What to reserve.
    pub lines: Vec<StockLine>,
    /// What to authorize, in minor units; more than zero.
    pub total_minor: i64,
    /// Currency of the total.
    pub currency: Currency,
    /// The provider's name for the means of payment.
    pub payment_token: String,
}

/// The saga's steps, version 1.
pub fn definition(patience: Patience) -> Definition<PlaceOrder> {
    let Patience { step_deadline, step_attempts_max, retry_attempts_max, saga_deadline } = patience;
    let step = |name, act| Step::command(name, act, step_deadline, step_attempts_max);
    let back = |act| Compensation::command(act, step_deadline, retry_attempts_max);
    let retried = |name, act| Step::command(name, act, step_deadline, retry_attempts_max);
    Definition::named(NAME, 1)
        .deadline(saga_deadline)
        .compensatable(step(RESERVE_STOCK, reserve_stock), back(release_stock))
        .compensatable(step(AUTHORIZE_PAYMENT, authorize_payment), back(void_payment))
        .pivot(Step::local(CONFIRM))
        .retriable(retried(CAPTURE_PAYMENT, capture_payment))
        .retriable(retried(COMMIT_STOCK, commit_stock))
        .build()
}

type Made = Result<Draft, CodecError>;

fn reserve_stock(saga: &PlaceOrder) -> Made {
    draft(saga, &ReserveStock { order_id: saga.order_id, lines: saga.lines.clone() })
}

fn release_stock(saga: &PlaceOrder) -> Made {
    draft(saga, &ReleaseStock { order_id: saga.order_id })
}

fn authorize_payment(saga: &PlaceOrder) -> Made {
    let command = AuthorizePayment {
        order_id: saga.order_id,
        customer_id: saga.customer_id,
        attempt: PAYMENT_ATTEMPT,
        amount_minor: saga.total_minor,
        currency: saga.currency,
        payment_token: saga.payment_token.clone(),
    };
    draft(saga, &command)
}

fn void_payment(saga: &PlaceOrder) -> Made {
    draft(saga, &VoidPayment { order_id: saga.order_id, attempt: PAYMENT_ATTEMPT })
}

fn capture_payment(saga: &PlaceOrder) -> Made {
    draft(saga, &CapturePayment { order_id: saga.order_id, attempt: PAYMENT_ATTEMPT })
}

fn commit_stock(saga: &PlaceOrder) -> Made {
    draft(saga, &CommitStock { order_id: saga.order_id })
}

fn draft<T: Published>(saga: &PlaceOrder, command: &T) -> Made {
    Draft::new(T::TOPIC, saga.order_id.to_string(), command)
}
