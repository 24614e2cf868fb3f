//! What is known of the request being answered, reachable from anything that runs for it.

use std::future::Future;
use std::sync::Arc;

use tracing::Span;
use waybill_telemetry::trace::TraceContext;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The request being answered: its trace, its path, its span.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) trace: TraceContext,
    pub(crate) path: Arc<str>,
    pub(crate) span: Span,
}

/// Runs `future` as part of this request.
pub(crate) async fn scope<F: Future>(context: RequestContext, future: F) -> F::Output {
    CURRENT.scope(context, future).await
}

/// The request this code runs for; `None` outside of one.
pub(crate) fn current() -> Option<RequestContext> {
    CURRENT.try_with(Clone::clone).ok()
}
