//! An outbox by itself: each key of a topic counts 1..n in the order of the rows.

use chrono::{NaiveDate, NaiveTime};
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
    let kept_since = kept_since(conn).await?;
    // A row that was appended once more to be published again (the same id) does not count; nor does one whose first
    // row may be dropped.
    let mut wrong = sqlx::query_as::<_, (bool, String)>(
        "select before is null and $2 is not null, told from (
             select sequence, before, format('%s key %s: %s after %s', topic, encode(key, 'escape'), sequence, before) as told
             from (select topic, key, sequence, lag(sequence) over (partition by topic, key order by id) as before
                   from (select distinct on (message_id, topic) topic, key, id,
                                (headers->>'ce_sequence')::bigint as sequence
                         from outbox
                         where topic = any($1) and ($2::date is null or message_id >= inbox_day_bound($2))
                         order by message_id, topic, id) once) numbered
         ) told where sequence is distinct from coalesce(before, 0) + 1",
    )
    .bind(&names)
    .bind(kept_since)
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

/// The first day from which on no row was dropped; `None` when none ever was. A day that some relay had not published
/// is kept while a later one goes, so what counts is the last day without a partition. (Days on which no service ran have
/// none either: nothing was written then, and what is older is judged more mildly.)
pub(crate) async fn kept_since(conn: &mut PgConnection) -> anyhow::Result<Option<NaiveDate>> {
    Ok(sqlx::query_scalar(
        "select max(d.day)::date + 1
         from _sqlx_migrations m
         cross join generate_series((m.installed_on at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date,
                                    interval '1 day') as d (day)
         where m.version = 101
           and not exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid
                           where i.inhparent = 'outbox'::regclass
                             and c.relname = 'outbox_' || to_char(d.day, 'YYYYMMDD'))",
    )
    .fetch_one(conn)
    .await?)
}

/// The beginning of a day, in milliseconds since 1970.
pub(crate) fn beginning_ms(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp_millis()
}
