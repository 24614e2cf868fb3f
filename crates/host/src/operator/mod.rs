//! The operators' API: a second listener whose every route needs the role `operator`.
//!
//! What it shows and mends lies in the service's own database; every change is written to `operator_audit` in its own
//! transaction: who, why, what, and what came of it. The work itself is done by `waybill_outbox::operate` and
//! `waybill_saga::operate`; here requests are parsed and answers are named.

mod access;
mod audit;
mod bodies;
mod dead_letters;
mod explain;
mod facts;
mod listed;
mod openapi;
mod outbox;
mod parked;
mod refusals;
mod replays;
mod routes;
mod sagas;
mod values;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use sqlx::PgPool;
use waybill_http::auth::Verifier;
use waybill_http::serve::Limits;
use waybill_outbox::operate::dry_run::DryRun;

pub use self::explain::Explainer;
pub use self::openapi::document;
pub(crate) use self::refusals::chain;
pub use self::refusals::{refused, saga_refused};
pub use self::sagas::{SagaDesk, SagaFuture};

/// Where the document is served.
pub const OPENAPI_PATH: &str = "/operator/v1/openapi.json";
/// Largest body: several of the largest payloads in base64.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest time of a request: a dry run handles a hundred letters, a republication reads whole days.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(75);

/// What the operators' API works on.
#[derive(Clone)]
pub struct Operated {
    /// The service's name, in answers.
    pub service: &'static str,
    /// Its database.
    pub pool: PgPool,
    /// Its handler, for dry runs.
    pub dry_run: Arc<dyn DryRun>,
    /// Its sagas, when it has some.
    pub sagas: Option<Arc<dyn SagaDesk>>,
    /// What whole stories are told from.
    pub explainer: Explainer,
}

/// The bounds of the operators' listener.
pub(crate) fn limits() -> Limits {
    Limits { body_bytes_max: BODY_BYTES_MAX, request_timeout: REQUEST_TIMEOUT, ..Limits::default() }
}

/// Every route of the operators' listener, the document included; none is reached without the role `operator`.
pub fn router(operated: Operated, verifier: Arc<Verifier>) -> Router {
    routes::all()
        .with_state(operated)
        .merge(waybill_http::openapi::route_at(OPENAPI_PATH, document()))
        .layer(from_fn_with_state(verifier, access::operators_only))
}
