//! JSON bodies: a strict extractor whose refusals name the field, and the same type as an answer.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::ApiError;

/// A body of at most 64 KiB that is not there after this long is being sent drop by drop.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of a parser's message shown to the caller: it repeats the value at fault, which may fill the body.
const MESSAGE_CHARS_MAX: usize = 200;

/// A JSON body.
///
/// As an extractor it answers 415 `unsupported_media_type`, 413 `body_too_large`, 408 `body_timeout`,
/// 400 `malformed_json` (with line and column) or 400 `invalid_field` (with the field's path). Give request types
/// `#[serde(deny_unknown_fields)]`, so that a misspelt field is refused.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "send the body as JSON with the header Content-Type: application/json",
            ));
        }
        let read = tokio::time::timeout(BODY_READ_TIMEOUT, Bytes::from_request(request, state)).await;
        match read {
            Ok(Ok(body)) if is_positional(&body) => {
                let message =
                    "send JSON objects with named fields: an array may stand only as a field's value";
                Err(ApiError::field("", "invalid", message))
            }
            Ok(Ok(body)) => parse(&body).map(Json),
            Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
            Ok(Err(_)) => {
                Err(ApiError::bad_request("body_incomplete", "the body ended too early: send all of it"))
            }
            Err(_) => {
                let message = format!("the body was not there after {} s", BODY_READ_TIMEOUT.as_secs());
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
            }
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
            }
            Err(error) => ApiError::internal(&error).into_response(),
        }
    }
}

/// The 413 of every body over the limit.
pub(crate) fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        "the body is too large: send less in one request",
    )
}

/// Reads a JSON value; the errors are those of [`Json`].
///
/// # Errors
/// 400 `malformed_json` or `invalid_field`.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, error.inner())
    })?;
    deserializer.end().map_err(|error| refusal("", &error))?;
    Ok(value)
}

/// Whether an array stands where only an object belongs: as the body, or as an array's item.
///
/// serde reads a struct from an array too, by position: that is no request anybody documented.
fn is_positional(body: &[u8]) -> bool {
    let mut containers = vec![b'['];
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' if containers.last() == Some(&b'[') => return true,
            b'[' | b'{' => containers.push(*byte),
            b']' | b'}' => drop(containers.pop()),
            _ => {}
        }
    }
    false
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

fn refusal(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    match error.classify() {
        Category::Data => {
            let what = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
            field_refusal(path, what)
        }
        Category::Eof if error.column() == 0 => {
            ApiError::bad_request("malformed_json", "the body is empty: send a JSON value")
        }
        Category::Syntax | Category::Eof | Category::Io => {
            ApiError::bad_request("malformed_json", format!("the body is not JSON: {}", shortened(&text)))
        }
    }
}

/// serde names a missing or unknown field in its message only; its path is that of the object around it.
fn field_refusal(path: &str, what: &str) -> ApiError {
    let around = if path == "." { "" } else { path };
    let (code, named) = if let Some(name) = quoted_after(what, "missing field `") {
        ("missing", Some(name))
    } else if let Some(name) = quoted_after(what, "unknown field `") {
        ("unknown", Some(name))
    } else if let Some(name) = quoted_after(what, "duplicate field `") {
        ("duplicate", Some(name))
    } else {
        ("invalid", None)
    };
    let path = match named {
        Some(name) if around.is_empty() => name.to_owned(),
        // The path of an unknown field may end in its name already.
        Some(name) if around == name || around.ends_with(&format!(".{name}")) => around.to_owned(),
        Some(name) => format!("{around}.{name}"),
        None => around.to_owned(),
    };
    ApiError::field(shortened(&path), code, shortened(what))
}

fn quoted_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(start)?;
    rest.split('`').next()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Order {
        currency: String,
        lines: Vec<Line>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Line {
        sku: String,
        quantity: u32,
    }

    fn refused(body: &str) -> (&'static str, String, &'static str) {
        let error = parse::<Order>(body.as_bytes()).unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        let detail = error.details.first();
        (error.code, detail.map(|d| d.path.clone()).unwrap_or_default(), detail.map_or("", |d| d.code))
    }

    #[test]
    fn only_objects_hold_fields() {
        for positional in [r#"[1]"#, r#" [{"a":1}]"#, r#"{"lines":[["TEA",2]]}"#, r#"{"a":[{"b":1}, [2]]}"#] {
            assert!(is_positional(positional.as_bytes()), "{positional}");
        }
        for named in ["", "{}", "7", r#"{"lines":[{"a":["x"]}]}"#, r#"{"a":"[[","b":["\"[[","[["]}"#, "}}]]"]
        {
            assert!(!is_positional(named.as_bytes()), "{named}");
        }
    }

    #[test]
    fn a_field_at_fault_is_named_by_its_path() {
        for (body, path, code) in [
            (r#"{"lines":[]}"#, "currency", "missing"),
            (
                r#"{"currency":"EUR","lines":[{"sku":"a","quantity":1},{"sku":"b"}]}"#,
                "lines[1].quantity",
                "missing",
            ),
            (r#"{"currency":"EUR","lines":[],"note":""}"#, "note", "unknown"),
            (
                r#"{"currency":"EUR","lines":[{"sku":"a","quantity":1,"price":1}]}"#,
                "lines[0].price",
                "unknown",
            ),
            (r#"{"currency":7,"lines":[]}"#, "currency", "invalid"),
            (r#"{"currency":"EUR","lines":[{"sku":"a","quantity":-1}]}"#, "lines[0].quantity", "invalid"),
            (r#"{"currency":"EUR","lines":[{"sku":"a","quantity":1.5}]}"#, "lines[0].quantity", "invalid"),
            (
                r#"{"currency":"EUR","lines":[{"sku":"a","quantity":4294967296}]}"#,
                "lines[0].quantity",
                "invalid",
            ),
            (r#"{"currency":"EUR","currency":"EUR","lines":[]}"#, "currency", "duplicate"),
            (r#"{"currency":null,"lines":[]}"#, "currency", "invalid"),
            (r#"{"currency":"EUR","lines":{}}"#, "lines", "invalid"),
            ("7", "", "invalid"),
        ] {
            assert_eq!(refused(body), ("invalid_field", path.to_owned(), code), "{body}");
        }
    }

    #[test]
    fn what_is_not_json_is_named_by_its_place() {
        for (body, place) in [
            (r#"{"currency": EUR}"#, "line 1 column 14"),
            ("{\n\"currency\":\"EUR\",\n}", "line 3 column 1"),
            (r#"{"currency":"EUR""#, "line 1 column 17"),
            (r#"{"currency":"EUR","lines":[]} x"#, "line 1 column 31"),
            ("", "empty"),
        ] {
            let error = parse::<Order>(body.as_bytes()).unwrap_err();
            assert_eq!(error.code, "malformed_json");
            assert!(error.message.contains(place), "{}", error.message);
        }
    }

    #[test]
    fn a_deep_or_long_value_is_refused_with_a_short_message() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(parse::<serde_json::Value>(deep.as_bytes()).unwrap_err().code, "malformed_json");
        let long = format!(r#"{{"currency":"EUR","lines":"{}"}}"#, "x".repeat(60_000));
        let error = parse::<Order>(long.as_bytes()).unwrap_err();
        assert!(error.message.len() < 300, "{}", error.message.len());
    }
}
