//! Who changed what by hand, why, and what came of it: rows written in the transaction of the change.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use super::{OperateError, Page, PageRequest};
use crate::dead_letters::stored_text;

/// Characters of a reason: a sentence and a ticket's link.
const REASON_CHARS_MAX: usize = 500;
/// Characters of the other texts that are kept.
const TEXT_CHARS_MAX: usize = 1_000;

/// The action whose target is a dead letter that was given up.
pub(super) const DISCARD: &str = "dead_letters.discard";

/// Whose wish a change is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    by: String,
    reason: String,
    trace_id: Option<String>,
}

impl Change {
    /// `by` is the token's subject; `trace_id` the request's.
    ///
    /// # Errors
    /// [`OperateError::Invalid`] when the reason is missing or above 500 characters.
    pub fn new(by: &str, reason: &str, trace_id: Option<String>) -> Result<Self, OperateError> {
        let reason = stored_text(reason.trim(), REASON_CHARS_MAX + 1);
        if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
            let why = format!("say in 1..={REASON_CHARS_MAX} characters why it is done");
            return Err(OperateError::invalid("reason", why));
        }
        Ok(Self { by: stored_text(by, TEXT_CHARS_MAX), reason, trace_id })
    }

    /// Whose wish it is.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.by
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Entry {
    /// Grows, not without gaps.
    pub id: i64,
    /// When, on the database's clock.
    pub at: DateTime<Utc>,
    /// The token's subject.
    pub subject: String,
    /// Such as `dead_letters.discard`.
    pub action: String,
    /// On what.
    pub target: String,
    /// Why.
    pub reason: String,
    /// What came of it.
    pub outcome: String,
    /// The request's trace.
    pub trace_id: Option<String>,
}

/// Writes one row in the caller's transaction, the one that makes the change. `action` is a fixed name such as
/// `outbox.republish`, `target` what it was done to, `outcome` what came of it.
///
/// # Errors
/// What the database said.
pub async fn insert_in_tx(
    conn: &mut PgConnection,
    change: &Change,
    action: &str,
    target: &str,
    outcome: &str,
) -> Result<(), sqlx::Error> {
    insert_many_in_tx(conn, change, action, &[target.to_owned()], outcome).await
}

/// As [`insert_in_tx`], a row for each target.
///
/// # Errors
/// What the database said.
pub async fn insert_many_in_tx(
    conn: &mut PgConnection,
    change: &Change,
    action: &str,
    targets: &[String],
    outcome: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into operator_audit (subject, action, target, reason, outcome, trace_id)
         select $1, $2, target, $4, $5, $6 from unnest($3::text[]) as t (target)",
    )
    .bind(&change.by)
    .bind(action)
    .bind(targets.iter().map(|target| stored_text(target, TEXT_CHARS_MAX)).collect::<Vec<_>>())
    .bind(&change.reason)
    .bind(stored_text(outcome, TEXT_CHARS_MAX))
    .bind(&change.trace_id)
    .execute(conn)
    .await
    .map(|_| ())
}

/// The last change of this kind that was made to this target.
pub(super) async fn last(pool: &PgPool, action: &str, target: &str) -> Result<Option<Entry>, sqlx::Error> {
    sqlx::query_as(
        "select id, at, subject, action, target, reason, outcome, trace_id from operator_audit
         where target = $1 and action = $2 order by id desc limit 1",
    )
    .bind(target)
    .bind(action)
    .fetch_optional(pool)
    .await
}

/// The changes, newest first.
///
/// # Errors
/// [`OperateError`].
pub async fn list(pool: &PgPool, page: &PageRequest) -> Result<Page<Entry>, OperateError> {
    let after: Option<i64> = page.after()?;
    let rows = sqlx::query_as(
        "select id, at, subject, action, target, reason, outcome, trace_id from operator_audit
         where id < $1 order by id desc limit $2",
    )
    .bind(after.unwrap_or(i64::MAX))
    .bind(page.rows()?)
    .fetch_all(pool)
    .await?;
    Ok(Page::cut(rows, page, |entry: &Entry| entry.id))
}
