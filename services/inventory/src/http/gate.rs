//! Until the tables are there, requests are told to come again: the listener is up before Postgres and Kafka.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::watch;
use waybill_http::error::ApiError;

/// Starting takes seconds once the servers answer.
const RETRY_AFTER_S: u32 = 2;

pub(super) async fn until_started(
    State(started): State<watch::Receiver<bool>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if *started.borrow() {
        return Ok(next.run(request).await);
    }
    Err(ApiError::unavailable("this service is starting: /ready tells what it waits for", RETRY_AFTER_S))
}
