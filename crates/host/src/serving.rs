//! Serving before everything is there: what is too early is told so.

use std::future::Future;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::sync::watch;
use waybill_http::ApiError;
use waybill_http::serve::{self, Limits};
use waybill_runtime::lifecycle::Shutdown;

/// Seconds after which a caller who came too early may try again.
const STARTING_RETRY_AFTER_S: u32 = 1;

/// Listens; `variable` names the setting in the error.
pub(crate) async fn bind(variable: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("{variable} {address} can not be listened on"))?;
    tracing::info!(address = %listener.local_addr()?, variable, "listening");
    Ok(listener)
}

/// Waits for `work` and serves `router` meanwhile, on the same socket: who connects later finds the next router.
pub(crate) async fn while_serving<T>(
    listener: TcpListener,
    router: Router,
    work: impl Future<Output = T>,
) -> anyhow::Result<(TcpListener, T)> {
    let socket = listener.into_std()?;
    let meanwhile = TcpListener::from_std(socket.try_clone()?)?;
    let done = Shutdown::manual();
    let serving = serve::serve(meanwhile, router, done.clone(), Limits::default());
    let work = async {
        let result = work.await;
        done.request();
        result
    };
    let ((), result) = tokio::join!(serving, work);
    Ok((TcpListener::from_std(socket)?, result))
}

/// What everything under `path` answers before the keys are there. Not 404: a client would take the API's absence for the
/// answer.
pub(crate) fn too_early(path: &str) -> Router {
    Router::new().route(path, any(async || starting()))
}

/// Answers 503 until the tables are there.
pub(crate) async fn when_started(
    State(is_started): State<watch::Receiver<bool>>,
    request: Request,
    next: Next,
) -> Response {
    if *is_started.borrow() {
        return next.run(request).await;
    }
    starting()
}

fn starting() -> Response {
    ApiError::unavailable("the service is starting; /ready tells for what it waits", STARTING_RETRY_AFTER_S)
        .into_response()
}
