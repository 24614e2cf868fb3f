//! What comes in over HTTP: one file per route group. Handlers extract, call a command or a read, and map.

mod access;
pub mod bodies;
mod parse;
mod products;
mod refusals;
mod stock;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post, put};
use utoipa::OpenApi;
use waybill_http::auth::Verifier;
use waybill_http::openapi::{self, Common};
use waybill_runtime::pool::Statements;

use crate::commands::Context;

/// What handlers share.
#[derive(Clone)]
pub struct AppState {
    /// For commands.
    pub context: Context,
    /// For reads.
    pub reads: Statements,
    /// Who calls.
    pub verifier: Arc<Verifier>,
}

impl FromRef<AppState> for Arc<Verifier> {
    fn from_ref(state: &AppState) -> Self {
        Arc::clone(&state.verifier)
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Waybill inventory", description = "The catalogue, its prices, and the stock of each SKU."),
    paths(products::add, products::list, products::read, products::change_price, stock::read, stock::receive),
    modifiers(&Common)
)]
struct Document;

/// The OpenAPI 3.1 document of this service, as it is served and committed (`services/inventory/openapi.json`).
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Every route under `/api/v1`.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/api/v1/products", get(products::list).post(products::add))
        .route("/api/v1/products/{sku}", get(products::read))
        .route("/api/v1/products/{sku}/price", put(products::change_price))
        .route("/api/v1/stock/{sku}", get(stock::read))
        .route("/api/v1/stock/{sku}/receipts", post(stock::receive))
        .with_state(state)
        .merge(openapi::route(document()))
}
