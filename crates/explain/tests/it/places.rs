//! Messages are found on real topics; where it was not looked to the end, nothing is called gone.

use std::time::Duration;

use waybill_explain::{Limits, Places, Report, Story, What};
use waybill_messaging::reader::{Patience, Reader};
use waybill_testkit::TestTopics;

use crate::told::{RESERVE, RESERVED, STORY, services};

const LIMITS: Limits = Limits { records: 1_000, time: Duration::from_secs(60) };

async fn told(topics: &TestTopics, limits: Limits) -> Report {
    let story = Story::gather(&services(&topics.prefix), STORY).await;
    let reader = Reader::new(&topics.bootstrap, "test", Patience::default()).unwrap();
    let places = Places::find(&reader, &story, limits).await;
    Report::new(STORY, &story, &places, Vec::new())
}

async fn produce(topics: &TestTopics, topic: &str, id: &str) {
    topics.produce(topic, Some(STORY.as_bytes()), &[("ce_id", id.as_bytes())], Some(b"x")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_found_and_what_is_gone_is_said() {
    let topics = TestTopics::create(&[("inventory.commands", 3), ("inventory.events", 3)]).await;
    produce(&topics, "inventory.commands", "other").await;
    produce(&topics, "inventory.commands", RESERVE).await;
    let report = told(&topics, LIMITS).await;
    let published = report.timeline.iter().find(|entry| entry.what == What::Published).unwrap();
    assert_eq!(published.detail["place"]["offset"], 1);
    assert_eq!(report.not_found_on_topics, [(RESERVED.to_owned(), topics.full("inventory.events"))]);
    assert!(report.complete, "it was looked everywhere: {report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_beyond_the_limit_is_not_called_gone() {
    let topics = TestTopics::create(&[("inventory.commands", 1), ("inventory.events", 1)]).await;
    for id in ["a", "b", RESERVE] {
        produce(&topics, "inventory.commands", id).await;
    }
    produce(&topics, "inventory.events", RESERVED).await;
    let report = told(&topics, Limits { records: 2, ..LIMITS }).await;
    assert_eq!(report.not_looked_on_topics.len(), 1, "{report:#?}");
    let not_looked = &report.not_looked_on_topics[0];
    assert_eq!(not_looked.topic, topics.full("inventory.commands"));
    assert!(
        not_looked.why.starts_with("2 records from 2026-05-04T09:59:00Z on were read"),
        "{}",
        not_looked.why
    );
    assert_eq!(report.not_found_on_topics, []);
    assert!(
        report.could_not_look() && report.text().contains("NOT LOOKED to the end of"),
        "{}",
        report.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_and_brokers_that_are_away_are_said() {
    let topics = TestTopics::create(&[("inventory.events", 1)]).await;
    produce(&topics, "inventory.events", RESERVED).await;
    let report = told(&topics, LIMITS).await;
    assert!(report.not_looked_on_topics[0].why.contains("is not on the brokers"), "{report:#?}");
    assert_eq!((report.not_looked_on_topics.len(), report.not_found_on_topics.len()), (1, 0));

    let story = Story::gather(&services(""), STORY).await;
    let patience = Patience { request: Duration::from_millis(100), silence: Duration::from_millis(100) };
    let nobody = Reader::new("127.0.0.1:1", "test", patience).unwrap();
    let places = Places::find(&nobody, &story, LIMITS).await;
    let report = Report::new(STORY, &story, &places, Vec::new());
    assert_eq!(report.not_looked_on_topics.len(), 2, "asked once, said of both: {report:#?}");
}
