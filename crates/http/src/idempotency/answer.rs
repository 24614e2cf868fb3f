//! An answer that can be given again, byte for byte.

use axum::http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::ApiError;

static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// An answer that is stored before it is given, so that it can be given again, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The JSON body.
    pub body: Vec<u8>,
    /// Whether this is a stored answer given again: it then carries `Idempotency-Replayed: true`.
    pub replayed: bool,
}

impl StoredResponse {
    /// A first answer with these bytes as its JSON body.
    #[must_use]
    pub fn new(status: StatusCode, location: Option<String>, body: Vec<u8>) -> Self {
        Self { status: status.as_u16(), location, body, replayed: false }
    }

    /// A first answer with this value as its JSON body.
    ///
    /// # Errors
    /// 500 when the value can not be written as JSON.
    pub fn json(
        status: StatusCode,
        location: Option<String>,
        value: &impl Serialize,
    ) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(value).map_err(|error| ApiError::internal(&error))?;
        Ok(Self::new(status, location, body))
    }

    /// The `headers` column, also the sixth argument of the SQL function `idempotency_claim`.
    #[must_use]
    pub fn headers_json(&self) -> String {
        self.location
            .as_ref()
            .map_or_else(|| "{}".to_owned(), |at| serde_json::json!({ "location": at }).to_string())
    }

    /// The `status` column, also the fifth argument of the SQL function `idempotency_claim`.
    #[must_use]
    pub fn status_column(&self) -> i16 {
        i16::try_from(self.status).unwrap_or(500)
    }
}

impl IntoResponse for StoredResponse {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(location) = self.location.and_then(|at| HeaderValue::try_from(at).ok()) {
            headers.insert(LOCATION, location);
        }
        if self.replayed {
            headers.insert(REPLAYED.clone(), HeaderValue::from_static("true"));
        }
        response
    }
}
