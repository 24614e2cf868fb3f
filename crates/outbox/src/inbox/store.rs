//! The inbox's SQL.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;
use waybill_runtime::planted::{Bug, is_planted};

use crate::retry::KeyState;

/// What a group learns when it takes messages.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Ids that nobody has taken before.
    pub(crate) fresh: HashSet<Uuid>,
    /// Parked keys among those asked for; their rows are locked.
    pub(crate) parked: HashMap<Vec<u8>, Parked>,
}

/// A parked key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parked {
    pub(crate) state: KeyState,
    /// Message id and hop of the head.
    pub(crate) head: (Option<Uuid>, i16),
}

/// Message id, key, state, tier, head's message id and hop.
type TakenRow = (Option<Uuid>, Option<Vec<u8>>, Option<String>, Option<i16>, Option<Uuid>, Option<i16>);

/// Takes appearance `hop` of message ids for a group, and locks those of the keys that are parked, in one round trip.
///
/// A concurrent taker of the same id is waited for (by the lock timeout at most): its commit makes ours a duplicate and
/// shows the keys it parked, its rollback lets us have it.
pub(crate) async fn inbox_take_in_tx(
    conn: &mut PgConnection,
    group: &str,
    ids: Vec<Uuid>,
    hop: i16,
    keys: Vec<Vec<u8>>,
) -> Result<Taken, sqlx::Error> {
    if is_planted(Bug::InboxRowDropped) {
        return Ok(Taken { fresh: ids.into_iter().collect(), ..Taken::default() });
    }
    let rows: Vec<TakenRow> = sqlx::query_as("select * from inbox_take($1, $2, $3, $4)")
        .bind(group)
        .bind(ids)
        .bind(hop)
        .bind(keys)
        .fetch_all(conn)
        .await?;
    let mut taken = Taken::default();
    for (id, key, state, tier, head_id, head_hop) in rows {
        taken.fresh.extend(id);
        let (Some(key), Some(state)) = (key, state) else { continue };
        let known = KeyState::read(&state, tier.unwrap_or_default());
        let state = known.ok_or_else(|| {
            sqlx::Error::Protocol(format!(
                "parked_keys has the state {state:?}, which this version does not know"
            ))
        })?;
        taken.parked.insert(key, Parked { state, head: (head_id, head_hop.unwrap_or_default()) });
    }
    Ok(taken)
}

/// Fails when the transaction is aborted already: a commit would then quietly roll back.
pub(crate) async fn alive_in_tx(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select 1").execute(conn).await.map(|_| ())
}

/// Begins a part of the transaction that can be undone alone.
pub(crate) async fn part_begin_in_tx(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("savepoint part").execute(conn).await.map(|_| ())
}

/// Ends a part that stays. Fails when a statement of it failed, or when what is only checked at the commit is broken by
/// now. Constraints are left as they were: the second savepoint undoes that they were made immediate, and they are
/// checked again at the commit.
pub(crate) async fn part_keep_in_tx(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let checked = "savepoint checked; set constraints all immediate; rollback to savepoint checked; \
                   release savepoint part";
    sqlx::raw_sql(checked).execute(conn).await.map(|_| ())
}

/// Undoes a part, also one in which a statement failed.
pub(crate) async fn part_undo_in_tx(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("rollback to savepoint part; release savepoint part").execute(conn).await.map(|_| ())
}
