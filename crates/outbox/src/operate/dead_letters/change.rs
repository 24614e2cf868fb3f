//! Edit and discard.

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, QueryBuilder};
use uuid::Uuid;

use super::{DeadLetterDetail, show};
use crate::append::CARRIED_PAYLOAD_BYTES_MAX;
use crate::operate::{Change, Filter, OperateError, audit};
use crate::retry::header_changes::{self, HeaderChanges};
use crate::retry::operate::letter_record;

/// Most letters of one bulk edit: their payloads are in one request.
pub const EDITS_MAX: usize = 500;
/// Most letters that are discarded at once: one transaction, which holds the locks of their keys.
const DISCARDS_MAX: u64 = 50_000;

/// Another payload, or other headers, for a letter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// The letter.
    pub id: Uuid,
    /// The whole framed value; `None`: the original's.
    pub payload: Option<Vec<u8>>,
    /// Changes of headers in place of those there are, none when it is empty; `None`: those there are stay.
    pub headers: Option<HeaderChanges>,
    /// When the patch the caller has seen was made, `Some(None)` when there was none: another one now is a 409. `None`:
    /// whatever there is.
    pub expect_edited_at: Option<Option<DateTime<Utc>>>,
}

/// Puts a payload, or changes of headers, beside an open letter's original, or takes them away; a replay and a dry run use
/// them. Whether its group can read the payload is the caller's to check (`DryRun::check`).
///
/// # Errors
/// [`OperateError`]; 409 unless open.
pub async fn edit(pool: &PgPool, edit: Edit, change: &Change) -> Result<DeadLetterDetail, OperateError> {
    let id = edit.id;
    edit_many(pool, &[edit], change).await?;
    show(pool, id).await
}

/// As [`edit`], at most 500 letters in one transaction: all or none. Returns how many.
///
/// # Errors
/// [`OperateError`]; 409 unless all are open.
pub async fn edit_many(pool: &PgPool, edits: &[Edit], change: &Change) -> Result<u64, OperateError> {
    check(edits)?;
    let ids: Vec<Uuid> = edits.iter().map(|edit| edit.id).collect();
    let mut tx = pool.begin().await?;
    open_lock_in_tx(&mut tx, &ids).await?;
    seen_check_in_tx(&mut tx, edits, &ids).await?;
    let headers = headers_in_tx(&mut tx, edits, &ids).await?;
    let all = edits.iter().zip(headers);
    type Wanted<'a> = (&'a Edit, Option<String>);
    let (set, gone): (Vec<Wanted<'_>>, Vec<Wanted<'_>>) =
        all.partition(|(edit, headers)| edit.payload.is_some() || headers.is_some());
    sqlx::query(
        "insert into dead_letter_patches (dead_letter_id, payload, headers, edited_by, reason)
         select p.id, p.payload, p.headers::json, $4, $5
         from unnest($1::uuid[], $2::bytea[], $3::text[]) as p (id, payload, headers)
         on conflict (dead_letter_id) do update
         set payload = excluded.payload, headers = excluded.headers, edited_by = excluded.edited_by, edited_at = now(),
             reason = excluded.reason",
    )
    .bind(set.iter().map(|(edit, _)| edit.id).collect::<Vec<_>>())
    .bind(set.iter().map(|(edit, _)| edit.payload.clone()).collect::<Vec<_>>())
    .bind(set.iter().map(|(_, headers)| headers.clone()).collect::<Vec<_>>())
    .bind(change.by())
    .bind(change.reason())
    .execute(&mut *tx)
    .await?;
    let gone: Vec<Uuid> = gone.iter().map(|(edit, _)| edit.id).collect();
    sqlx::query("delete from dead_letter_patches where dead_letter_id = any($1)")
        .bind(&gone)
        .execute(&mut *tx)
        .await?;
    let names = |ids: &mut dyn Iterator<Item = Uuid>| ids.map(|id| id.to_string()).collect::<Vec<_>>();
    let set = names(&mut set.iter().map(|(edit, _)| edit.id));
    audit::insert_many_in_tx(&mut tx, change, "dead_letters.edit", &set, "patched").await?;
    let gone = names(&mut gone.into_iter());
    audit::insert_many_in_tx(&mut tx, change, "dead_letters.edit", &gone, "patch removed").await?;
    tx.commit().await?;
    Ok(edits.len() as u64)
}

fn check(edits: &[Edit]) -> Result<(), OperateError> {
    if edits.is_empty() || edits.len() > EDITS_MAX {
        return Err(OperateError::invalid("items", format!("name 1..={EDITS_MAX} dead letters")));
    }
    let mut ids: Vec<Uuid> = edits.iter().map(|edit| edit.id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != edits.len() {
        return Err(OperateError::invalid("items", "a dead letter comes twice"));
    }
    let too_large = |edit: &&Edit| edit.payload.as_ref().is_some_and(|p| p.len() > CARRIED_PAYLOAD_BYTES_MAX);
    if let Some(edit) = edits.iter().find(too_large) {
        let why = format!("the payload for {} has more than {CARRIED_PAYLOAD_BYTES_MAX} bytes", edit.id);
        return Err(OperateError::invalid("payload_base64", why));
    }
    let mut changes = edits.iter().filter_map(|edit| edit.headers.as_ref());
    changes.try_for_each(header_changes::check).map_err(|why| OperateError::invalid("headers", why))
}

/// Each letter's changes of headers as they are to be, as JSON; `None`: none. A letter whose headers could not be read with
/// them is refused.
async fn headers_in_tx(
    conn: &mut PgConnection,
    edits: &[Edit],
    ids: &[Uuid],
) -> Result<Vec<Option<String>>, OperateError> {
    let there: Vec<(Uuid, Json<HeaderChanges>)> = sqlx::query_as(
        "select dead_letter_id, headers from dead_letter_patches
         where dead_letter_id = any($1) and headers is not null",
    )
    .bind(ids)
    .fetch_all(&mut *conn)
    .await?;
    let mut wanted = Vec::with_capacity(edits.len());
    for Edit { id, headers, .. } in edits {
        let there = there.iter().find(|(of, _)| of == id).map(|(_, Json(changes))| changes);
        let changes = headers.as_ref().or(there).filter(|changes| !changes.is_empty());
        if headers.is_some()
            && let Some(changes) = changes
        {
            let mut record = letter_record(conn, *id).await?;
            header_changes::apply(changes, &mut record);
            waybill_messaging::headers::decode(&record).map_err(|error| {
                OperateError::invalid("headers", format!("with these {id} could not be read: {error}"))
            })?;
        }
        wanted.push(changes.and_then(|changes| serde_json::to_string(changes).ok()));
    }
    Ok(wanted)
}

/// Locks these letters, all of them there and open.
async fn open_lock_in_tx(conn: &mut PgConnection, ids: &[Uuid]) -> Result<(), OperateError> {
    let found: Vec<(Uuid, String)> =
        sqlx::query_as("select id, state from dead_letters where id = any($1) order by id for update")
            .bind(ids)
            .fetch_all(conn)
            .await?;
    if let Some(id) = ids.iter().find(|id| !found.iter().any(|(known, _)| known == *id)) {
        return Err(OperateError::unknown_letter(*id));
    }
    match found.iter().find(|(_, state)| state != "open") {
        Some((id, state)) => Err(OperateError::letter_not_open(*id, state)),
        None => Ok(()),
    }
}

/// Refuses when somebody has edited meanwhile what the caller has seen; the letters are locked.
async fn seen_check_in_tx(conn: &mut PgConnection, edits: &[Edit], ids: &[Uuid]) -> Result<(), OperateError> {
    if edits.iter().all(|edit| edit.expect_edited_at.is_none()) {
        return Ok(());
    }
    let patches: Vec<(Uuid, DateTime<Utc>, String)> = sqlx::query_as(
        "select dead_letter_id, edited_at, edited_by from dead_letter_patches where dead_letter_id = any($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    for edit in edits {
        let Some(expected) = edit.expect_edited_at else { continue };
        let patch = patches.iter().find(|(id, ..)| *id == edit.id);
        if patch.map(|(_, at, _)| *at) != expected {
            let by = patch
                .map(|(_, at, by)| format!("{by} at {}", at.to_rfc3339_opts(SecondsFormat::Micros, true)));
            return Err(OperateError::EditedMeanwhile {
                id: edit.id,
                by: by.unwrap_or_else(|| "nobody".to_owned()),
            });
        }
    }
    Ok(())
}

/// Gives up every open letter that fulfils the filter, when there are exactly `expect` of them, and lets the keys they
/// block go on. Returns how many.
///
/// # Errors
/// [`OperateError::Count`] when there is another number; [`OperateError::TooMany`] above 50,000.
pub async fn discard(
    pool: &PgPool,
    filter: &Filter,
    expect: u64,
    change: &Change,
) -> Result<u64, OperateError> {
    filter.open_only()?;
    let mut tx = pool.begin().await?;
    let mut query = QueryBuilder::new("select d.id from dead_letters d where true");
    filter.push(&mut query)?;
    query.push(" order by d.id limit ").push_bind(i64::try_from(DISCARDS_MAX).unwrap_or(i64::MAX) + 1);
    let ids: Vec<Uuid> = query.build_query_scalar().fetch_all(&mut *tx).await?;
    let found = ids.len() as u64;
    if found > DISCARDS_MAX {
        return Err(OperateError::TooMany { what: "dead letters", found, max: DISCARDS_MAX });
    }
    if found != expect {
        return Err(OperateError::Count { expected: expect, found });
    }
    let discarded = discard_in_tx(&mut tx, &ids).await?;
    if discarded != expect {
        return Err(OperateError::Count { expected: expect, found: discarded });
    }
    let targets: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let outcome = format!("discarded, one of {discarded}");
    audit::insert_many_in_tx(&mut tx, change, audit::DISCARD, &targets, &outcome).await?;
    tx.commit().await?;
    Ok(discarded)
}

/// As `retry::operate::discard_in_tx`, for many: keys first, in their order, as everybody locks.
async fn discard_in_tx(conn: &mut PgConnection, ids: &[Uuid]) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "select from parked_keys p
         where (p.consumer_group, p.key) in (select d.consumer_group, d.key from dead_letters d where d.id = any($1))
         order by p.consumer_group, p.key for update",
    )
    .bind(ids)
    .execute(&mut *conn)
    .await?;
    let discarded: i64 = sqlx::query_scalar(
        "with gone as (
             update dead_letters set state = 'discarded' where id = any($1) and state = 'open' returning id),
         drained as (
             update parked_keys
             set state = 'draining', tier = 0, due_at = null, head_message_id = null, head_hop = 0, dead_letter_id = null,
                 updated_at = now()
             where state = 'blocked' and dead_letter_id in (select id from gone))
         select count(*) from gone",
    )
    .bind(ids)
    .fetch_one(conn)
    .await?;
    Ok(u64::try_from(discarded).unwrap_or_default())
}
