//! What this database knows of one story: its messages said and heard, what is parked, what is a dead letter.
//!
//! A story is named by its correlation id, which for an order is the order's id and so the key of its messages. Outbox
//! rows are found by that key through a summary index (BRIN), from shortly before the id was made (a UUIDv7 tells its
//! time): a row of the story under another key, such as a SKU, is not found. Days of the outbox are dropped, and lists have
//! an end: the facts say so. Sagas and idempotency keys are other crates' tables.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::dead_letters::{self, DeadLetter};
use super::parked::{self, ParkedDetail};
use super::{Filter, OperateError, PageRequest, StateFilter};

/// Outbox rows of a story that are told, oldest first: an order has some twenty.
const OUTBOX_ROWS_MAX: usize = 500;
/// Message ids a caller may ask for.
pub const MESSAGE_IDS_MAX: usize = 200;
/// Clocks differ: rows may be older than the id's own time by so much.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::hours(1);

/// A story as this database knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Facts {
    /// How far back the outbox goes: what was said before is dropped, and whether and when it was heard is not asked.
    pub outbox_since: Option<DateTime<Utc>>,
    /// Which of these lists have more than is told: `outbox`, `dead_letters`.
    pub truncated: Vec<String>,
    /// What was said, in the order of saying; the first 500.
    pub outbox: Vec<Said>,
    /// What was heard, of the messages asked for and of those that caused what was said.
    pub inbox: Vec<Heard>,
    /// The key, in each group in which it is parked.
    pub parked: Vec<ParkedDetail>,
    /// Dead letters of the story, in any state; newest first, at most 500.
    pub dead_letters: Vec<DeadLetter>,
}

/// An outbox row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Said {
    /// Its place in the outbox.
    pub id: i64,
    /// `ce_id`.
    pub message_id: Uuid,
    /// With prefix.
    pub topic: String,
    /// The key.
    pub key: Option<String>,
    /// `ce_type`.
    pub kind: Option<String>,
    /// `ce_sequence`.
    pub sequence: Option<i64>,
    /// When its transaction began.
    pub created_at: DateTime<Utc>,
    /// The message it answers.
    pub causation_id: Option<Uuid>,
    /// Its trace.
    pub trace_id: Option<String>,
    /// Which appearance, on a retry topic.
    pub retry_hop: Option<i64>,
    /// Whether the relay's stored position has passed it; the position is up to a second old.
    pub published: bool,
}

/// An inbox row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Heard {
    /// The consumer group.
    pub group: String,
    /// `ce_id`.
    pub message_id: Uuid,
    /// Which appearance: 0 is the main topic's.
    pub hop: i16,
    /// When its transaction began.
    pub received_at: DateTime<Utc>,
}

/// Gathers what is known; `message_ids` are others' messages to be looked for in the inbox, at most 200.
///
/// # Errors
/// [`OperateError`].
pub async fn facts(pool: &PgPool, correlation_id: Uuid, message_ids: &[Uuid]) -> Result<Facts, OperateError> {
    if message_ids.len() > MESSAGE_IDS_MAX {
        return Err(OperateError::invalid("message_ids", format!("name at most {MESSAGE_IDS_MAX}")));
    }
    let key = correlation_id.to_string();
    let mut truncated = Vec::new();
    let mut outbox = said(pool, correlation_id, &key).await?;
    if outbox.len() > OUTBOX_ROWS_MAX {
        outbox.truncate(OUTBOX_ROWS_MAX);
        truncated.push("outbox".to_owned());
    }
    // Asked after: of a day that is dropped meanwhile it is never said that it was looked at.
    let outbox_since = outbox_since(pool).await?;
    let mut ids: Vec<Uuid> = message_ids.to_vec();
    ids.extend(outbox.iter().filter_map(|row| row.causation_id));
    ids.extend(outbox.iter().map(|row| row.message_id));
    ids.sort_unstable();
    ids.dedup();
    let inbox = sqlx::query_as(
        "select consumer_group as \"group\", message_id, hop, received_at from inbox
         -- The groups of a database are one or a few: the index is skipped through (PostgreSQL 18).
         where message_id = any($1) order by received_at, message_id, hop",
    )
    .bind(&ids)
    .fetch_all(pool)
    .await?;
    let groups: Vec<String> =
        sqlx::query_scalar("select consumer_group from parked_keys where key = $1 limit 20")
            .bind(key.as_bytes())
            .fetch_all(pool)
            .await?;
    let mut parked = Vec::new();
    for group in groups {
        match parked::show(pool, &group, key.as_bytes()).await {
            Ok(detail) => parked.push(detail),
            // Drained meanwhile.
            Err(OperateError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let filter =
        Filter { correlation_id: Some(correlation_id), state: StateFilter::Any, ..Filter::default() };
    let page = PageRequest { limit: super::LIMIT_MAX, cursor: None };
    let letters = dead_letters::list(pool, &filter, &page).await?;
    if letters.next_cursor.is_some() {
        truncated.push("dead_letters".to_owned());
    }
    Ok(Facts { outbox_since, truncated, outbox, inbox, parked, dead_letters: letters.items })
}

/// The first instant of the outbox's oldest day.
async fn outbox_since(pool: &PgPool) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar("select min(lower_bound::timestamptz) from partition_bounds('outbox')")
        .fetch_one(pool)
        .await
}

async fn said(pool: &PgPool, correlation_id: Uuid, key: &str) -> Result<Vec<Said>, sqlx::Error> {
    let since = correlation_id.get_timestamp().and_then(|time| {
        let (seconds, nanos) = time.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    });
    sqlx::query_as(
        "select o.id, o.message_id, o.topic, convert_from(o.key, 'UTF8') as key, o.headers ->> 'ce_type' as kind,
                case when o.headers ->> 'ce_sequence' ~ '^[0-9]{1,18}$' then (o.headers ->> 'ce_sequence')::bigint end
                    as sequence,
                o.created_at,
                case when o.headers ->> 'ce_causationid' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                     then (o.headers ->> 'ce_causationid')::uuid end as causation_id,
                substring(o.headers ->> 'traceparent' from '^[0-9a-f]{2}-([0-9a-f]{32})-') as trace_id,
                case when o.headers ->> 'retry_hop' ~ '^[0-9]{1,9}$' then (o.headers ->> 'retry_hop')::bigint end
                    as retry_hop,
                coalesce(pg_visible_in_snapshot(o.xid, r.position_from)
                         or pg_visible_in_snapshot(o.xid, r.position_to) and o.id <= r.position_id, false) as published
         from outbox o left join outbox_relay r on r.name = 'default'
         where o.key = $1 and o.created_at >= $2
         order by o.id limit $3",
    )
    .bind(key.as_bytes())
    .bind(since.map_or(DateTime::UNIX_EPOCH, |since| since - CLOCKS_DIFFER_MAX))
    .bind(OUTBOX_ROWS_MAX as i64 + 1)
    .fetch_all(pool)
    .await
}
