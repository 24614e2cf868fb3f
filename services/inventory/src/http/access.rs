//! Who may, and what made the request.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use waybill_http::auth::{Caller, Role, Verifier};
use waybill_http::error::ApiError;
use waybill_http::request_log::{Trace, record_correlation_id};
use waybill_messaging::envelope::Cause;
use waybill_runtime::clock;

/// A caller with role `admin`. Refuses before keys and bodies are looked at.
#[derive(Debug)]
pub(super) struct Admin(pub(super) Caller);

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require(Role::Admin)?;
        Ok(Self(caller))
    }
}

/// The cause of the events of this request: a story of its own, in the request's trace.
#[derive(Debug)]
pub(super) struct RequestCause(pub(super) Cause);

impl<S: Send + Sync> FromRequestParts<S> for RequestCause {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Ok(Trace(trace)) = Trace::from_request_parts(parts, state).await;
        let correlation_id = clock::new_id();
        record_correlation_id(correlation_id);
        Ok(Self(Cause { correlation_id, causation_id: None, trace: Some(trace) }))
    }
}
