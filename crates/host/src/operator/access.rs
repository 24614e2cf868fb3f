//! Who may: operators only, decided once for every route.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use waybill_http::ApiError;
use waybill_http::auth::{Caller, Role, Verifier};
use waybill_http::request_log::Trace;
use waybill_outbox::operate::Change;

use super::refused;

/// The operator who calls, and the trace of the request: what the audit keeps beside the reason.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    subject: String,
    trace_id: String,
}

impl Operator {
    /// This operator's wish, with its reason.
    pub(super) fn wishes(&self, reason: &str) -> Result<Change, ApiError> {
        Change::new(&self.subject, reason, Some(self.trace_id.clone())).map_err(refused)
    }
}

/// Refuses whoever has no token of role `operator`: 401 or 403, whatever the route.
pub(super) async fn operators_only(
    State(verifier): State<Arc<Verifier>>,
    request: Request,
    next: Next,
) -> Response {
    match admitted(&verifier, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn admitted(verifier: &Arc<Verifier>, request: Request) -> Result<Request, ApiError> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, verifier).await?;
    caller.require(Role::Operator)?;
    let Ok(Trace(trace)) = Trace::from_request_parts(&mut parts, verifier).await;
    parts.extensions.insert(Operator { subject: caller.subject, trace_id: trace.trace_id_hex() });
    Ok(Request::from_parts(parts, body))
}

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // `operators_only` stands before every route; a route without it fails closed.
        let missing = || ApiError::forbidden("role_required", "this needs the role operator");
        parts.extensions.get().cloned().ok_or_else(missing)
    }
}
