//! Bodies and paths become the domain's types: every field that breaks its rule is told, with its path.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use waybill_events::{Currency, Sku};
use waybill_http::error::{ApiError, FieldError};
use waybill_http::params::Path;

use super::bodies::{NewPrice, NewProduct, NewReceipt};
use crate::domain::price::Price;
use crate::domain::product::ProductName;
use crate::domain::stock::Pieces;
use crate::domain::value::{self, ValueError};

/// The `{sku}` of a path; 400 when it is no SKU at all.
#[derive(Debug)]
pub(super) struct SkuPath(pub(super) Sku);

impl<S: Send + Sync> FromRequestParts<S> for SkuPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await?;
        let mut faults = Faults::default();
        let sku = faults.keep("sku", value::sku(&text));
        faults.or(sku).map(Self)
    }
}

/// The fields of a new product.
pub(super) fn new_product(body: &NewProduct) -> Result<(Sku, ProductName, Price), ApiError> {
    let mut faults = Faults::default();
    let sku = faults.keep("sku", value::sku(&body.sku));
    let name = faults.keep("name", ProductName::parse(&body.name));
    let price = price(&mut faults, body.unit_price_minor, &body.currency);
    faults.or(sku.zip(name).zip(price).map(|((sku, name), price)| (sku, name, price)))
}

/// The fields of another price.
pub(super) fn new_price(body: &NewPrice) -> Result<Price, ApiError> {
    let mut faults = Faults::default();
    let price = price(&mut faults, body.unit_price_minor, &body.currency);
    faults.or(price)
}

/// The field of a receipt.
pub(super) fn new_receipt(body: &NewReceipt) -> Result<Pieces, ApiError> {
    let mut faults = Faults::default();
    let pieces = faults.keep("quantity", Pieces::received(body.quantity));
    faults.or(pieces)
}

/// Amount and currency are judged apart, so that both can be told.
fn price(faults: &mut Faults, minor: i64, currency: &str) -> Option<Price> {
    let currency: Option<Currency> = faults.keep("currency", value::currency(currency));
    faults.keep("unit_price_minor", Price::in_range(minor));
    currency.and_then(|currency| Price::new(minor, currency).ok())
}

/// The fields at fault so far.
#[derive(Default)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn keep<T>(&mut self, path: &'static str, value: Result<T, ValueError>) -> Option<T> {
        value.map_err(|error| self.0.push(FieldError::new(path, error.code(), error.to_string()))).ok()
    }

    /// The value when nothing was at fault. Whoever made none has kept its fault.
    fn or<T>(self, value: Option<T>) -> Result<T, ApiError> {
        value.filter(|_| self.0.is_empty()).ok_or_else(|| ApiError::fields(self.0))
    }
}
