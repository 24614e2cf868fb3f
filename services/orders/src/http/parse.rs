//! A new order's body becomes the command's types: every field that is out of its limits is told, with its path.

use std::collections::HashMap;

use waybill_events::{Currency, Sku};
use waybill_http::error::FieldError;

use super::bodies::{PlaceOrderBody, PlaceOrderLine};
use crate::domain::limits::{LINE_QUANTITY_PIECES_MAX, ORDER_LINES_MAX, PAYMENT_TOKEN_CHARS_MAX};
use crate::domain::pricing::RequestedLine;

/// A body whose fields are within their limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) lines: Vec<RequestedLine>,
    pub(super) currency: Currency,
    pub(super) payment_token: String,
}

/// Checks every field; all that is wrong is told at once.
pub(super) fn place_order(body: PlaceOrderBody) -> Result<Parsed, Vec<FieldError>> {
    let mut errors = Vec::new();
    let lines = lines(&body.lines, &mut errors);
    let currency = body.currency.parse::<Currency>();
    if let Err(error) = &currency {
        errors.push(field("currency", "unknown_currency", error));
    }
    if !is_token(&body.payment_token) {
        let what = format!("write 1 to {PAYMENT_TOKEN_CHARS_MAX} characters of A-Z a-z 0-9 and _");
        errors.push(field("payment_token", "malformed", what));
    }
    match currency {
        Ok(currency) if errors.is_empty() => {
            Ok(Parsed { lines, currency, payment_token: body.payment_token })
        }
        _ => Err(errors),
    }
}

fn lines(lines: &[PlaceOrderLine], errors: &mut Vec<FieldError>) -> Vec<RequestedLine> {
    if !(1..=ORDER_LINES_MAX).contains(&lines.len()) {
        errors.push(field("lines", "out_of_range", format!("write 1 to {ORDER_LINES_MAX} lines")));
        // Told once, not once more for each of perhaps thousands of lines.
        return Vec::new();
    }
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut parsed = Vec::with_capacity(lines.len());
    for (place, line) in lines.iter().enumerate() {
        let sku = line.sku.parse::<Sku>();
        if let Err(error) = &sku {
            errors.push(field(format!("lines[{place}].sku"), "malformed", error));
        } else if let Some(other) = first.insert(&line.sku, place) {
            let what = format!("lines[{other}] has the same SKU: write it once, with the sum");
            errors.push(field(format!("lines[{place}].sku"), "duplicate_sku", what));
        }
        let quantity = i32::try_from(line.quantity).ok();
        let quantity = quantity.filter(|pieces| (1..=LINE_QUANTITY_PIECES_MAX).contains(pieces));
        if quantity.is_none() {
            let what = format!("write 1 to {LINE_QUANTITY_PIECES_MAX} pieces");
            errors.push(field(format!("lines[{place}].quantity"), "out_of_range", what));
        }
        if let (Ok(sku), Some(quantity)) = (sku, quantity) {
            parsed.push(RequestedLine { sku, quantity });
        }
    }
    parsed
}

fn is_token(text: &str) -> bool {
    (1..=PAYMENT_TOKEN_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn field(path: impl Into<String>, code: &'static str, message: impl ToString) -> FieldError {
    FieldError::new(path, code, message.to_string())
}
