//! The manifest, the constants and the list of messages name the same topics.

use std::collections::{BTreeMap, BTreeSet};

use waybill_events::topics::{manifest_parsed, topic};
use waybill_events::{KNOWN, inventory, orders, payments};
use waybill_messaging::codec::Contract;

#[test]
fn constants_and_manifest_name_the_same_topics() {
    let manifest = manifest_parsed().unwrap();
    let declared: Vec<&str> = manifest.topics().iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(declared, topic::ALL);
}

#[test]
fn every_message_is_declared_on_its_topic() {
    let manifest = manifest_parsed().unwrap();
    let mut published: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for known in KNOWN {
        published.entry(known.topic).or_default().insert(known.kind);
    }
    for topic in manifest.topics() {
        let declared: BTreeSet<&str> = topic.messages.iter().map(String::as_str).collect();
        assert_eq!(declared, published.remove(topic.name.as_str()).unwrap_or_default(), "{}", topic.name);
    }
    assert!(published.is_empty(), "messages on undeclared topics: {published:?}");
}

/// The groups that read a main topic; a group's own retries are read by `<group>.retry`.
fn main_readers() -> Vec<(String, String)> {
    let manifest = manifest_parsed().unwrap();
    let mains = manifest.topics().iter().filter(|topic| !topic.messages.is_empty());
    mains.flat_map(|topic| topic.consumers.iter().map(|group| (topic.name.clone(), group.clone()))).collect()
}

#[test]
fn every_group_has_its_dead_letter_topic() {
    let manifest = manifest_parsed().unwrap();
    let expected: BTreeSet<String> =
        main_readers().iter().map(|(topic, group)| format!("{topic}.{group}.dlq")).collect();
    let names = manifest.topics().iter().map(|topic| topic.name.clone());
    assert_eq!(names.filter(|name| name.ends_with(".dlq")).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn every_group_has_its_three_retry_topics_and_reads_them_alone() {
    let manifest = manifest_parsed().unwrap();
    let mut expected = BTreeMap::new();
    for (topic, group) in main_readers() {
        for tier in 1..=3 {
            expected.insert(format!("{topic}.{group}.retry.{tier}"), vec![format!("{group}.retry")]);
        }
    }
    let retries = manifest.topics().iter().filter(|topic| topic.name.contains(".retry."));
    let declared: BTreeMap<_, _> = retries.map(|t| (t.name.clone(), t.consumers.clone())).collect();
    assert_eq!(declared, expected);
}

#[test]
fn a_services_messages_are_in_its_namespace() {
    assert_eq!(orders::OrderPlaced::NAME, "waybill.orders.OrderPlaced");
    assert_eq!(inventory::StockReserved::NAME, "waybill.inventory.StockReserved");
    assert_eq!(payments::AuthorizePayment::TYPE, "AuthorizePayment");
}
