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

/// Looks at the position of relay `default` and at the outbox. Costs a probe of each partition's indexes; when they tell
/// of more than `rows_max` rows, at most about as many rows are read to count them.
///
/// # Errors
/// What the database said.
pub async fn look(pool: &PgPool, rows_max: u32) -> Result<Backlog, sqlx::Error> {
    let (at_most, oldest_age_s): (Option<i64>, Option<f64>) = sqlx::query_as(
        "select (select max(id) from outbox) - min(o.id) + 1,
                extract(epoch from clock_timestamp() - min(o.created_at))::float8
         from outbox_relay r cross join lateral (
             -- Two probes, as the relay reads: what began after the position, and what was open then.
             (select id, created_at from outbox where xid >= pg_snapshot_xmax(r.position_from) order by xid, id limit 1)
             union all
             (select id, created_at from outbox where xid = any (array(select pg_snapshot_xip(r.position_from)))
              order by id limit 1)
         ) o
         where r.name = 'default'",
    )
    .fetch_one(pool)
    .await?;
    let oldest_age = oldest_age_s.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    let at_most = u64::try_from(at_most.unwrap_or(0)).unwrap_or(0);
    // Ids have gaps, and a transaction that was open for long has old ones: only a count is a reason to refuse.
    let rows = if at_most > u64::from(rows_max) { count(pool, rows_max).await? } else { at_most };
    Ok(Backlog { rows, oldest_age: oldest_age.filter(|_| rows > 0) })
}

async fn count(pool: &PgPool, rows_max: u32) -> Result<u64, sqlx::Error> {
    let rows: i64 = sqlx::query_scalar(
        "select count(*) from outbox_relay r cross join lateral (
             select from (
                 select id, xid from outbox where xid >= pg_snapshot_xmax(r.position_from)
                 union all
                 select id, xid from outbox where xid = any (array(select pg_snapshot_xip(r.position_from)))
             ) o
             -- Inside a large round, what is published of it does not wait.
             where r.position_to is null or o.id > r.position_id or not pg_visible_in_snapshot(o.xid, r.position_to)
             limit $1
         ) waiting
         where r.name = 'default'",
    )
    .bind(i64::from(rows_max) + 1)
    .fetch_one(pool)
    .await?;
    Ok(u64::try_from(rows).unwrap_or(0))
}
