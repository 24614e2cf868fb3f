//! Listening: time limits for headers, bodies and requests, caps on bytes and connections, a bounded drain.

use std::any::Any;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use waybill_runtime::lifecycle::Shutdown;
use waybill_telemetry::metrics::int_gauge_vec;

use crate::error::ApiError;
use crate::{json, request_log};

/// Pause after `accept` failed (no file descriptors left): the cause is not gone at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest request head: many times a token, a traceparent and an idempotency key; beyond it hyper answers 431.
const HEAD_BYTES_MAX: usize = 32 * 1024;

static CONNECTIONS: LazyLock<IntGauge> = LazyLock::new(|| {
    int_gauge_vec("http_connections", "Open connections of the HTTP listener.", &[])
        .with_label_values::<&str>(&[])
});

/// The bounds of a listener. The default suits every service.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest time until a request's head is complete; also how long an idle connection is kept. A client that sends
    /// its head drop by drop holds a connection no longer than this.
    pub header_read_timeout: Duration,
    /// Longest time until the answer's head: past it the caller hears 503 `request_timeout`. More than the sum of
    /// waiting for a connection, a lock and a statement, so that their own errors come first.
    pub request_timeout: Duration,
    /// Largest body in bytes: an order of a hundred lines is a tenth of it.
    pub body_bytes_max: usize,
    /// Connections served at once; the next ones wait in the listener's backlog.
    pub connections_max: usize,
    /// Longest time that open requests get to end after the shutdown was requested; less than a process's own bound.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(15),
            body_bytes_max: 64 * 1024,
            connections_max: 4096,
            drain_timeout: Duration::from_secs(8),
        }
    }
}

/// Serves `router` (hardened by [`harden`]) until the shutdown is requested, then lets open requests end, at most for
/// `limits.drain_timeout`.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown, limits: Limits) {
    let router = harden(router, &limits);
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let cut = Shutdown::manual();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = shutdown.requested() => break,
        };
        let connection = Connection {
            router: router.clone(),
            header_read_timeout: limits.header_read_timeout,
            cut: cut.clone(),
        };
        tokio::spawn(connection.run(accepted.0, accepted.1, graceful.watcher()));
    }
    // Closing the listener first: who connects now is refused and goes elsewhere.
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            timeout_ms = limits.drain_timeout.as_millis(),
            "requests still open: connections are cut"
        );
        cut.request();
    }
}

/// The router with our 404 and 405, the body limit, the request timeout, 500 for a panic and the request log.
///
/// For tests that call a router without a listener; [`serve`] does it by itself.
pub fn harden(router: Router, limits: &Limits) -> Router {
    let router = router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(limits.body_bytes_max))
        .layer(RequestBodyLimitLayer::new(limits.body_bytes_max))
        .layer(from_fn_with_state(limits.clone(), bounded))
        .layer(CatchPanicLayer::custom(panicked));
    request_log::layer(router)
}

/// One more connection, when one more is allowed.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(connections).acquire_owned().await.expect("this semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    router: Router,
    header_read_timeout: Duration,
    cut: Shutdown,
}

impl Connection {
    async fn run(self, stream: TcpStream, _permit: OwnedSemaphorePermit, watcher: Watcher) {
        CONNECTIONS.inc();
        let _open = Open;
        // Answers are small and waited for: they are not to wait for more bytes (a failure only costs time).
        let _slower = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_read_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        tokio::select! {
            served = watcher.watch(connection) => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection ended early");
                }
            }
            () = self.cut.requested() => {}
        }
    }
}

/// Counts the connection out, however it ends.
struct Open;

impl Drop for Open {
    fn drop(&mut self) {
        CONNECTIONS.dec();
    }
}

/// Refuses a body whose announced length is over the limit, and ends a request that takes too long.
async fn bounded(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| length > limits.body_bytes_max)
    {
        return json::too_large().into_response();
    }
    match tokio::time::timeout(limits.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(timeout_ms = limits.request_timeout.as_millis(), "a request took too long");
            let message = "the answer took too long; whether the work was done is not known: ask, or send the \
                           same Idempotency-Key again";
            ApiError { code: "request_timeout", ..ApiError::unavailable(message, 1) }.into_response()
        }
    }
}

async fn no_route() -> ApiError {
    ApiError::not_found("route_not_found", "there is nothing at this path: see /api/v1/openapi.json")
}

async fn no_method() -> ApiError {
    let message = "this path does not know this method: the Allow header names those it knows";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text");
    ApiError::internal(&std::io::Error::other(format!("panic: {text}"))).into_response()
}
