//! All SQL of the sagas: one statement per function, each for many instances at once.

mod ended;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{FromRow, PgExecutor, Row as _};
use uuid::Uuid;

use crate::operate::{Row, SagaFilter};
use crate::state::Status;
use crate::stepping::LogRows;

pub(crate) use self::ended::{ended_delete, horizon_advance};

/// The relay whose position tells what is published.
const RELAY_NAME: &str = "default";

/// A page of instances by name and key, with one more condition written out.
macro_rules! list_statement {
    ($also:literal) => {
        concat!(
            "select saga, key, version, status, state::text, due_at, correlation_id, created_at, updated_at
             from saga_instances
             where ($1::text is null or status = $1) and ($2::text is null or saga = $2)
               and ($3::uuid is null or key = $3) and (saga, key) > ($4, $5) and ",
            $also,
            " order by saga, key limit $6"
        )
    };
}

/// An instance as its row has it; JSON columns as text.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Stored {
    pub(crate) key: Uuid,
    pub(crate) version: i32,
    pub(crate) revision: i64,
    pub(crate) state: String,
    pub(crate) data: String,
    pub(crate) sequences: String,
    pub(crate) correlation_id: Uuid,
    pub(crate) traceparent: Option<String>,
    pub(crate) step_seconds: f64,
}

/// What changes in instances, a column each.
#[derive(Debug, Default)]
pub(crate) struct Saves {
    pub(crate) keys: Vec<Uuid>,
    pub(crate) revisions: Vec<i64>,
    pub(crate) statuses: Vec<&'static str>,
    pub(crate) states: Vec<String>,
    pub(crate) sequences: Vec<String>,
    /// The state changed: its timer is set anew.
    pub(crate) moved: Vec<bool>,
    pub(crate) sent: Vec<bool>,
    pub(crate) due_in_ms: Vec<Option<i64>>,
    pub(crate) wait_ms: Vec<Option<i64>>,
    /// The whole saga's deadline no longer matters.
    pub(crate) deadline_over: Vec<bool>,
    /// Another step or phase began.
    pub(crate) step_began: Vec<bool>,
}

/// An instance whose deadline fires.
#[derive(Debug, FromRow)]
pub(crate) struct Due {
    pub(crate) key: Uuid,
    /// The whole saga's deadline, not the step's.
    pub(crate) saga_due: bool,
    pub(crate) correlation_id: Uuid,
    pub(crate) traceparent: Option<String>,
}

/// Inserts new instances and their first log entries; `argument` as [`crate::Started::argument`] makes it.
pub(crate) async fn instances_insert(conn: &mut PgConnection, argument: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select saga_start($1::json)").bind(argument).execute(conn).await?;
    Ok(())
}

/// Loads and locks the instances of `keys` that exist.
pub(crate) async fn instances_load(
    conn: &mut PgConnection,
    saga: &str,
    keys: &[Uuid],
) -> Result<Vec<Stored>, sqlx::Error> {
    sqlx::query_as(
        "select key, version, revision, state::text, data::text, sequences::text, correlation_id, traceparent,
                extract(epoch from statement_timestamp() - step_at)::float8 as step_seconds
         from saga_instances
         where saga = $1 and key = any($2)
         order by key
         -- locked in the order of the keys, so that two batches wait for each other in one direction only
         for update",
    )
    .bind(saga)
    .bind(keys)
    .fetch_all(conn)
    .await
}

/// Saves instances whose revision is still the one that was loaded, and appends the log entries in the order of the
/// arrays; returns how many were saved. The instances are locked.
pub(crate) async fn instances_save(
    conn: &mut PgConnection,
    saga: &str,
    saves: &Saves,
    log: &LogRows,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "with logged as (
            insert into saga_log (saga, key, entry)
            select $1, e.key, e.entry::json
            from unnest($13::uuid[], $14::text[]) with ordinality as e (key, entry, place)
            order by e.place
         ), saved as (
            update saga_instances i set
                revision    = i.revision + 1,
                status      = n.status,
                state       = n.state::json,
                sequences   = n.sequences::json,
                command_xid = case when not n.moved then i.command_xid when n.sent then pg_current_xact_id() end,
                looked_at   = case when n.moved then statement_timestamp() else i.looked_at end,
                due_at      = case when n.moved then n.due_at else i.due_at end,
                wait_ms     = case when n.moved then n.wait_ms else i.wait_ms end,
                deadline_at = case when not n.deadline_over then i.deadline_at end,
                -- kept when it lies ahead (the sweeper then finds nothing to do): no index is touched
                wake_at     = case when not n.moved then i.wake_at
                                   when n.due_at is not null then
                                        least(case when i.wake_at > statement_timestamp() then i.wake_at end, n.due_at,
                                              case when not n.deadline_over then i.deadline_at end) end,
                step_at     = case when n.step_began then statement_timestamp() else i.step_at end,
                updated_at  = statement_timestamp()
            from (select u.*, statement_timestamp() + u.due_in_ms * interval '1 millisecond' as due_at
                  from unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bool[], $8::bool[],
                              $9::bigint[], $10::bigint[], $11::bool[], $12::bool[])
                       as u (key, revision, status, state, sequences, moved, sent, due_in_ms, wait_ms, deadline_over,
                             step_began)) n
            -- One look by key for each row. A plan made while the table was small would join by reading all sagas, or
            -- all of the batch for each of its rows, and is kept.
            where i.ctid = (select ctid from saga_instances where saga = $1 and key = n.key) and i.revision = n.revision
            returning 1
         )
         select count(*) from saved",
    )
    .bind(saga)
    .bind(&saves.keys)
    .bind(&saves.revisions)
    .bind(&saves.statuses)
    .bind(&saves.states)
    .bind(&saves.sequences)
    .bind(&saves.moved)
    .bind(&saves.sent)
    .bind(&saves.due_in_ms)
    .bind(&saves.wait_ms)
    .bind(&saves.deadline_over)
    .bind(&saves.step_began)
    .bind(&log.keys)
    .bind(&log.entries)
    .fetch_one(conn)
    .await
}

/// Wakes instances whose time has come, locks those whose deadline fires and returns them; the others are pushed on. Also
/// returns how many were woken. With `within_ms`: only those whose time came within so many milliseconds.
pub(crate) async fn deadlines_sweep(
    conn: &mut PgConnection,
    saga: &str,
    versions: &[i32],
    limit: i64,
    within_ms: Option<i64>,
) -> Result<(i64, Vec<Due>), sqlx::Error> {
    let rows = sqlx::query(
        "with relay as materialized (
            select position_from from outbox_relay where name = $4
         ), woken as materialized (
            -- all values come from the locked row, not from the statement's snapshot
            select i.key, i.correlation_id, i.traceparent, i.due_at, i.deadline_at, i.wait_ms, i.looked_at, i.updated_at,
                   least(i.due_at, i.deadline_at) <= now() as due,
                   coalesce(i.deadline_at <= now(), false) as saga_due,
                   i.command_xid is not null as gated,
                   'last_call' in (i.state #>> '{acting,wait}', i.state #>> '{compensating,wait}') as last_call,
                   coalesce(pg_visible_in_snapshot(i.command_xid, (select position_from from relay)), false) as published
            from saga_instances i
            where i.saga = $1 and i.version = any($2) and i.wake_at <= now()
              and i.wake_at > coalesce(now() - $5 * interval '1 millisecond', '-infinity')
            order by i.wake_at
            limit $3
            -- an instance that is locked is being moved by its reply: let it
            for update skip locked
         ), pushed as (
            select w.key, w.published,
                   -- the step's deadline starts when its command is seen to be published
                   case when w.published and w.last_call
                        -- what came with it is there soon when it went at once; when all were held up, it takes its time
                        then now() + least(greatest(now() - w.updated_at, w.wait_ms * interval '0.25 milliseconds'),
                                           w.wait_ms * interval '1 millisecond')
                        when w.published then now() + w.wait_ms * interval '1 millisecond'
                        -- the relay is behind: look again after half as long again, within a second to a minute
                        when w.gated and w.due
                        then now() + least(greatest((now() - w.updated_at) / 2, interval '1 second'), interval '1 minute')
                        else w.due_at end as due_at,
                   -- the saga's clock has stood still since the last look
                   case when w.gated then w.deadline_at + (now() - w.looked_at) else w.deadline_at end as deadline_at
            from woken w
            where w.gated or not w.due
         ), saved as (
            update saga_instances i set
                due_at      = p.due_at,
                deadline_at = p.deadline_at,
                command_xid = case when not p.published then i.command_xid end,
                looked_at   = now(),
                wake_at     = least(p.due_at, p.deadline_at)
            from pushed p
            where i.saga = $1 and i.key = any(array(select key from pushed)) and i.key = p.key
         )
         -- One row at least: also a sweep in which nothing fires tells how many it woke.
         select (select count(*) from woken) as woken, w.key, w.saga_due, w.correlation_id, w.traceparent
         from (values (1)) as always left join woken w on w.due and not w.gated
         order by w.key",
    )
    .bind(saga)
    .bind(versions)
    .bind(limit)
    .bind(RELAY_NAME)
    .bind(within_ms)
    .fetch_all(conn)
    .await?;
    let woken = rows.first().map_or(Ok(0), |row| row.try_get("woken"))?;
    let mut due = Vec::new();
    for row in &rows {
        if row.try_get::<Option<Uuid>, _>("key")?.is_some() {
            due.push(Due::from_row(row)?);
        }
    }
    Ok((woken, due))
}

/// Leaves an instance alone for a while: its deadline fires, but taking it fails.
pub(crate) async fn instance_postpone(
    conn: &mut PgConnection,
    saga: &str,
    key: Uuid,
    postpone_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update saga_instances set wake_at = now() + $3 * interval '1 millisecond' where saga = $1 and key = $2",
    )
    .bind(saga)
    .bind(key)
    .bind(postpone_ms)
    .execute(conn)
    .await?;
    Ok(())
}

/// How many instances wait for an operator.
pub(crate) async fn stuck_count(conn: &mut PgConnection, saga: &str) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("select count(*) from saga_instances where saga = $1 and status = 'stuck'")
        .bind(saga)
        .fetch_one(conn)
        .await?;
    row.try_get(0)
}

/// A page of instances after a place, by name and key.
pub(crate) async fn instances_list(
    pool: &PgPool,
    filter: &SagaFilter,
    after_name: String,
    after_key: Uuid,
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    let live = matches!(filter.state, Some(Status::Running | Status::Compensating));
    let statement = match filter.state {
        // Written out: a partial index is only used for what the statement itself says.
        Some(Status::Stuck) => list_statement!("status = 'stuck'"),
        Some(_) if live => list_statement!("wake_at is not null"),
        _ => list_statement!("true"),
    };
    sqlx::query_as(statement)
        .bind(filter.state.map(Status::as_str))
        .bind(&filter.name)
        .bind(filter.key)
        .bind(after_name)
        .bind(after_key)
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// One instance and its data.
pub(crate) async fn instance_show(
    executor: impl PgExecutor<'_>,
    saga: &str,
    key: Uuid,
) -> Result<Option<(Row, String)>, sqlx::Error> {
    let row = sqlx::query(
        "select saga, key, version, status, state::text, due_at, correlation_id, created_at, updated_at, data::text
         from saga_instances where saga = $1 and key = $2",
    )
    .bind(saga)
    .bind(key)
    .fetch_optional(executor)
    .await?;
    row.map(|row| Ok((Row::from_row(&row)?, row.try_get("data")?))).transpose()
}

/// The newest entries of one log, newest first.
pub(crate) async fn log_newest(
    pool: &PgPool,
    saga: &str,
    key: Uuid,
    limit: i64,
) -> Result<Vec<(i64, DateTime<Utc>, String)>, sqlx::Error> {
    sqlx::query_as(
        "select number, at, entry::text from saga_log where saga = $1 and key = $2 order by number desc limit $3",
    )
    .bind(saga)
    .bind(key)
    .bind(limit)
    .fetch_all(pool)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_testkit::TestDatabase;

    #[tokio::test]
    async fn a_save_over_somebody_elses_saves_nothing() {
        let database = TestDatabase::create("saga_conflict").await;
        database.migrate(&[&crate::MIGRATIONS]).await;
        let mut conn = database.pool.acquire().await.unwrap();
        let key = Uuid::now_v7();
        start(&mut conn, &[key]).await;
        let loaded = instances_load(&mut conn, "s", &[key]).await.unwrap();
        assert_eq!((loaded.len(), loaded[0].revision), (1, 1));
        assert_eq!(save(&mut conn, &[key], 1, "completed").await, 1);
        assert_eq!(save(&mut conn, &[key], 1, "abandoned").await, 0);
        let row = sqlx::query("select status from saga_instances").fetch_one(&mut *conn).await.unwrap();
        assert_eq!(row.get::<String, _>(0), "completed");
    }

    /// The statement is prepared while there are no sagas, and kept; then there are many, and it saves a few of them.
    #[tokio::test]
    async fn a_plan_made_on_an_empty_table_reads_no_more_than_what_it_saves() {
        let database = TestDatabase::create("saga_plan").await;
        database.migrate(&[&crate::MIGRATIONS]).await;
        let mut conn = database.pool.acquire().await.unwrap();
        sqlx::raw_sql("set plan_cache_mode = force_generic_plan; set enable_seqscan = off")
            .execute(&mut *conn)
            .await
            .unwrap();
        assert_eq!(save(&mut conn, &[Uuid::now_v7()], 1, "running").await, 0);
        let keys: Vec<_> = (0..1_000).map(|_| Uuid::now_v7()).collect();
        start(&mut conn, &keys).await;
        sqlx::raw_sql("begin").execute(&mut *conn).await.unwrap();
        assert_eq!(save(&mut conn, &keys[..50], 1, "completed").await, 50);
        // What this transaction alone has read by the table's indexes and whole.
        let read: i64 = sqlx::query_scalar(
            "select idx_tup_fetch + seq_tup_read from pg_stat_xact_user_tables where relname = 'saga_instances'",
        )
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        assert_eq!(read, 50);
    }

    async fn start(conn: &mut PgConnection, keys: &[Uuid]) {
        let one = |key| {
            format!(
                r#"{{"saga":"s","key":"{key}","version":1,"status":"running","state":{{}},"data":{{}},"sequences":{{}},
                     "sent":false,"correlation_id":"{key}","entry":{{}}}}"#
            )
        };
        let all: Vec<_> = keys.iter().map(one).collect();
        instances_insert(conn, &format!("[{}]", all.join(","))).await.unwrap();
    }

    async fn save(conn: &mut PgConnection, keys: &[Uuid], revision: i64, status: &'static str) -> i64 {
        let count = keys.len();
        let saves = Saves {
            keys: keys.to_vec(),
            revisions: vec![revision; count],
            statuses: vec![status; count],
            states: vec!["{}".to_owned(); count],
            sequences: vec!["{}".to_owned(); count],
            moved: vec![true; count],
            sent: vec![false; count],
            due_in_ms: vec![None; count],
            wait_ms: vec![None; count],
            deadline_over: vec![true; count],
            step_began: vec![true; count],
        };
        instances_save(conn, "s", &saves, &LogRows::default()).await.unwrap()
    }
}
