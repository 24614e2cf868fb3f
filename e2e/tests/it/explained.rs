//! One order explained whole: by the endpoint of a service and by `waybillctl`, which agree, also when a service is away.

use std::time::Duration;

use serde_json::{Value, json};
use waybill_testkit::polling::eventually_named;
use waybill_testkit::ports::free_port;

use crate::invariants;
use crate::shop::Shop;
use crate::system::{Service, Special, System};

const WAIT: Duration = Duration::from_secs(150);

/// Every service with an operators' listener that the others know.
fn acquainted() -> Special {
    let addresses = Service::ALL.map(|service| (service, format!("127.0.0.1:{}", free_port())));
    let peers = addresses.iter().map(|(service, address)| format!("{}=http://{address}", service.name()));
    let peers = peers.collect::<Vec<_>>().join(",");
    let settings = addresses.into_iter().flat_map(|(service, address)| {
        [(service, "WAYBILL_OPERATOR_ADDR", address), (service, "WAYBILL_OPERATOR_PEERS", peers.clone())]
    });
    Special { of_service: settings.collect(), ..Special::default() }
}

async fn asked(system: &System, url: &str, id: &str, accept: &str) -> reqwest::Response {
    let token = system.tokens.token("on-call", "operator");
    let request = reqwest::Client::new().get(format!("{url}/operator/v1/explain/{id}"));
    request.bearer_auth(token).header("accept", accept).send().await.unwrap()
}

/// What orders' endpoint tells.
async fn by_endpoint(system: &System, id: &str) -> Value {
    asked(system, &system.orders.operator_url, id, "application/json").await.json().await.unwrap()
}

/// What the command tells, and its exit code.
async fn by_command(system: &System, id: &str) -> (Option<i32>, Value) {
    let (code, said) = system.operator(&["order", "explain", id, "--json"]).await;
    let report = said.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    (code, report.unwrap_or_else(|| panic!("{said}")))
}

/// Everything but why somebody did not answer, which is told in other words.
fn comparable(report: &Value) -> Value {
    let mut report = report.clone();
    for away in report["not_asked"].as_array_mut().unwrap() {
        away["why"] = Value::Null;
    }
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_and_command_tell_the_same_story_also_with_a_service_away() {
    let mut system = System::start_special("e2e_explained", &[], acquainted()).await;
    let shop = Shop::new(&system);
    shop.product("tea", 1_250, 100).await;
    let id = shop.order(&[("tea", 1)], "tok_approve").await;
    shop.becomes(&id, "CONFIRMED").await;
    shop.payment_becomes(&id, "captured").await;
    let accepted = shop.accepted();
    whole(&system, &id).await;

    system.process(Service::Payments).kill9().await;
    let (code, told) = by_command(&system, &id).await;
    assert_eq!(code, Some(1), "it could not look everywhere: {told}");
    assert_eq!(told["asked"], json!(["orders", "inventory"]));
    assert_eq!(told["not_asked"][0]["service"], "payments");
    let endpoint = by_endpoint(&system, &id).await;
    assert_eq!(comparable(&endpoint), comparable(&told));
    let text = asked(&system, &system.orders.operator_url, &id, "text/plain").await.text().await.unwrap();
    assert!(text.contains("NOT ASKED: payments: payments can not be asked at"), "{text}");
    System::restart(system.process(Service::Payments)).await;
    invariants::hold(&system, &accepted).await;
}

/// Waits until all of the story is on its topics, and the two agree on it.
async fn whole(system: &System, id: &str) {
    let told = eventually_named("a whole story", WAIT, async || {
        let told = by_endpoint(system, id).await;
        let published = |row: &Value| row["published"] == true;
        let services = told["services"].as_array().unwrap();
        let settled = services.iter().all(|part| part["outbox"].as_array().unwrap().iter().all(published));
        let steps = told["steps"].as_array().unwrap();
        let ended = steps.len() == 4 && steps.iter().all(|step| step["latency_ms"].is_i64());
        (settled && ended).then_some(told)
    })
    .await;
    assert_eq!((&told["complete"], &told["not_found_on_topics"]), (&json!(true), &json!([])), "{told}");
    assert!(told["steps"].as_array().unwrap().iter().all(|step| step["attempts"] == 1), "{}", told["steps"]);
    let (code, command) = by_command(system, id).await;
    assert_eq!(code, Some(0), "{command}");
    assert_eq!(comparable(&told), comparable(&command));
    // Any service can be asked; the order of those asked is its own.
    let other = asked(system, &system.payments.operator_url, id, "application/json").await;
    let other: Value = other.json().await.unwrap();
    assert_eq!(other["asked"], json!(["payments", "orders", "inventory"]));
    assert_eq!(other["steps"], told["steps"]);
}
