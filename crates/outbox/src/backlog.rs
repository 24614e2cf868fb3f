//! How much waits to be published: an estimate by a few index probes, a bounded count only when that is high.

use std::time::Duration;

use sqlx::PgPool;

/// What waits to be published. The relay stores its position some seconds late, so a little of it may be out already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Rows: an upper bound while it is low, else counted, but not further than one above the given bound.
    pub rows: u64,
    /// Age of the oldest, by the database's clock; `None` when nothing waits.
    pub oldest_age: Option<Duration>,
}

/// Two probes, as the relay reads: what began after the position, and what was open then. Ordered as the index is: by the
/// id alone, a plan may walk through whole days.
const PROBE: &str = "
with relay as materialized (
    select position_from from outbox_relay where name = 'default'
), first as (
    (select id, created_at from outbox
     where xid >= (select pg_snapshot_xmax(position_from) from relay) order by xid, id limit 1)
    union all
    (select id, created_at from outbox
     where xid = any (array(select pg_snapshot_xip(position_from) from relay)) order by xid, id limit 1)
)
select (select max(id) from outbox) - min(id) + 1, extract(epoch from clock_timestamp() - min(created_at))::float8
from first";

/// Looks at the position of relay `default` and at the outbox. Costs a probe of each partition's indexes; when they tell
/// of more than `rows_max` rows, at most about as many rows are read to count them.
///
/// # Errors
/// What the database said.
pub async fn look(pool: &PgPool, rows_max: u32) -> Result<Backlog, sqlx::Error> {
    let (at_most, oldest_age_s): (Option<i64>, Option<f64>) = sqlx::query_as(PROBE).fetch_one(pool).await?;
    let oldest_age = oldest_age_s.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    let at_most = u64::try_from(at_most.unwrap_or(0)).unwrap_or(0);
    // Ids have gaps, and a transaction that was open for long has old ones: only a count is a reason to refuse.
    let rows = if at_most > u64::from(rows_max) { count(pool, rows_max).await? } else { at_most };
    Ok(Backlog { rows, oldest_age: oldest_age.filter(|_| rows > 0) })
}

/// Ordered, so that both parts are read from the index: without it a plan may read a whole day to find its last rows.
const COUNT: &str = "
with relay as materialized (
    select position_from, position_to, position_id from outbox_relay where name = 'default'
), waiting as (
    (select from outbox
     where xid >= (select pg_snapshot_xmax(position_from) from relay)
       -- Inside a large round, what is published of it does not wait.
       and not coalesce(pg_visible_in_snapshot(xid, (select position_to from relay))
                        and id <= (select position_id from relay), false)
     order by xid, id limit $1)
    union all
    (select from outbox
     where xid = any (array(select pg_snapshot_xip(position_from) from relay))
       and not coalesce(pg_visible_in_snapshot(xid, (select position_to from relay))
                        and id <= (select position_id from relay), false)
     order by xid, id limit $1)
)
select least(count(*), $1) from waiting";

async fn count(pool: &PgPool, rows_max: u32) -> Result<u64, sqlx::Error> {
    let rows: i64 = sqlx::query_scalar(COUNT).bind(i64::from(rows_max) + 1).fetch_one(pool).await?;
    Ok(u64::try_from(rows).unwrap_or(0))
}
