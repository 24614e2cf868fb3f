//! Lists in pages: newest first, continued by an opaque cursor over (created_at, id).

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::error::{ApiError, FieldError};
use crate::params::Query;

/// Rows of a page when the caller does not say.
pub const PAGE_ROWS_DEFAULT: u32 = 20;
/// Most rows of a page: one answer stays small, one query short.
pub const PAGE_ROWS_MAX: u32 = 100;
/// First byte of a cursor: a later layout gets another one.
const CURSOR_VERSION: u8 = 1;

/// Which page: `?limit=20&cursor=...`. An extractor; other parameters of the query are left to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Most rows of this page, 1 to [`PAGE_ROWS_MAX`].
    pub limit: u32,
    /// Where the page before ended; `None` for the first.
    pub cursor: Option<Cursor>,
}

/// Documents the parameters of [`Page`] in OpenAPI: `params(PageParams)`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Most rows of this page.
    #[param(minimum = 1, maximum = 100, default = 20)]
    #[serde(default)]
    pub limit: Option<String>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// The last row of a page, as the next page's start; opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// When the row was made (microseconds, as Postgres keeps them).
    pub created_at: DateTime<Utc>,
    /// The row's id, which orders rows made at the same time.
    pub id: Uuid,
}

impl Cursor {
    /// The text callers hand back: base64url of a version byte, microseconds and id.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(25);
        bytes.push(CURSOR_VERSION);
        bytes.extend_from_slice(&self.created_at.timestamp_micros().to_be_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Cursor::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let bytes: [u8; 25] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (version, rest) = bytes.split_first()?;
        let (micros, id) = rest.split_first_chunk::<8>()?;
        let created_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?;
        (*version == CURSOR_VERSION).then_some(Self { created_at, id: Uuid::from_slice(id).ok()? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(raw) = Query::<PageParams>::from_request_parts(parts, state).await?;
        let mut wrong = Vec::new();
        let limit = raw.limit.as_deref().map_or(Some(PAGE_ROWS_DEFAULT), |text| text.parse().ok());
        let limit = limit.filter(|limit| (1..=PAGE_ROWS_MAX).contains(limit));
        if limit.is_none() {
            wrong.push(FieldError::new(
                "limit",
                "out_of_range",
                format!("write a number from 1 to {PAGE_ROWS_MAX}"),
            ));
        }
        let cursor = raw.cursor.as_deref().map(Cursor::decode);
        if cursor == Some(None) {
            wrong.push(FieldError::new(
                "cursor",
                "invalid",
                "write next_cursor of the page before, unchanged",
            ));
        }
        match (limit, wrong.is_empty()) {
            (Some(limit), true) => Ok(Self { limit, cursor: cursor.flatten() }),
            _ => Err(ApiError::fields(wrong)),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Paged<T> {
    /// The rows, newest first.
    pub items: Vec<T>,
    /// For the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Paged<T> {
    /// Makes a page from up to `page.limit + 1` rows: ask the store for one row more than the page holds, its being
    /// there means that there is a next page.
    pub fn from_rows<R>(
        page: &Page,
        mut rows: Vec<R>,
        cursor: impl Fn(&R) -> Cursor,
        item: impl Fn(R) -> T,
    ) -> Self {
        let limit = page.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|row| cursor(row).encode());
        Self { items: rows.into_iter().map(item).collect(), next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(n: u128) -> Cursor {
        let created_at = DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap();
        Cursor { created_at, id: Uuid::from_u128(n) }
    }

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is() {
        assert_eq!(Cursor::decode(&cursor(7).encode()), Some(cursor(7)));
        let mut other_version = URL_SAFE_NO_PAD.decode(cursor(7).encode()).unwrap();
        other_version[0] = 9;
        for bad in ["", "x", "AAAA", &"A".repeat(10_000), &URL_SAFE_NO_PAD.encode(other_version)] {
            assert_eq!(Cursor::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_row_too_many_means_another_page() {
        let page = Page { limit: 2, cursor: None };
        let paged = |n: u128| Paged::from_rows(&page, (0..n).collect(), |n| cursor(*n), |n| n);
        assert_eq!(paged(2).next_cursor, None);
        assert_eq!(paged(0).items, Vec::<u128>::new());
        let more = paged(3);
        assert_eq!((more.items.as_slice(), more.next_cursor), (&[0, 1][..], Some(cursor(1).encode())));
    }
}
