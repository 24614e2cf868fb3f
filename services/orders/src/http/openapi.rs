//! The OpenAPI document of this service; committed as `openapi.json`, which a test keeps current.

use utoipa::OpenApi;
use waybill_http::openapi::Common;

use super::bodies::{OrderBody, OrderLine, OrderStatus, PlaceOrderBody, PlaceOrderLine};
use super::timeline::{Entry, Timeline, What};

#[derive(OpenApi)]
#[openapi(
    info(title = "Waybill orders", description = "Orders: placed, read, listed, cancelled."),
    paths(super::orders::place, super::orders::list, super::orders::read, super::orders::cancel,
        super::timeline::read),
    components(schemas(PlaceOrderBody, PlaceOrderLine, OrderBody, OrderLine, OrderStatus, Timeline, Entry, What)),
    modifiers(&Common)
)]
struct Document;

/// The document, OpenAPI 3.1.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
