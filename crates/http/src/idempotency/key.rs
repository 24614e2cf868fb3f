//! The caller's name for a request, and what tells another request under the same name.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::HeaderName;
use axum::http::request::Parts;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;

use crate::error::ApiError;

/// Longest key: a UUID with room; it is part of an index row.
pub const KEY_CHARS_MAX: usize = 128;

static HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The caller's key, without quotes: 1 to [`KEY_CHARS_MAX`] visible ASCII characters.
///
/// An extractor: 400 `idempotency_key_missing` or `idempotency_key_malformed`. Both forms of the header are one key:
/// bare, as most clients send it, and quoted, as the IETF draft has it (a structured-field string).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// Documents the header in OpenAPI: `params(IdempotencyKeyParam)`.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyKeyParam {
    /// Names this request: the same key with the same body gets the first answer again for 24 hours.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 128,
        example = "8e03978e-40d5-43e8-bc93-6894a57f9324"
    )]
    pub idempotency_key: String,
}

impl IdempotencyKey {
    /// Reads a header's value, bare or quoted.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        let key = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => value.to_owned(),
        };
        let valid =
            (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then_some(Self(key))
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a request with these headers.
    ///
    /// # Errors
    /// 400 `idempotency_key_missing` or `idempotency_key_malformed`.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(&HEADER).iter();
        let Some(value) = values.next() else {
            return Err(ApiError::bad_request(
                "idempotency_key_missing",
                "send the header Idempotency-Key with a new UUID, and the same one when you try again",
            ));
        };
        let key = value.to_str().ok().and_then(Self::parse);
        key.filter(|_| values.next().is_none()).ok_or_else(|| {
            ApiError::bad_request(
                "idempotency_key_malformed",
                format!("Idempotency-Key is one value of 1 to {KEY_CHARS_MAX} visible ASCII characters"),
            )
        })
    }
}

/// The rest of a structured-field string after its first quote (RFC 8941 section 3.3.3).
fn unquoted(rest: &str) -> Option<String> {
    let inner = rest.strip_suffix('"')?;
    let mut key = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            _ => key.push(character),
        }
    }
    Some(key)
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::from_headers(&parts.headers)
    }
}

/// SHA-256 of the parsed body's canonical bytes: spaces and the order of fields do not make another request.
#[must_use]
pub fn request_hash(canonical: &[u8]) -> [u8; 32] {
    Sha256::digest(canonical).into()
}

/// [`request_hash`] of a parsed body, written again by serde: one layout whatever the caller's was.
///
/// # Errors
/// 500 when the type can not be written as JSON.
pub fn request_hash_of(parsed: &impl Serialize) -> Result<[u8; 32], ApiError> {
    serde_json::to_vec(parsed).map(|bytes| request_hash(&bytes)).map_err(|error| ApiError::internal(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        let key = |value| IdempotencyKey::parse(value).map(|key| key.0);
        assert_eq!(key("abc-1"), Some("abc-1".to_owned()));
        assert_eq!(key("\"abc-1\""), Some("abc-1".to_owned()));
        assert_eq!(key(r#""a\"b\\c""#), Some(r#"a"b\c"#.to_owned()));
        assert_eq!(key(&"k".repeat(128)).map(|k| k.len()), Some(128));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let long = "k".repeat(129);
        for bad in
            ["", "  ", "\"\"", "\"abc", r#""a\b""#, r#""a"b""#, "a b", "schlüssel", "a\tb", "\"", &long]
        {
            assert_eq!(IdempotencyKey::parse(bad), None, "{bad}");
        }
    }
}
