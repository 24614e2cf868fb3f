//! The one error body of every service: RFC 9457 problem details, our `error` envelope and the trace id.

use std::fmt;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use waybill_runtime::pool;

use crate::context;

/// Seconds after which a caller may try again when the server is overloaded or a dependency is away.
const RETRY_AFTER_S: u32 = 1;
/// The table whose unfinished rows mean "the first request with this key still runs".
const KEYS_TABLE: &str = "\"idempotency_keys\"";

/// A refused or failed request, on its way to the caller.
///
/// Everything in it is shown to the caller: put nothing secret into `message`. Its answer's body is a [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// What happened, for programs: lower-case words with underscores, never changed once published.
    pub code: &'static str,
    /// What happened and how to mend it, for people.
    pub message: String,
    /// The fields at fault, when the body or the parameters are.
    pub details: Vec<FieldError>,
    /// Seconds after which the same request may succeed (`Retry-After`).
    pub retry_after_s: Option<u32>,
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: `lines[1].quantity`; the parameter's name for paths and queries; empty for the body as a whole.
    #[schema(example = "lines[1].quantity")]
    pub path: String,
    /// What is wrong, for programs: `missing`, `unknown`, `invalid`, `out_of_range` or a service's own.
    #[schema(example = "out_of_range")]
    pub code: &'static str,
    /// What is wrong and what to write, for people.
    pub message: String,
}

impl FieldError {
    /// A field at fault.
    pub fn new(path: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.into(), code, message: message.into() }
    }
}

/// The body of every answer with a status of 400 and above (`application/problem+json`).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:waybill:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:waybill:problem:invalid_field")]
    pub kind: String,
    /// The status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened and how to mend it.
    pub detail: String,
    /// The path that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The same for programs.
    pub error: ErrorEnvelope,
    /// The trace this request belongs to, as the logs name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// The part of an error body that programs read.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorEnvelope {
    /// What happened; the list of codes only grows.
    #[schema(example = "invalid_field")]
    pub code: &'static str,
    /// What happened and how to mend it.
    pub message: String,
    /// The fields at fault; empty when none is.
    pub details: Vec<FieldError>,
}

impl ApiError {
    /// Any error: status, code, message.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), retry_after_s: None }
    }

    /// 400: the request is wrong as a whole.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400 `invalid_field`: one field is wrong; `code` says how, in the details.
    pub fn field(path: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError::new(path, code, message)])
    }

    /// 400 `invalid_field`: all these fields are wrong, each with its own code.
    #[must_use]
    pub fn fields(details: Vec<FieldError>) -> Self {
        let message = match details.as_slice() {
            [one] if one.path.is_empty() => one.message.clone(),
            [one] => format!("{}: {}", one.path, one.message),
            many => format!("{} fields are wrong; error.details names each", many.len()),
        };
        Self { details, ..Self::bad_request("invalid_field", message) }
    }

    /// 401: who calls is not known.
    pub fn unauthorized(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// 403: who calls is known and may not. For another's things answer [`ApiError::not_found`].
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404: there is no such thing, or it is another's.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 409: the request does not fit the present state.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 422: the request is well-formed and can not be done.
    pub fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// 503 `unavailable` with `Retry-After`: nothing is known to have been done.
    pub fn unavailable(message: impl Into<String>, retry_after_s: u32) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        Self { retry_after_s: Some(retry_after_s), ..error }
    }

    /// 409 `idempotency_key_in_progress` with `Retry-After`: the first request with this key has not ended yet.
    #[must_use]
    pub fn key_in_progress() -> Self {
        let message =
            "the first request with this Idempotency-Key is still running: send the same again later";
        Self { retry_after_s: Some(RETRY_AFTER_S), ..Self::conflict("idempotency_key_in_progress", message) }
    }

    /// 500 `internal`: logs the error with its causes, once, and tells the caller nothing of it.
    #[must_use]
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something failed on our side: tell us the trace_id",
        )
    }

    /// The body of its answer, with the path and trace id of the request this is called for.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let request = context::current();
        Problem {
            kind: format!("urn:waybill:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.message.clone(),
            instance: request.as_ref().map(|r| r.path.to_string()),
            error: ErrorEnvelope {
                code: self.code,
                message: self.message.clone(),
                details: self.details.clone(),
            },
            trace_id: request.map(|r| r.trace.trace_id_hex()),
        }
    }

    fn challenge(&self) -> HeaderValue {
        // RFC 6750 section 3.1: no error attribute when no token was sent.
        HeaderValue::from_static(match self.code {
            "token_missing" => "Bearer",
            _ => "Bearer error=\"invalid_token\"",
        })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // Strings and numbers only: serializing them can not fail.
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let mut set = |name: HeaderName, value| response.headers_mut().insert(name, value);
        set(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            set(WWW_AUTHENTICATE, self.challenge());
        }
        if let Some(seconds) = self.retry_after_s {
            set(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl ApiError {
    /// What a caller hears of an error of the database, which may be told to several: a lock not granted in time is 409 (for
    /// an idempotency key: [`ApiError::key_in_progress`]), what may pass is 503 with `Retry-After`, everything else 500.
    #[must_use]
    pub fn of_database(error: &sqlx::Error) -> Self {
        if let Some(database) = error.as_database_error()
            && database.code().is_some_and(|code| code == pool::LOCK_NOT_AVAILABLE)
        {
            return if waited_for_key(database) {
                Self::key_in_progress()
            } else {
                let message = "another request is changing the same thing: try again";
                Self { retry_after_s: Some(RETRY_AFTER_S), ..Self::conflict("in_progress", message) }
            };
        }
        if pool::is_transient(error) {
            tracing::warn!(error = error as &dyn std::error::Error, "the database is away or overloaded");
            return Self::unavailable("the database is away or overloaded: try again", RETRY_AFTER_S);
        }
        Self::internal(error)
    }
}

impl From<sqlx::Error> for ApiError {
    /// [`ApiError::of_database`].
    fn from(error: sqlx::Error) -> Self {
        Self::of_database(&error)
    }
}

/// Whether the lock was the unfinished row of an idempotency key: the context Postgres gives names the table.
fn waited_for_key(error: &dyn sqlx::error::DatabaseError) -> bool {
    let error = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
    error.and_then(|e| e.r#where()).is_some_and(|place| place.contains(KEYS_TABLE))
}
