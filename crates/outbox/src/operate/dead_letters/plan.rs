//! What a selection holds, before anything is done with it.

use chrono::{DateTime, Utc};
use sqlx::{PgPool, QueryBuilder};

use super::{FailureGroupCount, GroupCount, KeyCount, Plan};
use crate::append::{CARRIED_PAYLOAD_BYTES_MAX, KEY_BYTES_MAX};
use crate::operate::{Filter, OperateError, key_shown};

/// Keys, and failure groups, that are shown.
const SHOWN_MAX: i64 = 100;
/// The class of letters whose headers can not be read (`Item::decode`).
const HEADERS_CLASS: &str = "headers";

/// Counts what a replay or a discard of these letters would touch. Changes nothing.
///
/// # Errors
/// [`OperateError`].
pub async fn plan(pool: &PgPool, filter: &Filter) -> Result<Plan, OperateError> {
    // One snapshot for all of it.
    let mut tx = pool.begin().await?;
    sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *tx).await?;

    let mut query = QueryBuilder::new(
        "select count(*), count(distinct (d.consumer_group, d.key)), min(d.last_failed_at), max(d.last_failed_at),
                count(*) filter (where d.key is null or octet_length(d.key) not between 1 and ",
    );
    query.push_bind(KEY_BYTES_MAX as i32).push(" or octet_length(coalesce(p.payload, d.payload)) > ");
    query.push_bind(CARRIED_PAYLOAD_BYTES_MAX as i32);
    // What has no readable headers is no message of a key, unless an operator has mended them.
    query.push(" or d.message_id is null or p.headers is null and d.error_class = ").push_bind(HEADERS_CLASS);
    query.push(") from dead_letters d left join dead_letter_patches p on p.dead_letter_id = d.id where true");
    filter.push(&mut query)?;
    type Totals = (i64, i64, Option<DateTime<Utc>>, Option<DateTime<Utc>>, i64);
    let (total, keys, oldest, newest, can_not_travel): Totals =
        query.build_query_as().fetch_one(&mut *tx).await?;

    let mut query = QueryBuilder::new(
        "select d.consumer_group as \"group\", count(*) as count from dead_letters d where true",
    );
    filter.push(&mut query)?;
    query
        .push(" group by d.consumer_group order by count(*) desc, d.consumer_group limit ")
        .push_bind(SHOWN_MAX);
    let by_group: Vec<GroupCount> = query.build_query_as().fetch_all(&mut *tx).await?;

    let mut query =
        QueryBuilder::new("select d.failure_group, count(*) as count from dead_letters d where true");
    filter.push(&mut query)?;
    query
        .push(" group by d.failure_group order by count(*) desc, d.failure_group limit ")
        .push_bind(SHOWN_MAX);
    let by_failure_group: Vec<FailureGroupCount> = query.build_query_as().fetch_all(&mut *tx).await?;

    let mut query = QueryBuilder::new(
        "select k.key, k.count, p.state, coalesce(p.held_count, 0)
         from (select d.consumer_group, d.key, count(*) as count from dead_letters d where true",
    );
    filter.push(&mut query)?;
    query.push(" group by d.consumer_group, d.key order by count(*) desc, d.key limit ").push_bind(SHOWN_MAX);
    query.push(
        ") k left join parked_keys p on p.consumer_group = k.consumer_group and p.key = k.key
         order by k.count desc, k.key",
    );
    type KeyRow = (Option<Vec<u8>>, i64, Option<String>, i64);
    let rows: Vec<KeyRow> = query.build_query_as().fetch_all(&mut *tx).await?;
    let by_key = rows.into_iter().map(|(key, count, parked_state, held)| {
        let (key, key_base64) = key_shown(key);
        KeyCount { key, key_base64, count, parked_state, held }
    });
    let by_key = by_key.collect();
    Ok(Plan { total, keys, by_group, by_failure_group, by_key, can_not_travel, oldest, newest })
}
