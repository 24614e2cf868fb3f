//! The values of many letters, for a transformation of all of them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::LetterValue;
use crate::operate::OperateError;

/// Most letters that are asked for at once: as many as one bulk edit takes.
pub const VALUES_MAX: usize = super::EDITS_MAX;
/// Bytes of one answer, but for its last value: in base64 a half more, and in memory on both sides.
const VALUES_BYTES_MAX: i64 = 4 * 1024 * 1024;

type Row = (Uuid, String, Option<String>, bool, Option<DateTime<Utc>>, Option<Vec<u8>>);

/// What a replay would send of these letters: the patch, else the original. In the order given; the first of them, as many
/// as have 4 MiB together, at least one: the caller asks again for the rest.
///
/// # Errors
/// [`OperateError`]; 404 when one of them does not exist.
pub async fn values(pool: &PgPool, ids: &[Uuid]) -> Result<Vec<LetterValue>, OperateError> {
    if ids.is_empty() || ids.len() > VALUES_MAX {
        return Err(OperateError::invalid("ids", format!("name 1..={VALUES_MAX} dead letters")));
    }
    let rows: Vec<Row> = sqlx::query_as(
        "with asked as (
             select d.id, w.place, p.payload is not null as patched,
                    -- The sizes are read without the bytes.
                    sum(coalesce(octet_length(p.payload), octet_length(d.payload), 0)) over (order by w.place)
                        - coalesce(octet_length(p.payload), octet_length(d.payload), 0) as bytes_before
             from unnest($1::uuid[]) with ordinality as w (id, place)
             join dead_letters d on d.id = w.id
             left join dead_letter_patches p on p.dead_letter_id = d.id)
         select d.id, d.state, d.kind, a.patched, p.edited_at, case when a.patched then p.payload else d.payload end
         from asked a
         join dead_letters d on d.id = a.id
         left join dead_letter_patches p on p.dead_letter_id = a.id
         where a.bytes_before < $2
         order by a.place",
    )
    .bind(ids)
    .bind(VALUES_BYTES_MAX)
    .fetch_all(pool)
    .await?;
    // Those there are, in the order given: the first that is not in its place does not exist.
    if let Some((wanted, _)) = ids.iter().zip(&rows).find(|(wanted, row)| **wanted != row.0) {
        return Err(OperateError::unknown_letter(*wanted));
    }
    if let (true, Some(missing)) = (rows.len() < ids.len(), missing(pool, ids).await?) {
        return Err(OperateError::unknown_letter(missing));
    }
    let value = |(id, state, kind, patched, edited_at, payload): Row| {
        let payload_base64 = payload.map(|payload| BASE64.encode(payload));
        LetterValue { id, state, kind, patched, edited_at, payload_base64 }
    };
    Ok(rows.into_iter().map(value).collect())
}

/// Group and type of each of these letters that exists; neither ever changes.
///
/// # Errors
/// [`OperateError`].
pub async fn kinds(
    pool: &PgPool,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, (String, Option<String>)>, OperateError> {
    let rows: Vec<(Uuid, String, Option<String>)> =
        sqlx::query_as("select id, consumer_group, kind from dead_letters where id = any($1)")
            .bind(ids)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(|(id, group, kind)| (id, (group, kind))).collect())
}

/// The first of these that does not exist.
async fn missing(pool: &PgPool, ids: &[Uuid]) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select w.id from unnest($1::uuid[]) with ordinality as w (id, place)
         where not exists (select from dead_letters d where d.id = w.id) order by w.place limit 1",
    )
    .bind(ids)
    .fetch_optional(pool)
    .await
}
