//! Parts become one story; a part that is missing is said.

use serde_json::json;
use waybill_explain::{NotAsked, Places, Report, Story, What};

use crate::told::{RESERVE, RESERVED, STORY, services};

async fn report(services: &[crate::told::Told]) -> Report {
    Report::new(STORY, &Story::gather(services, STORY).await, &Places::default(), Vec::new())
}

#[tokio::test]
async fn parts_are_one_timeline_with_attempts_latencies_retries_and_dead_letters() {
    let services = services("");
    let report = report(&services).await;
    let whats: Vec<What> = report.timeline.iter().map(|entry| entry.what).collect();
    let expected = [
        What::SagaStep,
        What::MessageOut,
        What::SagaStep,
        What::MessageIn,
        What::MessageOut,
        What::SagaStep,
        What::Retry,
        What::DeadLetter,
    ];
    assert_eq!(whats, expected, "{:#?}", report.timeline);
    let step = &report.steps[0];
    assert_eq!((step.attempts, step.latency_ms, &step.outcome), (2, Some(2_499), &Some(json!("done"))));
    assert_eq!(
        report.timeline[3].title,
        "group inventory takes ReserveStock, appearance 1, 1999 ms after it was said"
    );
    assert_eq!(
        report.timeline[6].title,
        "group payments has the key blocked: tier 3, 4 tries, 2 held behind it; no"
    );
    assert_eq!(
        report.timeline[7].title,
        "group payments could not handle CapturePayment (open): on_purpose: no"
    );
    for service in &services {
        assert_eq!(*service.asked.lock().unwrap(), [String::new(), format!("{RESERVE},{RESERVED}")]);
    }
    assert_eq!(report.asked, ["orders", "inventory", "payments"]);
    assert!(!report.could_not_look() && !report.complete, "nobody was to look at the topics, and none did");
    assert!(report.text().ends_with("asked: orders, inventory, payments\nthe topics were not looked at"));
}

#[tokio::test]
async fn who_is_away_is_named_and_the_rest_is_told() {
    let [orders, inventory, payments] = services("");
    let report = report(&[orders, inventory.away_from(0), payments.away_from(1)]).await;
    assert!(report.could_not_look() && !report.complete);
    assert_eq!(report.asked, ["orders", "payments"]);
    let away = |service: &str, why: &str| NotAsked {
        service: Some(service.into()),
        why: why.into(),
        by_choice: false,
    };
    let expected =
        [away("inventory", "inventory is away"), away("payments", "what it heard: payments is away")];
    assert_eq!(report.not_asked, expected);
    assert!(report.timeline.iter().any(|entry| entry.what == What::DeadLetter), "what was told before stays");
    assert!(report.text().contains("\nNOT ASKED: inventory: inventory is away"), "{}", report.text());
}

#[tokio::test]
async fn a_story_older_than_an_outbox_or_longer_than_a_list_is_not_complete() {
    let [orders, inventory, payments] = services("");
    // The story's id was made on 2024-05-06.
    let orders = orders.with("outbox_since", json!("2024-05-07T00:00:00Z"));
    let inventory = inventory.with("truncated", json!(["outbox", "dead_letters"]));
    let payments = payments.with("outbox_since", json!(null));
    let report = report(&[orders, inventory, payments]).await;
    let told: Vec<_> = report.not_told.iter().map(|n| (n.service.as_str(), n.why.as_str())).collect();
    let dropped =
        "what was said before 2024-05-07T00:00:00Z, and when it was heard: its outbox goes back no further";
    let expected = [
        ("orders", dropped),
        ("inventory", "of its list `outbox` only the first rows"),
        ("inventory", "of its list `dead_letters` only the first rows"),
        ("payments", "it does not say how far back its outbox goes"),
    ];
    assert_eq!(told, expected);
    assert!(!report.complete);
    assert!(report.text().contains(&format!("\nNOT TOLD by orders: {dropped}\n")), "{}", report.text());
}

#[tokio::test]
async fn a_story_whose_id_tells_no_time_may_be_older_than_any_outbox() {
    let unknown = "018f4e5c-7d1a-4c3b-9e2d-5a6b7c8d9e0f";
    let story = Story::gather(&services("").map(|service| service.of(unknown)), unknown).await;
    let report = Report::new(unknown, &story, &Places::default(), Vec::new());
    assert_eq!(report.not_told.len(), 3, "{:?}", report.not_told);
    let story = Story::gather(&services(""), STORY).await;
    assert_eq!(Report::new(STORY, &story, &Places::default(), Vec::new()).not_told, []);
}

#[tokio::test]
async fn a_list_that_is_missing_is_no_empty_list() {
    let mut facts = crate::told::nothing();
    facts.as_object_mut().unwrap().remove("outbox");
    let report = report(&[crate::told::Told::new("orders", facts)]).await;
    let why = &report.not_asked[0].why;
    assert!(why.contains("missing field `outbox`") && report.asked.is_empty(), "{why}");
}
