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
use tracing::{Instrument as _, Span};
use uuid::Uuid;
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
        // A request is a story of its own until it is known to which one it belongs.
        correlation_id = %Uuid::from_bytes(trace.trace_id),
        method,
        route
    );
    request.extensions_mut().insert(trace.clone());
    let id = HeaderValue::from_str(&trace.trace_id_hex());
    let path = request.uri().path().into();
    let mut measurement =
        Measurement { span: span.clone(), started: Instant::now(), method, route, status: None };
    let answering = next.run(request).instrument(span.clone());
    let mut response = context::scope(RequestContext { trace, path, span: span.clone() }, answering).await;
    measurement.status = Some(response.status().as_u16());
    drop(measurement);
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

/// Measures and logs when dropped, inside the request's span, so that a request whose caller hung up is counted too.
struct Measurement {
    span: Span,
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
        self.span.in_scope(|| {
            if QUIET_ROUTES.contains(&self.route.as_str()) {
                tracing::debug!(status, duration_ms, "answered");
            } else {
                tracing::info!(status, duration_ms, "answered");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_line_of_a_request_whose_caller_hung_up_has_its_ids() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _here = tracing::subscriber::set_default(subscriber);
        let router = layer(Router::new().route("/hang", get(std::future::pending::<()>)));
        let request =
            Request::get("/hang").header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));
        let answering = router.oneshot(request.body(Body::empty()).unwrap());
        assert!(tokio::time::timeout(Duration::ZERO, answering).await.is_err(), "the caller hangs up");
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line = lines.lines().find(|line| line.contains("hung_up")).expect(&lines);
        assert!(line.contains(&format!("trace_id=\"{TRACE_ID}\"")), "{line}");
        assert!(line.contains("correlation_id=4bf92f35-77b3-4da6-a3ce-929d0e0e4736"), "{line}");
    }
}
