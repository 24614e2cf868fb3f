//! The HTTP interface: requests are parsed, given to a command or read from the store, and answered.

pub mod bodies;
mod errors;
mod openapi;
pub mod orders;
mod parse;
pub mod saga_desk;
pub mod timeline;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use waybill_http::auth::Verifier;
use waybill_runtime::pool::Statements;

pub use self::openapi::document;
use crate::commands::Context;

/// What the handlers share.
#[derive(Clone)]
pub struct AppState {
    /// For the commands.
    pub context: Context,
    /// For reads.
    pub reads: Statements,
    /// Tells who calls.
    pub verifier: Arc<Verifier>,
}

impl FromRef<AppState> for Arc<Verifier> {
    fn from_ref(state: &AppState) -> Self {
        Arc::clone(&state.verifier)
    }
}

/// Everything under `/api/v1`, the OpenAPI document included.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/api/v1/orders", post(orders::place).get(orders::list))
        .route("/api/v1/orders/{id}", get(orders::read))
        .route("/api/v1/orders/{id}/timeline", get(timeline::read))
        .route("/api/v1/orders/{id}/cancel", post(orders::cancel))
        .with_state(state)
        .merge(waybill_http::openapi::route(document()))
}
