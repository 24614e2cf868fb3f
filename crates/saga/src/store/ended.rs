//! What becomes of ended sagas: they are deleted, and the horizon tells up to when.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::postgres::types::PgInterval;

/// Moves the horizon up to `age` ago, never back, before anything is deleted; returns the time that is `age` ago.
pub(crate) async fn horizon_advance(pool: &PgPool, age: &PgInterval) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar(
        "with cut as materialized (select now() - $1 as at), moved as (
            insert into saga_horizon (ended_before) select at from cut
            on conflict (the_one) do update
                set ended_before = greatest(saga_horizon.ended_before, excluded.ended_before)
         )
         select at from cut",
    )
    .bind(age)
    .fetch_one(pool)
    .await
}

/// Deletes some sagas that ended before `cut`, with their logs; returns how many. The sagas of one key are one story: none
/// goes while another of them lives, or ended later.
pub(crate) async fn ended_delete(pool: &PgPool, cut: DateTime<Utc>, limit: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "with recursive names (saga) as (
            -- Which sagas there are, a look at the key's index for each.
            select min(saga) from saga_instances
            union all
            select (select min(saga) from saga_instances where saga > names.saga) from names where names.saga is not null
         ), old as materialized (
            select i.saga, i.key from saga_instances i
            -- The first condition finds the rows (brin); the second is the promise.
            where i.created_at < $1 and i.updated_at < $1
              and i.status in ('completed', 'compensated', 'abandoned')
              -- An aggregate, so that it stays a look by key for each old row and is never a join with the whole table.
              and (select count(*) from names cross join lateral (
                       select from saga_instances other
                       where other.saga = names.saga and other.key = i.key
                         and (other.updated_at >= $1 or other.status not in ('completed', 'compensated', 'abandoned'))
                   ) living) = 0
            limit $2
            for update of i skip locked
         ), instances as (
            delete from saga_instances i using old where i.saga = old.saga and i.key = old.key
         ), entries as (
            delete from saga_log l using old where l.saga = old.saga and l.key = old.key
         )
         select count(*) from old",
    )
    .bind(cut)
    .bind(limit)
    .fetch_one(pool)
    .await
}
