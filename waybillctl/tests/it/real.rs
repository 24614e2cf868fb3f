//! The operators' commands against a real service and a real relay: a dead letter's whole life, an order explained.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use waybill_events::topics::topic;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::ports::free_port;
use waybill_testkit::{Process, TestDatabase, TestTopics, Tokens, kafka_bootstrap};

use crate::{command, golden_frame, text};

/// Longest wait for a process or for a message to go round: debug builds on a busy machine.
const WAIT: Duration = Duration::from_secs(150);
const SKU: &str = "TEA-GREEN-100";
const PRODUCT: &str = "018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e77";

/// Orders and a relay.
struct System {
    orders: Process,
    _relay: Process,
    tokens: Tokens,
    topics: TestTopics,
    _database: TestDatabase,
    operator_url: String,
}

impl System {
    async fn start() -> System {
        let topics = TestTopics::new();
        let (bootstrap, prefix) = (kafka_bootstrap(), topics.prefix.clone());
        let here = ["--prefix", &prefix, "--bootstrap-servers", &bootstrap];
        let applied = command(&[&["topics", "apply"], &here[..]].concat()).output().unwrap();
        assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));
        topics.adopt(topic::ALL.iter().copied());
        let tokens = Tokens::new();
        let database = TestDatabase::create("ctl_orders").await;
        let operator = format!("127.0.0.1:{}", free_port());
        let process = |name: &str| {
            Process::named(name)
                .env("KAFKA_BOOTSTRAP_SERVERS", &bootstrap)
                .env("WAYBILL_TOPIC_PREFIX", &prefix)
        };
        let mut orders = process("waybill-orders")
            .env("DATABASE_URL", &database.url)
            .env("WAYBILL_JWKS", tokens.jwks_path().to_str().unwrap())
            .env("WAYBILL_OPERATOR_ADDR", &operator)
            // Nobody answers its commands: none is to be sent again while this is looked at.
            .env("WAYBILL_ORDERS_STEP_DEADLINE_MS", "600000")
            .spawn();
        orders.wait_ready(WAIT).await;
        let mut relay =
            process("outbox-relay").env("OUTBOX_RELAY_DATABASES", format!("orders={}", database.url)).spawn();
        relay.wait_ready(WAIT).await;
        let operator_url = format!("orders=http://{operator}");
        System { orders, _relay: relay, tokens, topics, _database: database, operator_url }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let token = self.tokens.token("ana", "operator");
        let mut run = command(arguments);
        run.env("WAYBILL_OPERATOR_URLS", &self.operator_url)
            .env("WAYBILL_TOKEN", token)
            .env("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap())
            .env("WAYBILL_TOPIC_PREFIX", &self.topics.prefix);
        run.output().unwrap()
    }

    /// The JSON a command prints, when it ends with `code`.
    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let run = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(
            run.status.code(),
            Some(code),
            "{arguments:?}: {}{}",
            text(&run.stdout),
            text(&run.stderr)
        );
        serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&run.stdout)))
    }

    /// Waits until a list has this many items.
    async fn items(&self, count: usize, arguments: &[&str]) -> Vec<Value> {
        let look = async || {
            let listed = self.json(0, arguments);
            let items = listed["items"].as_array().unwrap().clone();
            (items.len() == count).then_some(items)
        };
        eventually_named(&format!("{count} items of {arguments:?}"), WAIT, look).await
    }

    /// A product that nobody can read: right headers, wrong bytes.
    async fn broken_product(&self) {
        let time = "2026-05-04T10:00:00.000000Z";
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", PRODUCT),
            ("ce_source", "/waybill/inventory"),
            ("ce_type", "ProductAdded"),
            ("ce_time", time),
            ("ce_subject", SKU),
            ("ce_correlationid", PRODUCT),
            ("ce_sequence", "1"),
            ("content-type", "application/avro"),
        ];
        let headers = headers.map(|(name, value)| (name, value.as_bytes()));
        let mut frame = golden_frame("inventory/ProductAdded.15");
        frame.truncate(frame.len() - 2);
        self.topics.produce(topic::INVENTORY_EVENTS, Some(SKU.as_bytes()), &headers, Some(&frame)).await;
    }

    /// An order of the product, placed as a customer does.
    async fn order(&self) -> String {
        let token = self.tokens.token("018f4e5c-0000-7000-8000-0000000000c1", "customer");
        let body = json!({"lines": [{"sku": SKU, "quantity": 2}], "currency": "EUR", "payment_token": "tok_approve"});
        let answer = reqwest::Client::new()
            .post(format!("{}/api/v1/orders", self.orders.url))
            .bearer_auth(token)
            .header("Idempotency-Key", "ctl-1")
            .json(&body)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(status.as_u16(), 202, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_looked_at_edited_tried_and_replayed_and_an_order_explained() {
    let system = System::start().await;
    system.broken_product().await;
    dead_letter(&system).await;
    let order = system.order().await;
    explained(&system, &order).await;
    outbox_and_saga(&system, &order).await;
    the_customers_listener_is_no_operators(&system, &order);
}

async fn dead_letter(system: &System) {
    let letters = system.items(1, &["dead-letters", "list"]).await;
    let id = letters[0]["id"].as_str().unwrap();
    assert_eq!((&letters[0]["kind"], &letters[0]["key"]), (&json!("ProductAdded"), &json!(SKU)));
    let groups = system.items(1, &["dead-letters", "groups"]).await;
    assert_eq!(groups[0]["failure_group"], letters[0]["failure_group"]);
    let shown = system.run(&["dead-letters", "show", id]);
    assert!(
        text(&shown.stdout).contains("not decoded: the bytes end inside waybill.inventory.ProductAdded"),
        "{}",
        text(&shown.stdout)
    );
    assert!(text(&shown.stdout).contains("  ce_source: /waybill/inventory\n"), "{}", text(&shown.stdout));
    let parked = system.items(1, &["parked", "list", "--group", "orders"]).await;
    assert_eq!((&parked[0]["key"], &parked[0]["state"]), (&json!(SKU), &json!("blocked")));
    assert_eq!(system.json(0, &["parked", "show", "orders", SKU])["dead_letter_id"], id);
    assert_eq!(system.json(0, &["dead-letters", "plan", "--type", "ProductAdded"])["total"], 1);
    let tried = system.json(3, &["dead-letters", "dry-run", "--all"]);
    assert_eq!(tried["items"][0]["outcome"], "reject", "{tried}");

    let product = json!({"sku": SKU, "name": "Tea", "unit_price_minor": 1250, "currency": "EUR"});
    let file = std::env::temp_dir().join(format!("waybillctl-{id}.json"));
    std::fs::write(&file, product.to_string()).unwrap();
    let edit =
        ["dead-letters", "edit", id, "--value", file.to_str().unwrap(), "--apply", "--reason", "cut off"];
    system.json(0, &edit);
    std::fs::remove_file(&file).unwrap();
    let tried = system.json(0, &["dead-letters", "dry-run", "--id", id]);
    assert_eq!(
        (&tried["items"][0]["outcome"], &tried["items"][0]["patched"]),
        (&json!("done"), &json!(true)),
        "{tried}"
    );
    assert!(!tried["items"][0]["writes"].as_array().unwrap().is_empty(), "{tried}");

    let replayed = system.json(0, &["dead-letters", "replay", "--all", "--apply", "--reason", "mended"]);
    assert_eq!(
        (&replayed["items"][0]["state"], &replayed["items"][0]["resolved"]),
        (&json!("finished"), &json!(1))
    );
    system.items(1, &["dead-letters", "list", "--state", "resolved"]).await;
    system.items(0, &["parked", "list"]).await;
    system.items(1, &["dead-letters", "replay", "list"]).await;
    let audit = system.items(2, &["audit", "list"]).await;
    assert!(audit.iter().all(|entry| entry["subject"] == "ana"), "{audit:?}");
    let discarded =
        system.json(0, &["dead-letters", "discard", "--all", "--apply", "--reason", "none are left"]);
    assert_eq!(discarded["discarded"], 0);
}

async fn explained(system: &System, order: &str) {
    let story = async || {
        let story = system.json(0, &["order", "explain", order]);
        let timeline = story["timeline"].as_array().unwrap();
        let published = timeline.iter().filter(|entry| entry["what"] == "published").count();
        (published == 2).then_some(story)
    };
    let story = eventually_named("OrderPlaced and ReserveStock on their topics", WAIT, story).await;
    assert_eq!(story["not_found_on_topics"], json!([]));
    let first = &story["timeline"][0];
    assert_eq!((&first["what"], &first["detail"]["idempotency_key"]), (&json!("command"), &json!("ctl-1")));
    assert_eq!(story["steps"][0]["attempts"], 1, "{}", story["steps"]);
    assert_eq!(story["trace_ids"].as_array().unwrap().len(), 1);
    let told = system.run(&["order", "explain", order]);
    assert!(text(&told.stdout).contains("says ReserveStock to "), "{}", text(&told.stdout));
}

async fn outbox_and_saga(system: &System, order: &str) {
    let status = system.json(0, &["outbox", "status"]);
    assert_eq!(status["items"][0]["lease"]["epoch"], 1, "{status}");
    let hour = ["outbox", "republish", "--from", "1h", "--to", "2100-01-01T00:00:00Z"];
    let plan = system.json(0, &hour);
    let rows = plan["items"][0]["rows"].as_u64().unwrap();
    assert!(rows >= 2, "{plan}");
    let done = system.json(0, &[&hour[..], &["--apply", "--reason", "a drill"]].concat());
    assert_eq!((&done["items"][0]["applied"], &done["items"][0]["rows"]), (&json!(true), &json!(rows)));
    let sagas = system.items(1, &["saga", "list", "--key", order]).await;
    let name = sagas[0]["saga"].as_str().unwrap();
    assert!(!system.json(0, &["saga", "show", name, order])["log"].as_array().unwrap().is_empty());
    let refused = system.run(&["saga", "retry", name, order, "--apply", "--reason", "a drill"]);
    assert_eq!(refused.status.code(), Some(1), "only a stuck saga is retried");
    assert!(text(&refused.stderr).contains("409 Conflict"), "{}", text(&refused.stderr));
}

fn the_customers_listener_is_no_operators(system: &System, order: &str) {
    let urls = format!("orders={}", system.orders.url);
    for thing in [&["dead-letters", "show", order][..], &["parked", "show", "orders", SKU], &["saga", "list"]]
    {
        let run = system.run(&[thing, &["--operator-urls", &urls]].concat());
        let said = text(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{thing:?}: {said}");
        assert!(said.contains("is no operator listener"), "{thing:?}: {said}");
    }
}
