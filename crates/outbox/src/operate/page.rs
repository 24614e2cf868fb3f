//! Lists in pages, each bounded, the next one named by an opaque cursor.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::OperateError;

/// Rows of a page when nobody says.
pub const LIMIT_DEFAULT: u32 = 100;
/// Most rows of a page: an answer stays small enough for a terminal and a proxy.
pub const LIMIT_MAX: u32 = 500;

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Rows at most, 1..=[`LIMIT_MAX`].
    pub limit: u32,
    /// [`Page::next_cursor`] of the page before.
    pub cursor: Option<String>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: LIMIT_DEFAULT, cursor: None }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next_cursor: Option<String>,
}

impl PageRequest {
    /// Rows to ask the database for: one more than wanted, which tells whether there is a next page.
    pub(crate) fn rows(&self) -> Result<i64, OperateError> {
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return Err(OperateError::invalid("limit", format!("write a number in 1..={LIMIT_MAX}")));
        }
        Ok(i64::from(self.limit) + 1)
    }

    /// Where the page begins.
    pub(crate) fn after<C: DeserializeOwned>(&self) -> Result<Option<C>, OperateError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let read = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|json| serde_json::from_slice(&json).ok());
        read.map(Some).ok_or_else(|| OperateError::invalid("cursor", "it is no cursor of this list"))
    }
}

impl<T> Page<T> {
    /// The page of one row more than was wanted.
    pub(crate) fn cut<C: Serialize>(
        mut items: Vec<T>,
        request: &PageRequest,
        place: impl Fn(&T) -> C,
    ) -> Self {
        let wanted = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let more = items.len() > wanted;
        items.truncate(wanted);
        let last = items.last().filter(|_| more);
        let next_cursor = last.and_then(|last| serde_json::to_vec(&place(last)).ok());
        Self { items, next_cursor: next_cursor.map(|json| URL_SAFE_NO_PAD.encode(json)) }
    }

    /// The same page of something else.
    pub(crate) fn map<U>(self, to: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(to).collect(), next_cursor: self.next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_with_a_cursor_when_there_is_more() {
        let request = PageRequest { limit: 2, cursor: None };
        let page = Page::cut(vec![1, 2, 3], &request, |n| (*n, "x"));
        assert_eq!(page.items, [1, 2]);
        let next = PageRequest { cursor: page.next_cursor, ..request.clone() };
        assert_eq!(next.after::<(i32, String)>().unwrap(), Some((2, "x".to_owned())));
        assert_eq!(Page::cut(vec![1, 2], &request, |n| *n).next_cursor, None);
        let wrong = PageRequest { cursor: Some("?".to_owned()), limit: 0 };
        assert!(wrong.after::<i32>().is_err() && wrong.rows().is_err());
    }
}
