//! The operators' API: a second listener whose every route needs the role `operator`.
//!
//! What it shows and mends lies in the service's own database; every change is written to `operator_audit` in its own
//! transaction: who, why, what, and what came of it.

mod access;
mod openapi;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use sqlx::PgPool;
use waybill_http::auth::Verifier;
use waybill_http::serve::Limits;

pub use self::openapi::document;

/// Where the document is served.
pub const OPENAPI_PATH: &str = "/operator/v1/openapi.json";
/// Largest body: several of the largest payloads in base64.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest time of a request: a dry run handles a hundred letters.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What the operators' API works on.
#[derive(Clone)]
pub(crate) struct Operated {
    pub(crate) service: &'static str,
    pub(crate) pool: PgPool,
    pub(crate) verifier: Arc<Verifier>,
}

/// The bounds of the operators' listener.
pub(crate) fn limits() -> Limits {
    Limits { body_bytes_max: BODY_BYTES_MAX, request_timeout: REQUEST_TIMEOUT, ..Limits::default() }
}

/// Every route of the operators' listener, the document included; none is reached without the role `operator`.
pub(crate) fn router(operated: Operated) -> Router {
    let verifier = Arc::clone(&operated.verifier);
    Router::new()
        .with_state(operated)
        .merge(waybill_http::openapi::route_at(OPENAPI_PATH, document()))
        .layer(from_fn_with_state(verifier, access::operators_only))
}
