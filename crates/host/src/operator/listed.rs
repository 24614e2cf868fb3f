//! Queries of lists: a page, and a filter whose unknown fields are refused.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use waybill_http::ApiError;
use waybill_http::json;
use waybill_http::params::Query;
use waybill_outbox::operate::{LIMIT_DEFAULT, PageRequest};

/// `?limit=&cursor=` and the fields of a filter.
#[derive(Debug)]
pub(super) struct Listed<F> {
    pub(super) page: PageRequest,
    pub(super) filter: F,
}

/// No filter: only a page.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Everything {}

impl<S: Send + Sync, F: DeserializeOwned> FromRequestParts<S> for Listed<F> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        listed(pairs)
    }
}

fn listed<F: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<Listed<F>, ApiError> {
    let mut fields = Map::new();
    for (name, value) in pairs {
        if fields.contains_key(&name) {
            return Err(ApiError::field(name, "duplicate", "write it once"));
        }
        fields.insert(name, Value::String(value));
    }
    let limit = match fields.remove("limit") {
        Some(Value::String(text)) => {
            text.parse().map_err(|_| ApiError::field("limit", "invalid", "write a number from 1 to 500"))?
        }
        _ => LIMIT_DEFAULT,
    };
    let cursor = fields.remove("cursor").and_then(|cursor| cursor.as_str().map(str::to_owned));
    // Every field of a filter can be read from a text, so the same type serves queries and bodies.
    let filter = json::parse(Value::Object(fields).to_string().as_bytes())?;
    Ok(Listed { page: PageRequest { limit, cursor }, filter })
}

#[cfg(test)]
mod tests {
    use waybill_outbox::operate::{Filter, StateFilter};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Listed<Filter>, ApiError> {
        listed(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_filter_and_a_page_are_read_from_a_query() {
        let read = read(&[
            ("limit", "7"),
            ("group", "orders"),
            ("state", "any"),
            ("message_id", "01980000-0000-7000-8000-000000000001"),
            ("from", "2026-01-02T03:04:05Z"),
        ]);
        let Listed { page, filter } = read.unwrap();
        assert_eq!(page, PageRequest { limit: 7, cursor: None });
        assert_eq!((filter.group.as_deref(), filter.state), (Some("orders"), StateFilter::Any));
        assert!(filter.message_id.is_some() && filter.from.is_some());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (pairs, path, code) in [
            (&[("gruop", "orders")][..], "gruop", "unknown"),
            (&[("state", "closed")], "state", "invalid"),
            (&[("from", "yesterday")], "from", "invalid"),
            (&[("limit", "many")], "limit", "invalid"),
            (&[("group", "a"), ("group", "b")], "group", "duplicate"),
        ] {
            let refusal = read(pairs).unwrap_err();
            assert_eq!(
                (refusal.details[0].path.as_str(), refusal.details[0].code),
                (path, code),
                "{refusal}"
            );
        }
    }
}
