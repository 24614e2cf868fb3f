//! Everything of every service is published again after its orders have ended: each promise still holds, no effect happens a
//! second time.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use waybill_testkit::polling::eventually_named;

use crate::invariants;
use crate::shop::Shop;
use crate::system::System;

/// Longest wait until all of it is in the topics again, and read.
const AGAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for one answer of the broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(30);
/// Which group reads which topic.
const READS: [(&str, &str); 4] = [
    ("orders", "inventory.events"),
    ("orders", "payments.events"),
    ("inventory", "inventory.commands"),
    ("payments", "payments.commands"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_again_has_no_effect_again() {
    let system = System::start("e2e_republished").await;
    let shop = Shop::new(&system);
    shop.product("tea", 1_250, 20).await;
    let confirmed = shop.order(&[("tea", 2)], "tok_approve").await;
    shop.becomes(&confirmed, "CONFIRMED").await;
    let declined = shop.order(&[("tea", 3)], "tok_decline").await;
    shop.becomes(&declined, "REJECTED").await;
    let cancelled = shop.order(&[("tea", 4)], "tok_approve").await;
    shop.becomes(&cancelled, "CONFIRMED").await;
    shop.cancel(&cancelled).await;
    shop.becomes(&cancelled, "CANCELLED").await;
    invariants::hold(&system, &shop.accepted()).await;
    let before = effects(&shop, [&confirmed, &declined, &cancelled]).await;
    let records = READS.map(|(_, topic)| ends(&system, topic).into_iter().sum::<i64>());
    let rows = invariants::count_in_all(&system, "select count(*) from outbox").await;

    let all = ["outbox", "republish", "--from", "1h", "--to", "0s", "--reason", "to see it again", "--apply"];
    let (code, said) = system.operator(&all).await;
    assert_eq!(code, Some(0), "{said}");
    let rows_now = invariants::count_in_all(&system, "select count(*) from outbox").await;
    assert_eq!(rows_now, 2 * rows, "each row is appended once more: {said}");
    for ((group, topic), records) in READS.into_iter().zip(records) {
        eventually_named("the records, read again", AGAIN_TIMEOUT, async || {
            let ends = ends(&system, topic);
            let all = ends.iter().sum::<i64>() >= 2 * records && read(&system, group, topic) == ends;
            (records > 0 && all).then_some(())
        })
        .await;
    }
    invariants::hold(&system, &shop.accepted()).await;
    assert_eq!(effects(&shop, [&confirmed, &declined, &cancelled]).await, before);
}

/// What the outside sees of orders, stock and money.
async fn effects(shop: &Shop<'_>, orders: [&String; 3]) -> (Vec<Value>, (i64, i64, i64)) {
    let mut seen = Vec::new();
    for (id, status) in orders.into_iter().zip(["CONFIRMED", "REJECTED", "CANCELLED"]) {
        seen.push(shop.becomes(id, status).await);
        seen.push(shop.payment(id).await.1);
    }
    (seen, shop.stock("tea").await)
}

fn partitions(system: &System, topic: &str, consumer: &BaseConsumer) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(&system.topics.full(topic)), BROKER_TIMEOUT).unwrap();
    let mut partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|one| one.id()).collect();
    partitions.sort_unstable();
    partitions
}

fn member(system: &System, group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &system.topics.bootstrap).set("group.id", system.topics.full(group));
    config.create().unwrap()
}

/// The end of each partition.
fn ends(system: &System, topic: &str) -> Vec<i64> {
    let consumer = member(system, "nobody");
    let partitions = partitions(system, topic, &consumer);
    let name = system.topics.full(topic);
    let end = |partition| consumer.fetch_watermarks(&name, partition, BROKER_TIMEOUT).unwrap().1;
    partitions.into_iter().map(end).collect()
}

/// How far the group has read each partition, and said so.
fn read(system: &System, group: &str, topic: &str) -> Vec<i64> {
    let consumer = member(system, group);
    let mut asked = TopicPartitionList::new();
    for partition in partitions(system, topic, &consumer) {
        asked.add_partition(&system.topics.full(topic), partition);
    }
    let told = consumer.committed_offsets(asked, BROKER_TIMEOUT).unwrap();
    let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
    told.elements().iter().map(|element| offset(element.offset())).collect()
}
