//! The inbox's SQL.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

/// Takes message ids for a group, in one statement; returns those that nobody has taken before.
///
/// A concurrent taker of the same id is waited for (by the lock timeout at most): its commit makes ours a duplicate,
/// its rollback lets us have it.
pub(super) async fn inbox_insert_in_tx(
    conn: &mut PgConnection,
    group: &str,
    ids: Vec<Uuid>,
) -> Result<HashSet<Uuid>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let new: Vec<Uuid> = sqlx::query_scalar(
        // Sorted, so that two members with the same ids (after a rebalance) can not lock each other out.
        // Hop 0: an appearance on a main topic. Ordered retry will pass its records' own hops here.
        "insert into inbox (consumer_group, message_id, hop)
         select $1, id, 0 from unnest($2::uuid[]) as id order by id
         on conflict do nothing
         returning message_id",
    )
    .bind(group)
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(new.into_iter().collect())
}

/// Fails when the transaction is aborted already: a commit would then quietly roll back.
pub(super) async fn alive_in_tx(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select 1").execute(conn).await.map(|_| ())
}
