//! Making, pausing, resuming and cancelling a replay.

use sqlx::{PgConnection, PgPool, QueryBuilder};
use uuid::Uuid;
use waybill_runtime::clock::new_id;

use super::look::show_in_tx;
use super::{NewReplay, Replay};
use crate::operate::{Change, OperateError, audit};

/// Most letters of one replay: their rows are written at once, and counted with each look.
pub const TARGETS_MAX: u64 = 100_000;
/// Fastest rate: what a database does beside its own work.
const RATE_PER_S_MAX: u32 = 1_000;

/// Fixes the targets and lets the replay run: the open letters that fulfil the filter now.
///
/// # Errors
/// [`OperateError`]; nothing that matches, and more than 100,000 letters, are mistakes.
pub async fn create(pool: &PgPool, new: &NewReplay, change: &Change) -> Result<Replay, OperateError> {
    new.filter.open_only()?;
    if !(1..=RATE_PER_S_MAX).contains(&new.rate_per_s) {
        return Err(OperateError::invalid("rate_per_s", format!("write a number in 1..={RATE_PER_S_MAX}")));
    }
    let stop_after = i32::try_from(new.stop_after_failures).unwrap_or_default();
    if !(1..=100_000).contains(&stop_after) {
        return Err(OperateError::invalid("stop_after_failures", "write a number in 1..=100000"));
    }
    let id = new_id();
    let mut tx = pool.begin().await?;
    sqlx::query(
        "insert into replays (id, filter, reason, requested_by, rate_per_s, ramp, stop_after_failures)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(sqlx::types::Json(&new.filter))
    .bind(change.reason())
    .bind(change.by())
    .bind(i32::try_from(new.rate_per_s).unwrap_or(i32::MAX))
    .bind(new.ramp)
    .bind(stop_after)
    .execute(&mut *tx)
    .await?;
    let targets = targets_insert_in_tx(&mut tx, id, new).await?;
    if targets == 0 {
        return Err(OperateError::invalid("filter", "no open dead letter matches; nothing was begun"));
    }
    if targets > TARGETS_MAX {
        return Err(OperateError::TooMany { what: "dead letters", found: targets, max: TARGETS_MAX });
    }
    let outcome = format!("{targets} dead letters to be sent again");
    audit::insert_in_tx(&mut tx, change, "replays.create", &id.to_string(), &outcome).await?;
    let replay = show_in_tx(&mut tx, id).await?;
    tx.commit().await?;
    Ok(replay)
}

/// Writes the targets in the order of sending: the first of every key, then the second of every key, and so on.
async fn targets_insert_in_tx(
    conn: &mut PgConnection,
    id: Uuid,
    new: &NewReplay,
) -> Result<u64, OperateError> {
    // Of a key, the letter that blocks it comes first. Then the order of the topic: offsets inside a partition; between
    // partitions and topics the times of the records, made to never fall inside a partition.
    let mut query = QueryBuilder::new(
        "insert into replay_items (replay_id, number, dead_letter_id, consumer_group, key) select ",
    );
    query.push_bind(id);
    query.push(
        "::uuid, row_number() over (order by k.turn, k.reached, k.topic, k.partition, k.place), k.id, k.consumer_group,
                k.key
         from (select t.*, row_number() over (partition by t.consumer_group, t.key
                                              order by t.blocks desc, t.reached, t.topic, t.partition, t.place) as turn
               from (select d.id, d.consumer_group, d.key, d.topic, d.partition, d.\"offset\" as place,
                            coalesce(p.dead_letter_id = d.id, false) as blocks,
                            max(d.record_time) over (partition by d.consumer_group, d.key, d.topic, d.partition
                                                     order by d.\"offset\") as reached
                     from dead_letters d
                     left join parked_keys p on p.consumer_group = d.consumer_group and p.key = d.key
                     where true",
    );
    new.filter.push(&mut query)?;
    query.push(" limit ").push_bind(i64::try_from(TARGETS_MAX).unwrap_or(i64::MAX) + 1).push(") t) k");
    Ok(query.build().execute(conn).await?.rows_affected())
}

/// Lets a paused or stopped replay go on. What failed is tried again, before what waits behind it.
///
/// # Errors
/// [`OperateError::State`] when it is neither.
pub async fn resume(pool: &PgPool, id: Uuid, change: &Change) -> Result<Replay, OperateError> {
    let mut tx = pool.begin().await?;
    move_in_tx(&mut tx, id, &["paused", "stopped"], "running", "paused or stopped").await?;
    sqlx::query(
        "update replays set stop_reason = null, ramp_step = 0, step_left = 0, resumed_at = now() where id = $1",
    )
    .bind(id)
    .execute(&mut *tx)
    .await?;
    let again = sqlx::query(
        "update replay_items set state = 'pending', hop = null, sent_at = null, settled_at = null, why = null
         where replay_id = $1 and state = 'failed'",
    )
    .bind(id)
    .execute(&mut *tx)
    .await?;
    let outcome = format!("running; {} that failed are tried again", again.rows_affected());
    finish(tx, id, change, "replays.resume", &outcome).await
}

/// Lets a running replay wait; what is on its way stays so.
///
/// # Errors
/// [`OperateError::State`] when it is not running.
pub async fn pause(pool: &PgPool, id: Uuid, change: &Change) -> Result<Replay, OperateError> {
    let mut tx = pool.begin().await?;
    move_in_tx(&mut tx, id, &["running"], "paused", "running").await?;
    sqlx::query("update replays set stop_reason = $2 where id = $1")
        .bind(id)
        .bind(format!("paused by {}", change.by()))
        .execute(&mut *tx)
        .await?;
    finish(tx, id, change, "replays.pause", "paused").await
}

/// Ends a replay; what is on its way gets its verdict all the same, what was not sent stays open.
///
/// # Errors
/// [`OperateError::State`] when it has ended.
pub async fn cancel(pool: &PgPool, id: Uuid, change: &Change) -> Result<Replay, OperateError> {
    let mut tx = pool.begin().await?;
    let live = ["running", "paused", "stopped"];
    move_in_tx(&mut tx, id, &live, "cancelled", "running, paused or stopped").await?;
    sqlx::query("update replays set stop_reason = $2 where id = $1")
        .bind(id)
        .bind(format!("cancelled by {}", change.by()))
        .execute(&mut *tx)
        .await?;
    finish(tx, id, change, "replays.cancel", "cancelled").await
}

async fn move_in_tx(
    conn: &mut PgConnection,
    id: Uuid,
    from: &[&str],
    to: &str,
    wanted: &'static str,
) -> Result<(), OperateError> {
    // Waits for a step that is under way, so that nothing is sent after this commits.
    let state: Option<String> = sqlx::query_scalar("select state from replays where id = $1 for update")
        .bind(id)
        .fetch_optional(&mut *conn)
        .await?;
    let name = || id.to_string();
    let state = state.ok_or_else(|| OperateError::Unknown { what: "replay", name: name() })?;
    if !from.contains(&state.as_str()) {
        return Err(OperateError::State { what: "replay", name: name(), state, wanted });
    }
    sqlx::query("update replays set state = $2, updated_at = now() where id = $1")
        .bind(id)
        .bind(to)
        .execute(conn)
        .await?;
    Ok(())
}

async fn finish(
    mut tx: sqlx::Transaction<'_, sqlx::Postgres>,
    id: Uuid,
    change: &Change,
    action: &str,
    outcome: &str,
) -> Result<Replay, OperateError> {
    audit::insert_in_tx(&mut tx, change, action, &id.to_string(), outcome).await?;
    let replay = show_in_tx(&mut tx, id).await?;
    tx.commit().await?;
    Ok(replay)
}
