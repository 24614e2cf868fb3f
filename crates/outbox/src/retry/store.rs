//! The SQL of parked keys and held messages, set-wise.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::record::Record;

use super::key_state::KeyState;
use crate::dead_letters::{headers_json, headers_read, record_time};

/// What the parked row of a key says, written whole.
pub(crate) struct ParkedRow {
    pub(crate) key: Vec<u8>,
    pub(crate) state: KeyState,
    /// Of a retrying key: due so long from now, by the database's clock.
    pub(crate) delay: Option<Duration>,
    pub(crate) head: (Option<Uuid>, i16),
    pub(crate) attempts: i32,
    pub(crate) first_failed_at: DateTime<Utc>,
    pub(crate) last_failed_at: DateTime<Utc>,
    pub(crate) error_class: String,
    pub(crate) error_message: String,
    pub(crate) dead_letter_id: Option<Uuid>,
}

impl ParkedRow {
    fn delay_ms(&self) -> Option<i64> {
        self.delay.map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A held record, and its number in the order of arrival.
pub(crate) struct Held {
    pub(crate) id: i64,
    pub(crate) hop: i16,
    pub(crate) record: Record,
}

/// Parks keys; returns how many were not parked before. Sorted, so that two members can not lock each other out.
pub(crate) async fn parked_insert_in_tx(
    conn: &mut PgConnection,
    group: &str,
    rows: &[ParkedRow],
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "insert into parked_keys (consumer_group, key, state, tier, due_at, head_message_id, head_hop, attempts,
                                  first_failed_at, last_failed_at, error_class, error_message, dead_letter_id)
         select $1, r.key, r.state, r.tier, clock_timestamp() + r.delay_ms * interval '1 millisecond', r.head_message_id,
                r.head_hop, r.attempts, r.first_failed_at, r.last_failed_at, r.error_class, r.error_message, r.dead_letter_id
         from unnest($2::bytea[], $3::text[], $4::smallint[], $5::bigint[], $6::uuid[], $7::smallint[],
                     $8::int[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[], $13::uuid[])
              as r (key, state, tier, delay_ms, head_message_id, head_hop, attempts, first_failed_at, last_failed_at,
                    error_class, error_message, dead_letter_id)
         order by r.key
         on conflict do nothing",
    )
    .bind(group)
    .bind(rows.iter().map(|r| r.key.clone()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.state.name()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| i16::from(r.state.tier())).collect::<Vec<_>>())
    .bind(rows.iter().map(ParkedRow::delay_ms).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.head.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.head.1).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.attempts).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.first_failed_at).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.last_failed_at).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.error_class.clone()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.error_message.clone()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.dead_letter_id).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Rewrites the row of a parked key that the caller has locked. A dead letter that is being replayed stays linked.
pub(crate) async fn parked_update_in_tx(
    conn: &mut PgConnection,
    group: &str,
    row: &ParkedRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update parked_keys
         set state = $3, tier = $4, due_at = clock_timestamp() + $5::bigint * interval '1 millisecond', head_message_id = $6, head_hop = $7, attempts = $8,
             first_failed_at = $9, last_failed_at = $10, error_class = $11, error_message = $12,
             dead_letter_id = coalesce($13, case when head_message_id is not distinct from $6 then dead_letter_id end),
             updated_at = now()
         where consumer_group = $1 and key = $2",
    )
    .bind(group)
    .bind(&row.key)
    .bind(row.state.name())
    .bind(i16::from(row.state.tier()))
    .bind(row.delay_ms())
    .bind(row.head.0)
    .bind(row.head.1)
    .bind(row.attempts)
    .bind(row.first_failed_at)
    .bind(row.last_failed_at)
    .bind(&row.error_class)
    .bind(&row.error_message)
    .bind(row.dead_letter_id)
    .execute(conn)
    .await
    .map(|_| ())
}

/// The key's head is out of the way: its held messages are next. A dead letter it was a replay of is resolved.
pub(crate) async fn parked_drain_in_tx(
    conn: &mut PgConnection,
    group: &str,
    key: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with resolved as (
             update dead_letters d set state = 'resolved'
             from parked_keys p
             where p.consumer_group = $1 and p.key = $2 and d.id = p.dead_letter_id and d.state = 'replaying')
         update parked_keys
         set state = 'draining', tier = 0, due_at = null, head_message_id = null, head_hop = 0, dead_letter_id = null,
             updated_at = now()
         where consumer_group = $1 and key = $2",
    )
    .bind(group)
    .bind(key)
    .execute(conn)
    .await
    .map(|_| ())
}

/// Holds records of parked keys whose rows the caller has locked, in the order given: record, message id, hop.
pub(crate) async fn held_insert_in_tx(
    conn: &mut PgConnection,
    group: &str,
    held: &[(&Record, Option<Uuid>, i16)],
) -> Result<(), sqlx::Error> {
    let bytes = |record: &Record| i64::try_from(record.bytes()).unwrap_or(i64::MAX);
    sqlx::query(
        "with held as (
             insert into held_messages (consumer_group, key, message_id, hop, topic, partition, \"offset\", record_time,
                                        headers, payload, bytes)
             select $1, h.key, h.message_id, h.hop, h.topic, h.partition, h.place, h.record_time, h.headers::json,
                    h.payload, h.bytes
             from unnest($2::bytea[], $3::uuid[], $4::smallint[], $5::text[], $6::int[], $7::bigint[], $8::timestamptz[],
                         $9::text[], $10::bytea[], $11::bigint[]) with ordinality
                  as h (key, message_id, hop, topic, partition, place, record_time, headers, payload, bytes, number)
             order by h.number
             returning key, bytes)
         update parked_keys p
         set held_count = p.held_count + h.count, held_bytes = p.held_bytes + h.bytes, updated_at = now()
         from (select key, count(*) as count, sum(bytes)::bigint as bytes from held group by key) h
         where p.consumer_group = $1 and p.key = h.key",
    )
    .bind(group)
    .bind(held.iter().map(|(r, ..)| r.key.as_deref().unwrap_or_default().to_vec()).collect::<Vec<_>>())
    .bind(held.iter().map(|(_, id, _)| *id).collect::<Vec<_>>())
    .bind(held.iter().map(|(.., hop)| *hop).collect::<Vec<_>>())
    .bind(held.iter().map(|(r, ..)| r.topic.clone()).collect::<Vec<_>>())
    .bind(held.iter().map(|(r, ..)| r.partition).collect::<Vec<_>>())
    .bind(held.iter().map(|(r, ..)| r.offset).collect::<Vec<_>>())
    .bind(held.iter().map(|(r, ..)| record_time(r)).collect::<Vec<_>>())
    .bind(held.iter().map(|(r, ..)| headers_json(r)).collect::<Vec<_>>())
    .bind(held.iter().map(|(r, ..)| r.payload.as_ref().map(|b| b.to_vec())).collect::<Vec<_>>())
    .bind(held.iter().map(|(r, ..)| bytes(r)).collect::<Vec<_>>())
    .execute(conn)
    .await
    .map(|_| ())
}

/// Bytes held for the group.
pub(crate) async fn held_bytes(conn: &mut PgConnection, group: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(sum(held_bytes), 0)::bigint from parked_keys where consumer_group = $1",
    )
    .bind(group)
    .fetch_one(conn)
    .await
}

/// Keys that are draining but not among `without`, those that wait longest first.
pub(crate) async fn draining_keys(
    conn: &mut PgConnection,
    group: &str,
    without: &[Vec<u8>],
    limit: i64,
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar(
        "select key from parked_keys
         where consumer_group = $1 and state = 'draining' and key <> all($2) order by updated_at limit $3",
    )
    .bind(group)
    .bind(without)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// Locks a draining key; `false` when another member drains it, or it is not draining (any more).
pub(crate) async fn draining_lock_in_tx(
    conn: &mut PgConnection,
    group: &str,
    key: &[u8],
) -> Result<bool, sqlx::Error> {
    let locked: Option<i32> = sqlx::query_scalar(
        // Skipped when locked: who has it drains it, or adds to it, and the key comes up again.
        "select 1 from parked_keys where consumer_group = $1 and key = $2 and state = 'draining' for update skip locked",
    )
    .bind(group)
    .bind(key)
    .fetch_optional(conn)
    .await?;
    Ok(locked.is_some())
}

/// Id, hop, topic, partition, offset, time, headers, payload.
type HeldRow = (i64, i16, String, i32, i64, Option<DateTime<Utc>>, Value, Option<Vec<u8>>);

/// The oldest held messages of a key the caller has locked.
pub(crate) async fn held_first_in_tx(
    conn: &mut PgConnection,
    group: &str,
    key: &[u8],
    limit: i64,
) -> Result<Vec<Held>, sqlx::Error> {
    let rows: Vec<HeldRow> = sqlx::query_as(
        "select id, hop, topic, partition, \"offset\", record_time, headers, payload
         from held_messages where consumer_group = $1 and key = $2 order by id limit $3",
    )
    .bind(group)
    .bind(key)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    let held = |(id, hop, topic, partition, offset, time, headers, payload): HeldRow| {
        let headers = headers_read(&headers).ok_or_else(|| {
            sqlx::Error::Protocol(format!("held_messages {id} has headers of another form"))
        })?;
        let record = Record {
            topic,
            partition,
            offset,
            timestamp_ms: time.map(|time| time.timestamp_millis()),
            key: Some(key.to_vec().into()),
            headers,
            payload: payload.map(Into::into),
        };
        Ok(Held { id, hop, record })
    };
    rows.into_iter().map(held).collect()
}

/// Takes the held messages of a key up to `last_id` off; returns how many are left.
pub(crate) async fn held_delete_in_tx(
    conn: &mut PgConnection,
    group: &str,
    key: &[u8],
    last_id: i64,
) -> Result<u64, sqlx::Error> {
    let left: i64 = sqlx::query_scalar(
        "with gone as (
             delete from held_messages where consumer_group = $1 and key = $2 and id <= $3 returning bytes)
         update parked_keys
         set held_count = held_count - (select count(*) from gone),
             held_bytes = held_bytes - (select coalesce(sum(bytes), 0)::bigint from gone),
             -- Behind the other draining keys: each gets its turn.
             updated_at = clock_timestamp()
         where consumer_group = $1 and key = $2
         returning held_count",
    )
    .bind(group)
    .bind(key)
    .bind(last_id)
    .fetch_one(conn)
    .await?;
    Ok(u64::try_from(left).unwrap_or_default())
}

/// Unparks a key of which nothing is held; the foreign key refuses it otherwise.
pub(crate) async fn parked_delete_in_tx(
    conn: &mut PgConnection,
    group: &str,
    key: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query("delete from parked_keys where consumer_group = $1 and key = $2")
        .bind(group)
        .bind(key)
        .execute(conn)
        .await
        .map(|_| ())
}

/// Open dead letters that are counted at most: a bounded read of an index that has the open ones alone.
pub(crate) const LETTERS_COUNTED_MAX: i64 = 100_000;

/// Open dead letters of the group, at most [`LETTERS_COUNTED_MAX`]: for the metrics.
pub(crate) async fn letters_open(conn: &mut PgConnection, group: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select count(*) from (
             select from dead_letters where consumer_group = $1 and state = 'open' limit $2) open",
    )
    .bind(group)
    .bind(LETTERS_COUNTED_MAX)
    .fetch_one(conn)
    .await
}

/// What time it is at the database, and how many keys' heads were due there longer than `since` ago.
pub(crate) async fn keys_overdue(
    conn: &mut PgConnection,
    group: &str,
    since: Duration,
) -> Result<(DateTime<Utc>, i64), sqlx::Error> {
    sqlx::query_as(
        "select clock_timestamp(), count(*) from parked_keys
         where consumer_group = $1 and state = 'retrying' and due_at < now() - $2 * interval '1 second'",
    )
    .bind(group)
    .bind(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    .fetch_one(conn)
    .await
}

/// State, keys, held messages, held bytes: for the metrics.
pub(crate) async fn parked_summary(
    conn: &mut PgConnection,
    group: &str,
) -> Result<Vec<(String, i64, i64, i64)>, sqlx::Error> {
    sqlx::query_as(
        "select state, count(*), coalesce(sum(held_count), 0)::bigint, coalesce(sum(held_bytes), 0)::bigint
         from parked_keys where consumer_group = $1 group by state",
    )
    .bind(group)
    .fetch_all(conn)
    .await
}
