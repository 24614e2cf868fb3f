//! Which messages the group listens to, and what each means: a price, or a reply for one of the sagas.

use waybill_events::inventory::{
    ProductAdded, ProductPriceChanged, StockCommitted, StockRejected, StockReleased, StockReserved,
    StockRestocked,
};
use waybill_events::payments::{
    PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentFailed, PaymentRefunded, PaymentVoided,
};
use waybill_events::{Currency, OrderId, Sku};
use waybill_messaging::codec::{self, CodecError, Contract as _};
use waybill_saga::{Input, Outcome};

use crate::domain::pricing::Price;
use crate::sagas::{cancel_order, place_order};

/// `reason` of a declined payment: the provider's own words are payments' business.
pub const PAYMENT_DECLINED: &str = "payment_declined";
/// `reason` of a payment that payments gave up.
pub const PAYMENT_FAILED: &str = "payment_failed";

/// A decoded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A product costs this from the message's `ce_sequence` on.
    Priced {
        /// Which product.
        sku: Sku,
        /// What one piece costs.
        price: Price,
    },
    /// A participant answered.
    Reply {
        /// Whose saga.
        order: OrderId,
        /// Which of its sagas.
        saga: Saga,
        /// What the answer means to it.
        input: Input,
    },
}

/// The saga a reply is for; each command is sent by one of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saga {
    /// `place-order`.
    Place,
    /// `cancel-order`.
    Cancel,
}

impl Saga {
    /// Its name, in its rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Place => place_order::NAME,
            Self::Cancel => cancel_order::NAME,
        }
    }
}

/// Decodes a message by its `ce_type`; `None` when the group has no interest in it.
///
/// # Errors
/// [`CodecError`] when the bytes are not what the type says.
pub fn decode(kind: &str, payload: &[u8]) -> Result<Option<Incoming>, CodecError> {
    Ok(Some(match kind {
        ProductAdded::TYPE => {
            let ProductAdded { sku, unit_price_minor, currency, .. } = codec::decode(payload)?;
            priced(sku, unit_price_minor, currency)
        }
        ProductPriceChanged::TYPE => {
            let ProductPriceChanged { sku, unit_price_minor, currency } = codec::decode(payload)?;
            priced(sku, unit_price_minor, currency)
        }
        _ => return reply(kind, payload),
    }))
}

fn reply(kind: &str, payload: &[u8]) -> Result<Option<Incoming>, CodecError> {
    use cancel_order::{REFUND_PAYMENT, RESTOCK};
    use place_order::{AUTHORIZE_PAYMENT, CAPTURE_PAYMENT, COMMIT_STOCK, RESERVE_STOCK};

    Ok(Some(match kind {
        StockReserved::TYPE => {
            let StockReserved { order_id } = codec::decode(payload)?;
            place(order_id, Input::reply(RESERVE_STOCK, Outcome::Done))
        }
        StockRejected::TYPE => {
            let StockRejected { order_id, reason, .. } = codec::decode(payload)?;
            place(order_id, Input::reply(RESERVE_STOCK, Outcome::Refused { reason }))
        }
        StockReleased::TYPE => {
            let StockReleased { order_id } = codec::decode(payload)?;
            place(order_id, Input::compensated(RESERVE_STOCK, Outcome::Done))
        }
        PaymentAuthorized::TYPE => {
            let PaymentAuthorized { order_id, .. } = codec::decode(payload)?;
            place(order_id, Input::reply(AUTHORIZE_PAYMENT, Outcome::Done))
        }
        PaymentDeclined::TYPE => {
            let PaymentDeclined { order_id, .. } = codec::decode(payload)?;
            let reason = PAYMENT_DECLINED.to_owned();
            place(order_id, Input::reply(AUTHORIZE_PAYMENT, Outcome::Refused { reason }))
        }
        PaymentVoided::TYPE => {
            let PaymentVoided { order_id, .. } = codec::decode(payload)?;
            place(order_id, Input::compensated(AUTHORIZE_PAYMENT, Outcome::Done))
        }
        PaymentCaptured::TYPE => {
            let PaymentCaptured { order_id, .. } = codec::decode(payload)?;
            place(order_id, Input::reply(CAPTURE_PAYMENT, Outcome::Done))
        }
        StockCommitted::TYPE => {
            let StockCommitted { order_id } = codec::decode(payload)?;
            place(order_id, Input::reply(COMMIT_STOCK, Outcome::Done))
        }
        PaymentRefunded::TYPE => {
            let PaymentRefunded { order_id, .. } = codec::decode(payload)?;
            cancel(order_id, Input::reply(REFUND_PAYMENT, Outcome::Done))
        }
        StockRestocked::TYPE => {
            let StockRestocked { order_id } = codec::decode(payload)?;
            cancel(order_id, Input::reply(RESTOCK, Outcome::Done))
        }
        PaymentFailed::TYPE => return Ok(failed(codec::decode(payload)?)),
        _ => return Ok(None),
    }))
}

/// Payments gave an operation up. Which step that was is in the message; a word from a newer payments is passed over
/// with a warning, and the step's deadline decides.
fn failed(PaymentFailed { order_id, operation, reason, .. }: PaymentFailed) -> Option<Incoming> {
    use cancel_order::REFUND_PAYMENT;
    use place_order::{AUTHORIZE_PAYMENT, CAPTURE_PAYMENT};

    let outcome = Outcome::Failed { reason: PAYMENT_FAILED.to_owned() };
    tracing::warn!(%order_id, operation, reason, "payments gave an operation up");
    Some(match operation.as_str() {
        "authorize" => place(order_id, Input::reply(AUTHORIZE_PAYMENT, outcome)),
        "void" => place(order_id, Input::compensated(AUTHORIZE_PAYMENT, outcome)),
        "capture" => place(order_id, Input::reply(CAPTURE_PAYMENT, outcome)),
        "refund" => cancel(order_id, Input::reply(REFUND_PAYMENT, outcome)),
        _ => return None,
    })
}

fn priced(sku: Sku, unit_price_minor: i64, currency: Currency) -> Incoming {
    Incoming::Priced { sku, price: Price { unit_price_minor, currency } }
}

fn place(order: OrderId, input: Input) -> Incoming {
    Incoming::Reply { order, saga: Saga::Place, input }
}

fn cancel(order: OrderId, input: Input) -> Incoming {
    Incoming::Reply { order, saga: Saga::Cancel, input }
}
