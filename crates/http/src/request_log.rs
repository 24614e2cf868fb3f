//! Every request's span, log line and measurement; trace context read from the caller and handed on.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::header::HeaderName;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use prometheus::HistogramVec;
use tracing::Instrument as _;
use waybill_telemetry::metrics::{LATENCY_BUCKETS_S, histogram_vec};
use waybill_telemetry::trace::TraceContext;

use crate::context::{self, RequestContext};

/// Routes asked every few seconds by machines: logged at `debug`.
const QUIET_ROUTES: &[&str] = &["/health", "/livez", "/ready", "/readyz", "/metrics"];
/// The label of paths no route matched: the paths themselves would be a label without bound.
const UNMATCHED: &str = "unmatched";
/// The status label of requests whose caller hung up before the answer.
const HUNG_UP: &str = "hung_up";

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

static DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram_vec(
        "http_request_duration_seconds",
        "Time from a request's head to its answer's head.",
        &["method", "route", "status"],
        LATENCY_BUCKETS_S,
    )
});

/// The trace this request belongs to: the caller's, continued by a new span, or a new one. Never refuses.
#[derive(Debug, Clone)]
pub struct Trace(pub TraceContext);

impl<S: Send + Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get().cloned().unwrap_or_else(TraceContext::new_root)))
    }
}

/// Puts the correlation id on every later log line of the request this is called for.
pub fn record_correlation_id(id: impl Display) {
    if let Some(request) = context::current() {
        request.span.record("correlation_id", tracing::field::display(id));
    }
}

/// Adds the log to a router; [`crate::serve::serve`] does it by itself.
pub fn layer(router: Router) -> Router {
    router.layer(from_fn(record))
}

/// The middleware: span, context, measurement, `x-request-id` (the trace id) on the answer.
async fn record(mut request: Request, next: Next) -> Response {
    let trace = continued(&request);
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str).to_owned();
    // At the level of errors, so that a filter like RUST_LOG=warn keeps the ids on the lines it lets through.
    let span = tracing::error_span!(
        "request",
        trace_id = trace.trace_id_hex(),
        correlation_id = tracing::field::Empty,
        method,
        route
    );
    request.extensions_mut().insert(trace.clone());
    let id = HeaderValue::from_str(&trace.trace_id_hex());
    let path = request.uri().path().into();
    let mut measurement = Measurement { started: Instant::now(), method, route, status: None };
    let answering = next.run(request).instrument(span.clone());
    let mut response = context::scope(RequestContext { trace, path, span: span.clone() }, answering).await;
    measurement.status = Some(response.status().as_u16());
    span.in_scope(|| drop(measurement));
    if let Ok(id) = id {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    response
}

fn continued(request: &Request) -> TraceContext {
    let header = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    header.and_then(TraceContext::parse).map_or_else(TraceContext::new_root, |caller| caller.child())
}

/// Methods are free text on the wire: only the known ones become labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// Measures and logs when dropped, so that a request whose caller hung up is counted too.
struct Measurement {
    started: Instant,
    method: &'static str,
    route: String,
    status: Option<u16>,
}

impl Drop for Measurement {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed().as_secs_f64();
        let status = self.status.map_or_else(|| HUNG_UP.to_owned(), |status| status.to_string());
        DURATION.with_label_values(&[self.method, self.route.as_str(), status.as_str()]).observe(elapsed);
        let duration_ms = elapsed * 1000.0;
        if QUIET_ROUTES.contains(&self.route.as_str()) {
            tracing::debug!(status, duration_ms, "answered");
        } else {
            tracing::info!(status, duration_ms, "answered");
        }
    }
}
