//! `/outbox`: how it stands, and publishing a part of it again.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_http::ApiError;
use waybill_http::detached::run_to_end;
use waybill_http::json::Json;
use waybill_http::openapi::{ReadRefusals, WriteRefusals};
use waybill_outbox::operate::audit;
use waybill_outbox::republish::{self, ROWS_MAX, Republication, Selection};
use waybill_outbox::status::{self, RELAY_DEFAULT, Status};

use super::Operated;
use super::access::Operator;
use super::refusals::{republish_refused, status_refused};

/// How the outbox stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutboxBody {
    /// How far the relay has published; stored about a second late.
    position: PositionBody,
    /// Who publishes.
    lease: LeaseBody,
    /// When the oldest row that waits was appended.
    oldest_unpublished_at: Option<DateTime<Utc>>,
    /// Rows that wait; null when they are more than 1,000,000.
    unpublished_rows: Option<u64>,
    /// Its days, oldest first.
    partitions: Vec<PartitionBody>,
}

/// The relay's position.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PositionBody {
    /// Everything visible in this snapshot is published.
    from: String,
    /// Inside a round: what is visible in this one too is published up to `id`.
    to: Option<String>,
    /// See `to`.
    id: i64,
    /// When position or lease were written last.
    updated_at: DateTime<Utc>,
}

/// The relay's lease.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LeaseBody {
    /// Who has it; null when nobody does.
    owner: Option<String>,
    /// When it ends unless it is renewed.
    expires_at: Option<DateTime<Utc>>,
    /// Counts the leases taken.
    epoch: i64,
}

/// One day of the outbox.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartitionBody {
    /// The table.
    name: String,
    /// First instant.
    from: DateTime<Utc>,
    /// First instant after.
    to: DateTime<Utc>,
    /// As the last ANALYZE or VACUUM saw it.
    rows_estimate: i64,
    /// On disk, indexes included.
    bytes: i64,
    /// Whether every relay has published all of it.
    published: bool,
}

impl From<Status> for OutboxBody {
    fn from(status: Status) -> Self {
        let Status { relay, oldest_unpublished_at, unpublished_rows, partitions } = status;
        let partitions = partitions.into_iter().map(|day| PartitionBody {
            name: day.name,
            from: day.starts_at,
            to: day.ends_at,
            rows_estimate: day.rows_estimate,
            bytes: day.bytes,
            published: day.published,
        });
        Self {
            position: PositionBody {
                from: relay.position_from,
                to: relay.position_to,
                id: relay.position_id,
                updated_at: relay.updated_at,
            },
            lease: LeaseBody { owner: relay.owner, expires_at: relay.lease_expires_at, epoch: relay.epoch },
            oldest_unpublished_at,
            unpublished_rows,
            partitions: partitions.collect(),
        }
    }
}

/// How the outbox stands: the relay's position and lease, what waits, the days.
#[utoipa::path(get, path = "/operator/v1/outbox", tag = "outbox", operation_id = "outbox_status",
    responses((status = 200, description = "How it stands.", body = OutboxBody), ReadRefusals))]
pub(super) async fn status(State(operated): State<Operated>) -> Result<Json<OutboxBody>, ApiError> {
    let mut conn = operated.pool.acquire().await?;
    let status = status::read(&mut conn, RELAY_DEFAULT).await.map_err(status_refused)?;
    Ok(Json(status.into()))
}

/// What to publish again: by time, by row ids, or by message ids; exactly one of the three.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RepublishBody {
    /// Appended at or after this time.
    from: Option<DateTime<Utc>>,
    /// Appended before this time.
    to: Option<DateTime<Utc>>,
    /// First row.
    from_id: Option<i64>,
    /// Last row.
    to_id: Option<i64>,
    /// These messages.
    #[schema(max_items = 100_000)]
    message_ids: Option<Vec<Uuid>>,
    /// Why; required to apply.
    reason: Option<String>,
    /// Whether to do it; else it is only counted.
    #[serde(default)]
    #[schema(default = false)]
    apply: bool,
    /// More rows than this are refused.
    #[schema(minimum = 1, maximum = 100_000, default = 100_000)]
    limit: Option<u32>,
}

/// What is or would be published again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RepublicationBody {
    /// Rows.
    rows: u64,
    /// By topic.
    topics: Vec<TopicBody>,
    /// When the oldest was appended first.
    first_at: Option<DateTime<Utc>>,
    /// When the newest was appended first.
    last_at: Option<DateTime<Utc>>,
    /// Rows appended before this were not looked at; null: none.
    searched_from: Option<DateTime<Utc>>,
    /// Rows appended at or after this were not looked at; null: none.
    searched_to: Option<DateTime<Utc>>,
    /// Whether it was done.
    applied: bool,
}

/// Rows of one topic.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TopicBody {
    /// With prefix.
    topic: String,
    /// Rows.
    count: u64,
    /// Bytes of their payloads.
    bytes: u64,
}

impl From<Republication> for RepublicationBody {
    fn from(done: Republication) -> Self {
        let topics = done.topics.into_iter();
        Self {
            rows: done.rows,
            topics: topics.map(|t| TopicBody { topic: t.topic, count: t.rows, bytes: t.bytes }).collect(),
            first_at: done.first_at,
            last_at: done.last_at,
            searched_from: done.searched_from,
            searched_to: done.searched_to,
            applied: done.applied,
        }
    }
}

/// Publishes a part of the outbox again, or only counts it.
///
/// The same messages with the same ids, in the same order per key: consumers drop the ids they know.
#[utoipa::path(post, path = "/operator/v1/outbox/republish", tag = "outbox", operation_id = "outbox_republish",
    request_body = RepublishBody,
    responses((status = 200, description = "What is chosen.", body = RepublicationBody), WriteRefusals))]
pub(super) async fn republish(
    State(operated): State<Operated>,
    operator: Operator,
    Json(body): Json<RepublishBody>,
) -> Result<Json<RepublicationBody>, ApiError> {
    let (selection, limit) = (selection(&body)?, body.limit.unwrap_or(ROWS_MAX));
    if !body.apply {
        // In a transaction, since the longer time limit of its statement is the transaction's.
        let mut tx = operated.pool.begin().await?;
        let planned = republish::plan(&mut tx, &selection, limit).await.map_err(republish_refused)?;
        return Ok(Json(planned.into()));
    }
    let missing = || ApiError::field("reason", "missing", "say why: it is kept in the audit");
    let change = operator.wishes(body.reason.as_deref().ok_or_else(missing)?)?;
    run_to_end(async move {
        let mut tx = operated.pool.begin().await?;
        let done = republish::apply(&mut tx, &selection, limit).await.map_err(republish_refused)?;
        let outcome = format!("{} rows", done.rows);
        audit::insert_in_tx(&mut tx, &change, "outbox.republish", &described(&selection), &outcome).await?;
        tx.commit().await?;
        Ok(Json(done.into()))
    })
    .await
}

fn selection(body: &RepublishBody) -> Result<Selection, ApiError> {
    match (body.from, body.to, body.from_id, body.to_id, &body.message_ids) {
        (Some(from), Some(to), None, None, None) => Ok(Selection::Time { from, to }),
        (None, None, Some(from), Some(to), None) => Ok(Selection::Ids { from, to }),
        (None, None, None, None, Some(ids)) if ids.len() <= ROWS_MAX as usize => {
            Ok(Selection::Messages(ids.clone()))
        }
        (None, None, None, None, Some(_)) => {
            Err(ApiError::field("message_ids", "out_of_range", format!("name at most {ROWS_MAX}")))
        }
        _ => Err(ApiError::field("", "invalid", "write from and to, or from_id and to_id, or message_ids")),
    }
}

fn described(selection: &Selection) -> String {
    match selection {
        Selection::Time { from, to } => format!("appended {from} to {to}"),
        Selection::Ids { from, to } => format!("rows {from} to {to}"),
        Selection::Messages(ids) => {
            let first: Vec<String> = ids.iter().take(10).map(Uuid::to_string).collect();
            format!("{} messages: {}", ids.len(), first.join(" "))
        }
    }
}
