//! Retention and republishing with a relay: one that was off loses nothing, what is published again is harmless.

use std::time::Duration;

use waybill_outbox::republish::{Selection, apply};
use waybill_outbox::upkeep::{self, Retention};
use waybill_testkit::eventually;

use super::audit::audit;
use super::setup::{Outbox, SOON, TOPIC, append};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_off_longer_than_the_retention_loses_nothing() {
    let outbox = Outbox::new("off_long").await;
    let pool = &outbox.database.pool;
    let mut connection = outbox.connection().await;
    for aggregate in [1, 2, 1] {
        append(&mut connection, &outbox.topics.full(TOPIC), aggregate).await;
    }
    // All of it happened thirty days ago.
    let long_ago = "do $$ declare day date := current_date - 30; begin
            execute format('create table outbox_old (like outbox including defaults including constraints)');
            execute format('alter table outbox attach partition outbox_old for values from (%L) to (%L)',
                           day::timestamptz, (day + 1)::timestamptz);
            execute 'update outbox set created_at = (current_date - 30) + interval ''1 hour''';
        end $$";
    sqlx::raw_sql(long_ago).execute(pool).await.unwrap();
    append(&mut connection, &outbox.topics.full(TOPIC), 2).await;
    let retention = Retention { outbox: DAY, inbox: 14 * DAY };
    let kept = upkeep::drop_old(pool, retention).await.unwrap();
    assert_eq!((kept.partitions, kept.unpublished), (vec![], vec!["outbox_old".to_owned()]));

    let mut relay = outbox.relay().spawn();
    assert_eq!(audit(&outbox.topics, TOPIC, pool).await.records, 4);
    eventually(SOON, async || {
        let dropped = upkeep::drop_old(pool, retention).await.unwrap();
        (dropped.partitions == ["outbox_old"]).then_some(())
    })
    .await;
    // The relay goes on over the change of partitions.
    append(&mut connection, &outbox.topics.full(TOPIC), 3).await;
    outbox.topics.read_all(TOPIC, |records| records.len() == 5, SOON).await;
    relay.wait_ready(SOON).await;
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_again_has_its_ids_and_its_order_beside_new_rows() {
    let outbox = Outbox::new("again").await;
    let pool = &outbox.database.pool;
    let topic = outbox.topics.full(TOPIC);
    let mut connection = outbox.connection().await;
    let mut relay = outbox.relay().spawn();
    for round in 0..5 {
        for aggregate in 1..=8 {
            append(&mut connection, &topic, aggregate).await;
        }
        if round == 2 {
            // Published, being published and not yet published rows, all at once.
            let chosen = Selection::Ids { from: 5, to: 24 };
            let again = apply(&mut connection, &chosen, 1_000).await.unwrap();
            assert_eq!((again.rows, again.applied), (20, true));
        }
    }
    // 40 messages, each key's versions in order when equal ids are dropped; and 20 repeats at least.
    let audit_of_all = audit(&outbox.topics, TOPIC, pool).await;
    assert_eq!(audit_of_all.records - audit_of_all.repeats, 40);
    let records = outbox.topics.read_all(TOPIC, |records| records.len() >= 60, SOON).await;
    // The repeats of a key are in order among themselves.
    for key in 1..=8 {
        let key = format!("a{key}");
        let of_key = || records.iter().filter(|record| record.key_text() == key);
        let versions: Vec<i64> =
            of_key().map(|record| record.header("ce_sequence").unwrap().parse().unwrap()).collect();
        let falls = versions.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(falls <= 1, "{key}: {versions:?}");
    }
    assert_eq!(relay.terminate().await, Some(0));
}
