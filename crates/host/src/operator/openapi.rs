//! The OpenAPI document of the operators' listener; committed as `operator-openapi.json`, which a test keeps current.

use utoipa::OpenApi as _;
use waybill_http::openapi::Common;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Waybill operators' API", description = "What operators look at and mend; the same on every service."),
    modifiers(&Common)
)]
struct Document;

/// The document, OpenAPI 3.1.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
