//! Bodies of requests that several routes share, and what is read from them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use waybill_http::ApiError;
use waybill_outbox::operate::Filter;

/// Why a change is made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Because {
    /// For those who read the audit.
    #[schema(min_length = 1, max_length = 500, example = "INC-1234: the provider was away")]
    pub(super) reason: String,
}

/// Which dead letters.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Selected {
    /// All of it must hold; open ones unless said.
    #[serde(default)]
    #[schema(value_type = super::openapi::Filter)]
    pub(super) filter: Filter,
}

/// A field that must be there, and may be null.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

/// A field that may be left out, which is not the same as null.
pub(super) fn given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<DateTime<Utc>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The bytes of a field.
pub(super) fn bytes(path: &str, base64: &str) -> Result<Vec<u8>, ApiError> {
    BASE64
        .decode(base64)
        .map_err(|error| ApiError::field(path, "invalid", format!("it is no base64: {error}")))
}
