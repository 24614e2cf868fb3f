//! At least one value of every message: the usual one, and the edges where a type has some.

use std::fmt::Debug;

use chrono::DateTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

use waybill_events::inventory::{
    CommitStock, ProductAdded, ProductPriceChanged, ReleaseStock, ReserveStock, RestockOrder, StockCommitted,
    StockLine, StockReceived, StockRejected, StockReleased, StockReserved, StockRestocked,
};
use waybill_events::orders::{
    OrderCancellationRequested, OrderCancelled, OrderConfirmed, OrderLine, OrderPlaced, OrderRejected,
};
use waybill_events::payments::{
    AuthorizePayment, CapturePayment, PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentFailed,
    PaymentRefunded, PaymentVoided, RefundPayment, VoidPayment,
};
use waybill_events::{CustomerId, OrderId, Published};

/// Something done with every message type, each with its samples.
pub(crate) trait Visit {
    /// Called once a type; `cases` are named values of it, at least one.
    fn visit<T: Published + Serialize + DeserializeOwned + Debug + PartialEq>(&mut self, cases: &[(&str, T)]);
}

/// Shows every message to `visit`, in the order of their ids.
pub(crate) fn visit_all(visit: &mut impl Visit) {
    orders(visit);
    inventory_replies(visit);
    catalogue(visit);
    payments(visit);
}

fn order_id() -> OrderId {
    "018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e0f".parse().unwrap()
}

fn customer_id() -> CustomerId {
    "018f4e5c-0000-7000-8000-0000000000c1".parse().unwrap()
}

fn order_line(sku: &str, quantity: i32, unit_price_minor: i64) -> OrderLine {
    OrderLine { sku: sku.parse().unwrap(), quantity, unit_price_minor }
}

fn orders(visit: &mut impl Visit) {
    let (order_id, customer_id) = (order_id(), customer_id());
    let currency = "EUR".parse().unwrap();
    let usual = OrderPlaced {
        order_id,
        customer_id,
        currency,
        total_minor: 2 * 1_250 + 499,
        lines: vec![order_line("TEA-GREEN-100", 2, 1_250), order_line("CUP_WHITE.1", 1, 499)],
        placed_at: DateTime::from_timestamp_micros(1_767_225_600_123_456).unwrap(),
    };
    let largest = OrderPlaced {
        total_minor: i64::MAX,
        lines: vec![order_line(&"x".repeat(64), i32::MAX, i64::MAX)],
        placed_at: DateTime::from_timestamp_micros(0).unwrap(),
        ..usual.clone()
    };
    visit.visit(&[("usual", usual), ("largest numbers", largest)]);
    visit.visit(&[("usual", OrderConfirmed { order_id, customer_id, currency, total_minor: 2_999 })]);
    let reason = "insufficient_stock".to_owned();
    visit.visit(&[("usual", OrderRejected { order_id, customer_id, reason })]);
    visit.visit(&[("usual", OrderCancellationRequested { order_id, customer_id })]);
    let reason = "customer_request".to_owned();
    visit.visit(&[("usual", OrderCancelled { order_id, customer_id, reason })]);
}

fn inventory_replies(visit: &mut impl Visit) {
    let order_id = order_id();
    let line = |sku: &str, quantity| StockLine { sku: sku.parse().unwrap(), quantity };
    let lines = vec![line("TEA-GREEN-100", 2), line("CUP_WHITE.1", 1)];
    visit.visit(&[("usual", ReserveStock { order_id, lines })]);
    visit.visit(&[("usual", ReleaseStock { order_id })]);
    visit.visit(&[("usual", CommitStock { order_id })]);
    visit.visit(&[("usual", RestockOrder { order_id })]);
    visit.visit(&[("usual", StockReserved { order_id })]);
    let short = StockRejected {
        order_id,
        reason: "insufficient_stock".to_owned(),
        sku: Some("TEA-GREEN-100".parse().unwrap()),
    };
    let released = StockRejected { order_id, reason: "released".to_owned(), sku: None };
    visit.visit(&[("usual", short), ("no single sku", released)]);
    visit.visit(&[("usual", StockReleased { order_id })]);
    visit.visit(&[("usual", StockCommitted { order_id })]);
    visit.visit(&[("usual", StockRestocked { order_id })]);
}

fn catalogue(visit: &mut impl Visit) {
    let sku: waybill_events::Sku = "TEA-GREEN-100".parse().unwrap();
    let currency = "EUR".parse().unwrap();
    let added = |name: &str, unit_price_minor| ProductAdded {
        sku: sku.clone(),
        name: name.to_owned(),
        unit_price_minor,
        currency,
    };
    visit.visit(&[("usual", added("Grüner Tee, 100 g", 1_250)), ("free and nameless", added("", 0))]);
    visit.visit(&[("usual", ProductPriceChanged { sku: sku.clone(), unit_price_minor: 1_190, currency })]);
    visit.visit(&[("usual", StockReceived { sku: sku.clone(), quantity: 40, available: 47 })]);
}

fn payments(visit: &mut impl Visit) {
    let (order_id, attempt, amount_minor) = (order_id(), 1, 2_999);
    let currency = "EUR".parse().unwrap();
    let payment_token = "tok_approve".to_owned();
    let customer_id = customer_id();
    visit.visit(&[(
        "usual",
        AuthorizePayment { order_id, customer_id, attempt, amount_minor, currency, payment_token },
    )]);
    visit.visit(&[("usual", VoidPayment { order_id, attempt })]);
    visit.visit(&[("usual", CapturePayment { order_id, attempt })]);
    visit.visit(&[("usual", RefundPayment { order_id, attempt, amount_minor })]);
    visit.visit(&[("usual", PaymentAuthorized { order_id, attempt, amount_minor, currency })]);
    visit.visit(&[("usual", PaymentDeclined { order_id, attempt, reason: "declined".to_owned() })]);
    visit.visit(&[("usual", PaymentVoided { order_id, attempt })]);
    visit.visit(&[("usual", PaymentCaptured { order_id, attempt, amount_minor, currency })]);
    visit.visit(&[("usual", PaymentRefunded { order_id, attempt, amount_minor, currency })]);
    let operation = "capture".to_owned();
    let reason = "authorization_expired".to_owned();
    visit.visit(&[("usual", PaymentFailed { order_id, attempt, operation, reason })]);
}
