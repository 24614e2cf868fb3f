//! A cancel that overtakes its command on the way: what arrives late is refused, and nothing stays reserved.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use waybill_testkit::OwnedRecord;

use crate::deliveries::again;
use crate::faults::HASTY;
use crate::invariants;
use crate::journal::Accepted;
use crate::shop::Shop;
use crate::system::System;

const TOPIC: &str = "inventory.commands";
const STEP_TIMEOUT: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_may_overtake_its_reserve() {
    let mut system = System::start_with("e2e_overtaken", &HASTY).await;
    let accepted = {
        Shop::new(&system).product("tea", 700, 10).await;
        overtaken(&mut system).await
    };
    invariants::hold(&system, &accepted).await;
    assert_eq!(Shop::new(&system).stock("tea").await, (10, 0, 0));
}

/// An order of "tea" whose `ReleaseStock` inventory hears before its `ReserveStock`.
pub(crate) async fn overtaken(system: &mut System) -> Vec<Accepted> {
    assert_eq!(system.inventory.terminate().await, Some(0), "{}", system.inventory.output());
    let shop = Shop::new(system);
    let id = shop.order(&[("tea", 3)], "tok_approve").await;
    let accepted = shop.accepted();
    let is_release = |r: &OwnedRecord| r.key_text() == id && r.header("ce_type") == Some("ReleaseStock");
    let released = |records: &[OwnedRecord]| records.iter().any(is_release);
    let records = system.topics.read_all(TOPIC, released, STEP_TIMEOUT).await;
    let release = records.iter().find(|record| is_release(record)).unwrap();
    let late: Vec<&OwnedRecord> =
        records.iter().filter(|r| r.key_text() == id && r.offset < release.offset).collect();
    assert!(late.iter().all(|record| record.header("ce_type") == Some("ReserveStock")) && !late.is_empty());
    skip_to(system, release);
    System::restart(&mut system.inventory).await;
    system.place_order_saga_becomes(&id, "compensated").await;
    for record in late {
        again(system, TOPIC, record).await;
    }
    accepted
}

/// Has the group, which has no members now, go on at this record.
fn skip_to(system: &System, record: &OwnedRecord) {
    let group = format!("{}inventory", system.topics.prefix);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &system.topics.bootstrap).set("group.id", group);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&record.topic, record.partition, Offset::Offset(record.offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}
