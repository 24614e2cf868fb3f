//! Replays, listed and one by one.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Replay;
use crate::operate::{Filter, OperateError, Page, PageRequest};

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    state: String,
    filter: sqlx::types::Json<Filter>,
    reason: String,
    requested_by: String,
    rate_per_s: i32,
    ramp: bool,
    stop_after_failures: i32,
    stop_reason: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    total: i64,
    sent: i64,
    resolved: i64,
    failed: i64,
    skipped: i64,
    retrying: i64,
}

impl From<Row> for Replay {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            state: row.state,
            total: row.total,
            sent: row.sent,
            resolved: row.resolved,
            failed: row.failed,
            skipped: row.skipped,
            retrying: row.retrying,
            remaining: row.total - row.resolved - row.failed - row.skipped,
            filter: row.filter.0,
            reason: row.reason,
            by: row.requested_by,
            rate_per_s: row.rate_per_s,
            ramp: row.ramp,
            stop_after_failures: row.stop_after_failures,
            created_at: row.created_at,
            updated_at: row.updated_at,
            stop_reason: row.stop_reason,
        }
    }
}

/// The operations, newest first.
///
/// # Errors
/// [`OperateError`].
pub async fn list(pool: &PgPool, page: &PageRequest) -> Result<Page<Replay>, OperateError> {
    let after: Option<Uuid> = page.after()?;
    let rows = rows(&mut *pool.acquire().await?, None, after, page.rows()?).await?;
    Ok(Page::cut(rows, page, |replay: &Replay| replay.id))
}

/// One operation.
///
/// # Errors
/// [`OperateError::Unknown`] when there is none.
pub async fn show(pool: &PgPool, id: Uuid) -> Result<Replay, OperateError> {
    show_in_tx(&mut *pool.acquire().await?, id).await
}

pub(super) async fn show_in_tx(conn: &mut PgConnection, id: Uuid) -> Result<Replay, OperateError> {
    let found = rows(conn, Some(id), None, 1).await?.pop();
    found.ok_or_else(|| OperateError::Unknown { what: "replay", name: id.to_string() })
}

async fn rows(
    conn: &mut PgConnection,
    id: Option<Uuid>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Replay>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "select r.id, r.state, r.filter, r.reason, r.requested_by, r.rate_per_s, r.ramp, r.stop_after_failures,
                r.stop_reason, r.created_at, r.updated_at, c.*, t.retrying
         from (select * from replays r
               where ($1::uuid is null or r.id = $1) and ($2::uuid is null or r.id < $2) order by r.id desc limit $3) r,
              lateral (select count(*) as total, count(i.sent_at) as sent,
                              count(*) filter (where i.state = 'resolved') as resolved,
                              count(*) filter (where i.state = 'failed') as failed,
                              count(*) filter (where i.state = 'skipped') as skipped
                       from replay_items i where i.replay_id = r.id) c,
              lateral (select count(*) as retrying
                       from replay_items i
                       join parked_keys p on p.consumer_group = i.consumer_group and p.key = i.key
                       where i.replay_id = r.id and i.state = 'sent' and p.dead_letter_id = i.dead_letter_id
                         and p.head_hop > i.hop) t
         order by r.id desc",
    )
    .bind(id)
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Replay::from).collect())
}
