//! Parameters in paths and queries: axum's extractors with our error body.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// A path's parameters; 400 `invalid_field` names the one at fault.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(path_refusal(rejection, parts, state).await),
        }
    }
}

/// A query's parameters; 400 `invalid_field` when one is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(query_refusal(&rejection.body_text())),
        }
    }
}

async fn path_refusal<S: Send + Sync>(rejection: PathRejection, parts: &mut Parts, state: &S) -> ApiError {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return ApiError::internal(&rejection);
    };
    let message = failed.body_text();
    let name = match failed.into_kind() {
        ErrorKind::ParseErrorAtKey { key, .. }
        | ErrorKind::DeserializeError { key, .. }
        | ErrorKind::InvalidUtf8InPathParam { key } => key,
        ErrorKind::UnsupportedType { name } => {
            return ApiError::internal(&std::io::Error::other(format!("path parameter type {name}")));
        }
        // A single parameter read into a plain type: its name is only in the route.
        _ => first_name(parts, state).await,
    };
    ApiError::field(name, "invalid", message)
}

async fn first_name<S: Send + Sync>(parts: &mut Parts, state: &S) -> String {
    let params = RawPathParams::from_request_parts(parts, state).await.ok();
    params.and_then(|all| all.iter().next().map(|(name, _)| name.to_owned())).unwrap_or_default()
}

/// axum's text is `Failed to deserialize query string: limit: invalid digit ...`; the name is kept as the path.
fn query_refusal(text: &str) -> ApiError {
    let what = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    match what.split_once(": ") {
        Some((name, why)) if !name.contains(' ') => ApiError::field(name, "invalid", why),
        _ => ApiError::field("", "invalid", what),
    }
}
