//! Inboxes: whatever a group says it has read, it has taken; and it took nothing that nobody said.

use std::collections::{HashMap, HashSet};

use chrono::NaiveDate;
use futures_util::TryStreamExt as _;
use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::topics::Topic;

use super::databases::{Looks, Owner};
use super::kafka::{Seen, Topics, is_main};
use super::report::Check;
use super::{Around, outbox};

/// Messages that a group reads past: it has no use for them, and its inbox no row.
const IGNORED: [(&str, &str); 1] = [("orders", "StockReceived")];
/// What looks wrong is remembered and looked at once more; far more of it than anybody reads.
const CANDIDATES_MAX: usize = 10_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

pub(crate) fn new_check() -> Check {
    Check::new("inboxes", "every message below a group's offsets is in its inbox or its dead letters")
}

/// Some records of a topic against the inboxes of its readers. `committed` was read before the looks were taken: offsets
/// are stored after the commit, so what they cover is in the snapshots.
pub(crate) async fn check(
    topics: &Topics,
    topic: &Topic,
    committed: &HashMap<(String, i32), i64>,
    records: &[Seen],
    looks: &mut Looks,
    check: &mut Check,
) -> anyhow::Result<()> {
    for group in topic.consumers.iter().filter(|_| is_main(topic)) {
        let Some(owner) = Owner::named(group) else { continue };
        let read = |record: &&Seen| {
            let offset = committed.get(&(group.clone(), record.partition)).copied().unwrap_or(0);
            let wanted = !IGNORED.iter().any(|(g, kind)| g == group && record.kind.as_deref() == Some(*kind));
            wanted && record.offset < offset
        };
        let read: Vec<&Seen> = records.iter().filter(read).collect();
        let unread = records.iter().filter(|record| {
            record.offset >= committed.get(&(group.clone(), record.partition)).copied().unwrap_or(0)
        });
        check.not_judged("records that a group has not read yet", unread.count() as u64);
        if read.is_empty() {
            continue;
        }
        check.judged += read.len() as u64;
        let full = topics.full(&topic.name);
        for (place, forgotten) in missing(looks.of(owner), group, &full, &read).await? {
            let record = read[place];
            if forgotten {
                check.not_judged("records that the inbox may have forgotten", 1);
                continue;
            }
            let id = record.id.map_or_else(|| "without an id".to_owned(), |id| id.to_string());
            let kind = record.kind.as_deref().unwrap_or("of no type");
            let (partition, offset) = (record.partition, record.offset);
            check.violation(format!(
                "{group} has read {} [{partition}] past {offset}, and neither took nor buried {kind} {id}",
                topic.name
            ));
        }
    }
    Ok(())
}

/// The places of those that the group neither took nor buried, and whether it may have forgotten them.
async fn missing(
    conn: &mut PgConnection,
    group: &str,
    topic: &str,
    read: &[&Seen],
) -> anyhow::Result<Vec<(usize, bool)>> {
    let rows: Vec<(i64, bool)> = sqlx::query_as(
        "select w.place, coalesce(w.id < f.bound, false)
         from unnest($1::uuid[], $2::int[], $3::bigint[]) with ordinality as w (id, partition, \"offset\", place)
         cross join (select case when min(d.day) > (select installed_on::date - 8 from _sqlx_migrations where version = 102)
                                 then inbox_day_bound(min(d.day)) end as bound
                     from (select to_date(substring(c.relname from '^inbox_([0-9]{8})$'), 'YYYYMMDD') as day
                           from pg_inherits i join pg_class c on c.oid = i.inhrelid
                           where i.inhparent = 'inbox'::regclass) d) f
         where not exists (select from inbox i where i.consumer_group = $4 and i.message_id = w.id and i.hop = 0)
           and not exists (select from dead_letters d where d.consumer_group = $4 and d.topic = $5
                           and d.partition = w.partition and d.\"offset\" = w.\"offset\")",
    )
    .bind(read.iter().map(|record| record.id).collect::<Vec<_>>())
    .bind(read.iter().map(|record| record.partition).collect::<Vec<_>>())
    .bind(read.iter().map(|record| record.offset).collect::<Vec<_>>())
    .bind(group)
    .bind(topic)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|(place, forgotten)| Ok((usize::try_from(place)? - 1, forgotten))).collect()
}

/// Every id in an inbox is in the outbox of somebody whose messages the group reads, or a dead letter's.
pub(crate) async fn nobody_took_what_nobody_said(around: &Around<'_>) -> anyhow::Result<Check> {
    let mut check =
        Check::new("inbox origins", "every message in an inbox was said by a service the group listens to");
    for owner in Owner::ALL {
        let topics: Vec<&Topic> = around.topics.read_by(owner).collect();
        let names: Vec<String> = topics.iter().map(|topic| around.topics.full(&topic.name)).collect();
        let mut writers: Vec<Owner> =
            topics.iter().filter_map(|topic| Owner::named(&topic.producer)).collect();
        writers.dedup();
        // The reader first: what it has taken by then was committed by its writers before.
        let mut reader = around.databases.look(owner).await?;
        let mut conns = Vec::new();
        let mut kept_since = None;
        for writer in &writers {
            let mut conn = around.databases.look(*writer).await?;
            // The youngest: whoever said it, its row is kept from then on.
            kept_since = kept_since.max(outbox::kept_since(&mut conn).await?);
            conns.push(conn);
        }
        let strangers = strangers(&mut reader, owner, &mut conns, &names, &mut check).await?;
        judge(&mut reader, owner, kept_since, strangers, &mut check).await?;
    }
    Ok(check)
}

/// Merges the inbox with the outboxes, all sorted by id, and returns the ids of the inbox that are in none.
async fn strangers(
    reader: &mut PgConnection,
    owner: Owner,
    conns: &mut [PgConnection],
    names: &[String],
    check: &mut Check,
) -> anyhow::Result<Vec<Uuid>> {
    let mut said = Vec::new();
    for conn in conns {
        let mut ids = sqlx::query_scalar::<_, Uuid>(
            "select message_id from outbox where topic = any($1) order by message_id",
        )
        .bind(names.to_vec())
        .fetch(conn);
        let next = ids.try_next().await?;
        said.push((ids, next));
    }
    let mut taken = sqlx::query_scalar::<_, Uuid>(
        "select distinct message_id from inbox where consumer_group = $1 order by message_id",
    )
    .bind(owner.name())
    .fetch(reader);
    let mut strangers = Vec::new();
    while let Some(id) = taken.try_next().await? {
        check.judged += 1;
        let mut known = false;
        for (ids, next) in &mut said {
            while next.is_some_and(|next| next < id) {
                *next = ids.try_next().await?;
            }
            known |= *next == Some(id);
        }
        if known {
            continue;
        }
        if strangers.len() == CANDIDATES_MAX {
            check.not_judged("messages that look strange too, beyond the first 10,000", 1);
        } else {
            strangers.push(id);
        }
    }
    Ok(strangers)
}

/// Strangers that died were somebody else's, and are known as such; those older than the outboxes were said once.
async fn judge(
    reader: &mut PgConnection,
    owner: Owner,
    kept_since: Option<NaiveDate>,
    strangers: Vec<Uuid>,
    check: &mut Check,
) -> anyhow::Result<()> {
    if strangers.is_empty() {
        return Ok(());
    }
    let buried: Vec<Uuid> = sqlx::query_scalar(
        "select message_id from dead_letters where consumer_group = $1 and message_id = any($2)",
    )
    .bind(owner.name())
    .bind(&strangers)
    .fetch_all(reader)
    .await?;
    let buried: HashSet<Uuid> = buried.into_iter().collect();
    let forgotten_until_ms = kept_since.map(|day| outbox::beginning_ms(day) + DAY_MS);
    for id in strangers {
        if buried.contains(&id) {
            check.not_judged("messages of others that became dead letters", 1);
        } else if forgotten_until_ms.is_some_and(|until| made_ms(id) < until) {
            check.not_judged("messages whose rows may be dropped", 1);
        } else {
            check.violation(format!("{} took {id}, which nobody said", owner.name()));
        }
    }
    Ok(())
}

/// When a UUIDv7 was made, in milliseconds since 1970.
fn made_ms(id: Uuid) -> i64 {
    // 48 bits: it fits.
    i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX)
}
