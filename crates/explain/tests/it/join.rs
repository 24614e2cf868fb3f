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
async fn a_list_that_is_missing_is_no_empty_list() {
    let mut facts = crate::told::nothing();
    facts.as_object_mut().unwrap().remove("outbox");
    let report = report(&[crate::told::Told::new("orders", facts)]).await;
    let why = &report.not_asked[0].why;
    assert!(why.contains("missing field `outbox`") && report.asked.is_empty(), "{why}");
}
