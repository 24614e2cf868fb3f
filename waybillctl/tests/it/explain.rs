//! `order explain`: recorded facts of three services, the messages on real topics.

use serde_json::{Value, json};
use waybill_testkit::{TestTopics, kafka_bootstrap};

use crate::double::Doubles;
use crate::looks::ORDER;
use crate::text;

const RESERVE: &str = "01980000-0000-7000-8000-0000000000e1";
const RESERVED: &str = "01980000-0000-7000-8000-0000000000e2";
const LOST: &str = "01980000-0000-7000-8000-0000000000e3";

fn said(id: &str, topic: &str, kind: &str, at: &str) -> Value {
    json!({"id": 1, "message_id": id, "topic": topic, "key": ORDER, "kind": kind, "sequence": 1, "created_at": at,
        "causation_id": null, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "retry_hop": null, "published": true})
}

fn heard(group: &str, id: &str, at: &str) -> Value {
    json!({"group": group, "message_id": id, "hop": 0, "received_at": at})
}

fn nothing(service: &str) -> Value {
    json!({"service": service, "outbox_since": "2024-05-01T00:00:00Z", "truncated": [], "outbox": [], "inbox": [], "idempotency": [], "sagas": [], "saga_log": [], "parked": [],
        "dead_letters": []})
}

/// What orders knows of an order whose stock is reserved.
pub(crate) fn of_orders(prefix: &str) -> Value {
    let mut orders = nothing("orders");
    orders["outbox"] = json!([
        said(RESERVE, &format!("{prefix}inventory.commands"), "ReserveStock", "2026-05-04T10:00:00.000001Z"),
        said(LOST, &format!("{prefix}orders.events"), "OrderPlaced", "2026-05-04T10:00:00.000001Z"),
    ]);
    orders["inbox"] = json!([heard("orders", RESERVED, "2026-05-04T10:00:00.040000Z")]);
    orders["idempotency"] = json!([{"scope": "ana", "endpoint": "POST /api/v1/orders", "key": "k1", "status": 202,
        "created_at": "2026-05-04T10:00:00.000001Z"}]);
    let entry = |number: u32, at: &str, entry: Value| json!({"saga": "place_order", "number": number, "at": at, "entry": entry});
    orders["saga_log"] = json!([
        entry(
            1,
            "2026-05-04T10:00:00.000001Z",
            json!({"input": {"started": {"version": 1}}, "status": "running", "did": [
            {"sent": {"step": "reserve", "phase": "act", "attempt": 1, "message_id": RESERVE, "kind": "ReserveStock", "topic": "inventory.commands"}}]})
        ),
        entry(
            2,
            "2026-05-04T10:00:00.040000Z",
            json!({"input": {"reply": {"step": "reserve", "phase": "act", "outcome": "done"}}, "cause": RESERVED, "status": "running", "did": [
            {"sent": {"step": "authorize", "phase": "act", "attempt": 1, "message_id": LOST, "kind": "AuthorizePayment", "topic": "payments.commands"}}]})
        ),
    ]);
    orders
}

/// The facts of an order whose stock is reserved, its topics under this prefix.
async fn doubles(prefix: &str) -> Doubles {
    let doubles = Doubles::serve().await;
    let path = format!("GET /facts/{ORDER}");
    let mut inventory = nothing("inventory");
    inventory["outbox"] = json!([said(
        RESERVED,
        &format!("{prefix}inventory.events"),
        "StockReserved",
        "2026-05-04T10:00:00.020000Z"
    )]);
    inventory["inbox"] = json!([heard("inventory", RESERVE, "2026-05-04T10:00:00.020000Z")]);
    doubles.orders.says(&path, of_orders(prefix));
    doubles.inventory.says(&path, inventory);
    let mut payments = nothing("payments");
    if !prefix.is_empty() {
        payments["parked"] = json!([{"group": "payments", "key": ORDER, "state": "blocked", "tier": 3, "due_at": null,
            "attempts": 4, "error_class": "rejected", "error_message": "no such payment", "dead_letter_id": null,
            "held_count": 2, "held_bytes": 2048, "parked_at": "2026-05-04T10:00:01Z"}]);
        payments["dead_letters"] = json!([crate::looks::letter(crate::looks::LETTER)]);
    }
    doubles.payments.says(&path, payments);
    doubles
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_is_told_in_its_order() {
    let doubles = doubles("").await;
    let run = doubles.ctl(&["order", "explain", ORDER, "--without-kafka"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    insta::assert_snapshot!("explain", text(&run.stdout));
    let asked = doubles.payments.asked();
    assert_eq!(
        asked[1].query.matches("%2C").count(),
        2,
        "each is asked whether it heard what the others said"
    );

    let run = doubles.ctl(&["order", "explain", ORDER, "--without-kafka", "--json"]);
    let story: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(story["steps"][0]["latency_ms"], 39);
    assert_eq!(story["looked_on_topics"], false);
    assert_eq!(story["trace_ids"], json!(["4bf92f3577b34da6a3ce929d0e0e4736"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_on_their_topics() {
    let topics =
        TestTopics::create(&[("inventory.commands", 6), ("inventory.events", 6), ("orders.events", 6)]).await;
    let doubles = doubles(&topics.prefix).await;
    for (topic, id) in
        [("inventory.commands", RESERVE), ("inventory.events", "other"), ("inventory.events", RESERVED)]
    {
        topics.produce(topic, Some(ORDER.as_bytes()), &[("ce_id", id.as_bytes())], Some(b"x")).await;
    }
    let bootstrap = kafka_bootstrap();
    let run = doubles.ctl(&["order", "explain", ORDER, "--json", "--bootstrap-servers", &bootstrap]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let story: Value = serde_json::from_slice(&run.stdout).unwrap();
    let places: Vec<&Value> =
        story["timeline"].as_array().unwrap().iter().filter(|entry| entry["what"] == "published").collect();
    assert_eq!(places.len(), 2, "{places:?}");
    assert_eq!(places[1]["detail"]["place"]["topic"], topics.full("inventory.events"));
    assert_eq!(places[1]["detail"]["place"]["offset"], 1);
    assert_eq!(story["not_found_on_topics"], json!([[LOST, topics.full("orders.events")]]));

    let run = doubles.ctl(&["order", "explain", ORDER, "--bootstrap-servers", &bootstrap]);
    let mut told = text(&run.stdout).replace(&topics.prefix, "");
    for at in places.iter().map(|place| place["at"].as_str().unwrap()) {
        told = told.replace(&at[..10], "THE DAY OF THE TEST").replace(&at[11..23], "hh:mm:ss.mmm");
    }
    insta::assert_snapshot!("explain_with_places_retries_and_dead_letters", told);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_nobody_knows_is_an_error() {
    let doubles = Doubles::serve().await;
    for (double, service) in doubles.all().into_iter().zip(["orders", "inventory", "payments"]) {
        double.says(&format!("GET /facts/{ORDER}"), nothing(service));
    }
    let run = doubles.ctl(&["order", "explain", ORDER]);
    assert_eq!(run.status.code(), Some(1));
    assert!(
        text(&run.stderr).contains("orders, inventory, payments know nothing of order"),
        "{}",
        text(&run.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_older_than_an_outbox_is_not_told_as_complete() {
    let doubles = doubles("").await;
    let mut orders = of_orders("");
    orders["outbox_since"] = json!("2026-05-01T00:00:00Z");
    doubles.orders.forget(&format!("GET /facts/{ORDER}"));
    doubles.orders.says(&format!("GET /facts/{ORDER}"), orders);
    let here = ["order", "explain", ORDER, "--without-kafka"];
    let run = doubles.ctl(&here);
    assert_eq!(run.status.code(), Some(1), "{}", text(&run.stderr));
    let said = "\nNOT TOLD by orders: what was said before 2026-05-01T00:00:00Z";
    assert!(text(&run.stdout).contains(said), "{}", text(&run.stdout));
    let run = doubles.ctl(&[&here[..], &["--json"]].concat());
    let story: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&story["complete"], &story["not_told"][0]["service"]), (&json!(false), &json!("orders")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_order_id_is_wrong_usage() {
    let doubles = Doubles::serve().await;
    let run = doubles.ctl(&["order", "explain", "not-a-uuid"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("invalid value 'not-a-uuid' for '<ID>'"), "{}", text(&run.stderr));
    assert!(doubles.orders.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_not_asked_is_said() {
    let doubles = doubles("").await;
    let here = ["order", "explain", ORDER, "--without-kafka"];
    let run = doubles.ctl(&[&here[..], &["--service", "orders"]].concat());
    assert_eq!(run.status.code(), Some(0), "it was the operator's own choice: {}", text(&run.stderr));
    for name in ["inventory", "payments"] {
        let said = format!("\nNOT ASKED: {name}: left out by --service");
        assert!(text(&run.stdout).contains(&said), "{}", text(&run.stdout));
    }

    doubles.payments.forget(&format!("GET /facts/{ORDER}"));
    doubles.payments.says_with(&format!("GET /facts/{ORDER}"), 503, json!({"detail": "starting"}));
    let run = doubles.ctl(&[&here[..], &["--json"]].concat());
    assert_eq!(run.status.code(), Some(1), "what could not be looked at may be there");
    let story: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&story["complete"], &story["not_asked"][0]["service"]), (&json!(false), &json!("payments")));
    assert!(story["not_asked"][0]["why"].as_str().unwrap().contains("starting"), "{story}");
}
