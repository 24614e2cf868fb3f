//! What waits behind a failure: parked keys, held messages and dead letters tell the same story.

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::outbox;
use super::report::{Check, Waits};

pub(crate) fn new_check() -> Check {
    Check::new(
        "dead letters",
        "a blocked key has its dead letter, a parked key's count is what is held, each dead letter is mirrored byte for byte",
    )
}

/// One database; all in one snapshot.
pub(crate) async fn check(
    conn: &mut PgConnection,
    check: &mut Check,
    waits: &mut Waits,
) -> anyhow::Result<()> {
    let (letters, parked): (i64, i64) =
        sqlx::query_as("select (select count(*) from dead_letters), (select count(*) from parked_keys)")
            .fetch_one(&mut *conn)
            .await?;
    check.judged += u64::try_from(letters + parked)?;
    let kept_since = outbox::kept_since(conn).await?;
    for broken in [
        sqlx::query_scalar(PARKED),
        sqlx::query_scalar(MIRRORED).bind(kept_since),
        sqlx::query_scalar(MIRRORED_WHOLE),
    ] {
        let mut rows = broken.fetch(&mut *conn);
        while let Some(told) = rows.try_next().await? {
            let told: String = told;
            check.violation(told);
        }
    }
    let (open, blocked): (i64, i64) = sqlx::query_as(
        "select (select count(*) from dead_letters where state = 'open'),
                (select count(*) from parked_keys where state = 'blocked')",
    )
    .fetch_one(conn)
    .await?;
    for (what, count) in [("open dead letters", open), ("blocked keys", blocked)] {
        if count > 0 {
            *waits.entry(what).or_default() += u64::try_from(count)?;
        }
    }
    Ok(())
}

const PARKED: &str =
    "select format('%s key %s is %s with %s messages, %s bytes; held are %s, %s; its dead letter is %s',
                   p.consumer_group, encode(p.key, 'escape'), p.state, p.held_count, p.held_bytes, h.messages, h.bytes,
                   coalesce(d.state, 'missing'))
     from parked_keys p
     cross join lateral (select count(*) as messages, coalesce(sum(bytes), 0) as bytes from held_messages
                         where consumer_group = p.consumer_group and key = p.key) h
     left join dead_letters d on d.id = p.dead_letter_id
     where p.held_count <> h.messages or p.held_bytes <> h.bytes
        or (p.state = 'blocked' and d.state is distinct from 'open')";

/// A mirror is an outbox row under the dead letter's id; rows of days that were dropped are not asked for.
const MIRRORED: &str = "select format('dead letter %s of %s has no mirror in the outbox', d.id, d.topic)
     from dead_letters d
     where ($1::date is null or d.last_failed_at > $1 + interval '1 day')
       and not exists (select 1 from outbox o where o.message_id = d.id and o.topic like '%.dlq'
                       and o.created_at >= d.first_failed_at - interval '1 day')";

/// Key and payload of a mirror are the letter's own, unless they are larger than an outbox takes: then it has none. (It took
/// 917,504 bytes once; such a mirror says what it left out.)
const MIRRORED_WHOLE: &str = "select format('dead letter %s of %s is another than its mirror: key of %s and %s bytes, payload of %s and %s',
                   d.id, d.topic, coalesce(octet_length(d.key), -1), coalesce(octet_length(o.key), -1),
                   coalesce(octet_length(d.payload), -1), coalesce(octet_length(o.payload), -1))
     from dead_letters d join outbox o on o.message_id = d.id and o.topic like '%.dlq'
     where o.created_at >= d.first_failed_at - interval '1 day'
       and (o.payload is distinct from d.payload
                and not coalesce(o.payload is null and octet_length(d.payload) > 917504
                                 and o.headers ->> 'dlq_payload_omitted_bytes' = octet_length(d.payload)::text, false)
            or o.key is distinct from case when octet_length(d.key) <= 1024 then d.key end)";
