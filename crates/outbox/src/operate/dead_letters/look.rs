//! Lists, failure groups, and one letter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgPool, QueryBuilder};
use uuid::Uuid;

use super::{DeadLetter, DeadLetterDetail, FailureGroup, GivenUp, Patch, ReplayOfLetter};
use crate::operate::{Filter, OperateError, Page, PageRequest, audit, key_shown};
use crate::retry::header_changes::HeaderChanges;

/// Replays that are shown of one letter.
const REPLAYS_SHOWN_MAX: i64 = 20;

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    consumer_group: String,
    state: String,
    topic: String,
    partition: i32,
    offset: i64,
    record_time: Option<DateTime<Utc>>,
    message_id: Option<Uuid>,
    kind: Option<String>,
    key: Option<Vec<u8>>,
    error_class: String,
    error_message: String,
    failure_group: String,
    attempts: i32,
    first_failed_at: DateTime<Utc>,
    last_failed_at: DateTime<Utc>,
    correlation_id: Option<Uuid>,
    trace_id: Option<String>,
    hop: i16,
    patched: bool,
    payload_bytes: Option<i32>,
}

/// The columns of [`Row`], and where they are from.
const SELECT: &str = "select d.id, d.consumer_group, d.state, d.topic, d.partition, d.\"offset\", d.record_time, d.message_id, d.kind,
            d.key, d.error_class, d.error_message, d.failure_group, d.attempts, d.first_failed_at, d.last_failed_at,
            d.correlation_id, d.trace_id, d.hop, p.dead_letter_id is not null as patched,
            octet_length(d.payload) as payload_bytes
     from dead_letters d left join dead_letter_patches p on p.dead_letter_id = d.id where true";

impl From<Row> for DeadLetter {
    fn from(row: Row) -> Self {
        let (key, key_base64) = key_shown(row.key);
        Self {
            id: row.id,
            group: row.consumer_group,
            state: row.state,
            topic: row.topic,
            partition: row.partition,
            offset: row.offset,
            record_time: row.record_time,
            message_id: row.message_id,
            kind: row.kind,
            key,
            key_base64,
            error_class: row.error_class,
            error_message: row.error_message,
            failure_group: row.failure_group,
            attempts: row.attempts,
            first_failed_at: row.first_failed_at,
            last_failed_at: row.last_failed_at,
            correlation_id: row.correlation_id,
            trace_id: row.trace_id,
            hop: row.hop,
            patched: row.patched,
            payload_bytes: row.payload_bytes,
        }
    }
}

/// Dead letters, newest first.
///
/// # Errors
/// [`OperateError`].
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<DeadLetter>, OperateError> {
    let mut query = QueryBuilder::new(SELECT);
    filter.push(&mut query)?;
    if let Some(after) = page.after::<Uuid>()? {
        query.push(" and d.id < ").push_bind(after);
    }
    query.push(" order by d.id desc limit ").push_bind(page.rows()?);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, page, |row: &Row| row.id).map(DeadLetter::from))
}

/// Failure groups of the letters that fulfil the filter, largest first.
///
/// # Errors
/// [`OperateError`].
pub async fn failure_groups(
    pool: &PgPool,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<FailureGroup>, OperateError> {
    let mut query = QueryBuilder::new(
        "select d.failure_group, min(d.consumer_group) as \"group\", min(d.kind) as kind, min(d.error_class) as error_class,
                min(d.error_normalised) as message, count(*) as count, count(distinct d.key) as keys,
                min(d.first_failed_at) as first_failed_at, max(d.last_failed_at) as last_failed_at,
                max(d.id::text)::uuid as example
         from dead_letters d where true",
    );
    filter.push(&mut query)?;
    query.push(" group by d.failure_group");
    if let Some((count, group)) = page.after::<(i64, String)>()? {
        query.push(" having (-count(*), d.failure_group) > (").push_bind(-count).push(", ").push_bind(group);
        query.push(")");
    }
    query.push(" order by -count(*), d.failure_group limit ").push_bind(page.rows()?);
    let rows = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, page, |group: &FailureGroup| (group.count, group.failure_group.clone())))
}

/// One letter whole.
///
/// # Errors
/// [`OperateError::Unknown`] when there is none.
pub async fn show(pool: &PgPool, id: Uuid) -> Result<DeadLetterDetail, OperateError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" and d.id = ").push_bind(id);
    let row: Option<Row> = query.build_query_as().fetch_optional(pool).await?;
    let letter = row.map(DeadLetter::from).ok_or_else(|| OperateError::unknown_letter(id))?;
    type Rest = (Value, Option<Vec<u8>>);
    let (headers, payload): Rest = sqlx::query_as("select headers, payload from dead_letters where id = $1")
        .bind(id)
        .fetch_one(pool)
        .await?;
    type PatchRow = (Option<Vec<u8>>, Option<Json<HeaderChanges>>, String, DateTime<Utc>, String);
    let patch: Option<PatchRow> = sqlx::query_as(
        "select payload, headers, edited_by, edited_at, reason from dead_letter_patches where dead_letter_id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await?;
    let patch = patch.map(|(payload, headers, edited_by, edited_at, reason)| Patch {
        payload_base64: payload.map(|payload| BASE64.encode(payload)),
        headers: headers.map(|Json(headers)| headers),
        edited_by,
        edited_at,
        reason,
    });
    let replays: Vec<ReplayOfLetter> = sqlx::query_as(
        "select replay_id as operation, sent_at as at, state as outcome, why
         from replay_items where dead_letter_id = $1 order by replay_id desc limit $2",
    )
    .bind(id)
    .bind(REPLAYS_SHOWN_MAX)
    .fetch_all(pool)
    .await?;
    let discarded = match letter.state.as_str() {
        "discarded" => audit::last(pool, audit::DISCARD, &id.to_string()).await?,
        _ => None,
    };
    let discarded = discarded.map(|entry| GivenUp { by: entry.subject, at: entry.at, reason: entry.reason });
    let payload_base64 = payload.map(|payload| BASE64.encode(payload));
    Ok(DeadLetterDetail { letter, headers, payload_base64, patch, replays, discarded })
}
