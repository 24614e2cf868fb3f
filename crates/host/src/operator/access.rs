//! Who may: operators only, decided once for every route.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use waybill_http::ApiError;
use waybill_http::auth::{Caller, Role, Verifier};

/// The operator who calls: a token's subject, as the audit keeps it.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub(super) subject: String,
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
    parts.extensions.insert(Operator { subject: caller.subject });
    Ok(Request::from_parts(parts, body))
}

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let operator = parts.extensions.get().cloned();
        Ok(operator.unwrap_or_else(|| unreachable!("operators_only stands before every route")))
    }
}
