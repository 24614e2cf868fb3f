//! An outbox by itself: each key of a topic counts 1..n in the order of the rows.

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::databases::Owner;
use super::kafka::Topics;
use super::report::Check;

pub(crate) fn new_check() -> Check {
    Check::new("sequences", "each key's ce_sequence in an outbox is 1..n per topic, in the order of the rows")
}

/// One database. The server sorts (on its disk, when there is much); only what is wrong comes over.
pub(crate) async fn check(
    conn: &mut PgConnection,
    topics: &Topics,
    owner: Owner,
    check: &mut Check,
) -> anyhow::Result<()> {
    let names: Vec<String> = topics.written_by(owner).map(|topic| topics.full(&topic.name)).collect();
    let rows: i64 = sqlx::query_scalar("select count(*) from outbox where topic = any($1)")
        .bind(&names)
        .fetch_one(&mut *conn)
        .await?;
    check.judged += u64::try_from(rows)?;
    let since = dropped_before(conn).await?;
    // A row that was appended once more to be published again (the same id) does not count.
    let mut wrong = sqlx::query_as::<_, (bool, String)>(
        "select before is null and $2, told from (
             select sequence, before, format('%s key %s: %s after %s', topic, encode(key, 'escape'), sequence, before) as told
             from (select topic, key, sequence, lag(sequence) over (partition by topic, key order by id) as before
                   from (select distinct on (message_id, topic) topic, key, id,
                                (headers->>'ce_sequence')::bigint as sequence
                         from outbox where topic = any($1) order by message_id, topic, id) once) numbered
         ) told where sequence is distinct from coalesce(before, 0) + 1",
    )
    .bind(&names)
    .bind(since)
    .fetch(conn);
    while let Some((excused, told)) = wrong.try_next().await? {
        if excused {
            check.not_judged("keys whose first rows are no longer kept", 1);
        } else {
            check.violation(told);
        }
    }
    Ok(())
}

/// Whether the outbox has dropped days already: its oldest partition is younger than the one it was made with.
pub(crate) async fn dropped_before(conn: &mut PgConnection) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar(
        "select coalesce(
             (select min(to_date(substring(c.relname from '^outbox_([0-9]{8})$'), 'YYYYMMDD'))
              from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'outbox'::regclass)
             > (select installed_on::date - 1 from _sqlx_migrations where version = 101), false)",
    )
    .fetch_one(conn)
    .await?)
}
