//! What comes in over HTTP: reads only. Payments are made by commands of the order saga.

mod payments;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use utoipa::OpenApi as _;
use waybill_http::auth::Verifier;
use waybill_http::openapi::{self, Common};
use waybill_runtime::pool::Statements;

/// What handlers reach.
#[derive(Clone)]
pub struct AppState {
    /// The service's database.
    pub reads: Statements,
    /// Verifies access tokens.
    pub verifier: Arc<Verifier>,
}

impl FromRef<AppState> for Arc<Verifier> {
    fn from_ref(state: &AppState) -> Self {
        Arc::clone(&state.verifier)
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Waybill payments", description = "What became of an order's payment."),
    paths(payments::get),
    modifiers(&Common)
)]
struct Document;

/// The OpenAPI document of this service.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This service's own routes.
pub fn router(state: AppState) -> Router {
    let api = Router::new().route("/payments/{order_id}", axum::routing::get(payments::get));
    Router::new().nest("/api/v1", api).with_state(state).merge(openapi::route(document()))
}
