//! What a database knows of one story, and what it says of what it has no more.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use uuid::Uuid;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_outbox::operate::facts;
use waybill_outbox::retry::Poisoned;

use crate::ledger::PREFIX;
use crate::{flaky, ledger};

#[tokio::test]
async fn the_facts_of_a_story_are_found_without_reading_the_outbox() {
    let database = ledger::database("letters_facts").await;
    let pool = &database.pool;
    let story = Uuid::now_v7();
    let mut envelope = ledger::envelope(&story.to_string(), 1);
    envelope.cause.correlation_id = story;
    let rejected = Batch { records: vec![ledger::record(&envelope, 1, b"reject")] };
    let (group, _) = ledger::group_with(&database, PREFIX, flaky::policy(Poisoned::Block)).await;
    group.handle(&rejected).await.unwrap();
    let mut later = ledger::envelope(&story.to_string(), 2);
    later.cause.correlation_id = story;
    let held = Batch { records: vec![ledger::record(&later, 2, b"note")] };
    group.handle(&held).await.unwrap();
    let facts = facts::facts(pool, story, &[envelope.id, later.id]).await.unwrap();
    assert_eq!(facts.dead_letters.len(), 1);
    assert_eq!((facts.parked.len(), facts.parked[0].held.len()), (1, 1));
    assert_eq!(facts.inbox.iter().map(|row| row.hop).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(facts.outbox.len(), 1, "the mirror of the dead letter");
    assert!(facts.outbox[0].topic.ends_with(".dlq") && !facts.outbox[0].published);
    assert!(facts.outbox_since.unwrap() < Utc::now() && facts.truncated.is_empty(), "{facts:?}");
    let indexes: i64 =
        sqlx::query_scalar("select count(*) from pg_indexes where indexdef like '%bytea_bloom_ops%'")
            .fetch_one(pool)
            .await
            .unwrap();
    assert!(indexes > 1, "the partitions have it too");
}

#[tokio::test]
async fn facts_say_when_their_lists_are_cut_and_how_far_back_the_outbox_goes() {
    let database = ledger::database("letters_cut").await;
    let pool = &database.pool;
    let story = Uuid::now_v7();
    let (oldest, next): (String, DateTime<Utc>) =
        sqlx::query_as("select name, ends_at from outbox_partitions() order by starts_at limit 1")
            .fetch_one(pool)
            .await
            .unwrap();
    sqlx::query(AssertSqlSafe(format!("drop table {oldest}"))).execute(pool).await.unwrap();
    for (rows, truncated) in [(500, vec![]), (1, vec!["outbox", "dead_letters"])] {
        sqlx::query(
            "with said as (
                 insert into outbox (message_id, topic, key, headers)
                 select gen_random_uuid(), 't', convert_to($1::text, 'UTF8'), '{}' from generate_series(1, $2))
             insert into dead_letters (id, consumer_group, topic, partition, \"offset\", headers, error_class, error_message,
                                       attempts, first_failed_at, last_failed_at)
             select gen_random_uuid(), 'g', 't', $2, n, json_build_array(json_build_object('name', 'ce_correlationid',
                    'value', $1::text)), 'c', 'm', 1, now(), now()
             from generate_series(1, $2) n",
        )
        .bind(story)
        .bind(rows)
        .execute(pool)
        .await
        .unwrap();
        let facts = facts::facts(pool, story, &[]).await.unwrap();
        assert_eq!((facts.outbox.len(), facts.dead_letters.len()), (500, 500));
        assert_eq!(
            (facts.truncated, facts.outbox_since),
            (truncated.into_iter().map(str::to_owned).collect(), Some(next))
        );
    }
}
