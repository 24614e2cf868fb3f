//! Processes from outside: how they start without servers, with bad configuration, and how they stop.

use std::time::Duration;

use serde_json::Value;
use waybill_testkit::{Process, TcpSwitch, TestDatabase, TestTopics, Tokens, eventually};

use crate::invariants;
use crate::shop::Shop;
use crate::system::{System, topics_apply};

const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mistake_in_the_configuration_is_named_at_once() {
    for (binary, mistakes) in [
        ("waybill-orders", ["DATABASE_URL", "WAYBILL_JWKS", "WAYBILL_LOG_FORMAT"]),
        ("waybill-inventory", ["DATABASE_URL", "WAYBILL_JWKS", "WAYBILL_LOG_FORMAT"]),
        ("waybill-payments", ["DATABASE_URL", "WAYBILL_JWKS", "WAYBILL_LOG_FORMAT"]),
        ("outbox-relay", ["OUTBOX_RELAY_DATABASES", "WAYBILL_HTTP_ADDR", "WAYBILL_LOG_FORMAT"]),
    ] {
        let bad = Process::named(binary)
            .without_http()
            .env("WAYBILL_LOG_FORMAT", "xml")
            .env("WAYBILL_HTTP_ADDR", "nowhere");
        let mut process = bad.spawn();
        assert_eq!(process.wait_exit(LIMIT).await, Some(2), "{binary}: {}", process.output());
        for mistake in mistakes {
            assert!(process.output().contains(mistake), "{binary} names {mistake}: {}", process.output());
        }
    }
}

/// Each has a value, and none of them can be used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_can_not_be_used_are_mistakes_too() {
    let no_key = std::env::temp_dir().join(format!("waybill-no-key-{}.json", uuid::Uuid::now_v7()));
    std::fs::write(&no_key, r#"{"keys": [{"kty": "RSA", "kid": "a", "n": "AQ", "e": "AQAB"}]}"#).unwrap();
    for (binary, jwks, why) in [
        ("waybill-orders", "/nowhere/jwks.json", "No such file"),
        ("waybill-inventory", no_key.to_str().unwrap(), "no Ed25519 key"),
        ("waybill-payments", "/nowhere/jwks.json", "No such file"),
    ] {
        let bad = Process::named(binary)
            .env("DATABASE_URL", "postgres://u:geheim@host:port/database")
            .env("WAYBILL_JWKS", jwks)
            .env("RUST_LOG", "waybill_http=loud");
        let mut process = bad.spawn();
        assert_eq!(process.wait_exit(LIMIT).await, Some(2), "{binary}: {}", process.output());
        let output = process.output();
        for told in ["3 mistakes", "DATABASE_URL", "WAYBILL_JWKS", why, "RUST_LOG"] {
            assert!(output.contains(told), "{binary} names {told}: {output}");
        }
        assert!(!output.contains("geheim"), "{binary} tells no password: {output}");
    }
    std::fs::remove_file(&no_key).unwrap();
    let relay = Process::named("outbox-relay")
        .without_http()
        .env("OUTBOX_RELAY_DATABASES", "orders=postgres://u:geheim@host:port/database")
        .env("RUST_LOG", "outbox_relay=loud");
    let mut relay = relay.spawn();
    assert_eq!(relay.wait_exit(LIMIT).await, Some(2), "{}", relay.output());
    for told in ["2 mistakes", "OUTBOX_RELAY_DATABASES", "RUST_LOG"] {
        assert!(relay.output().contains(told), "{told}: {}", relay.output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_are_known_or_a_mistake_and_help_is_given_without_settings() {
    for binary in ["waybill-orders", "waybill-inventory", "waybill-payments", "outbox-relay"] {
        let mut mistaken = Process::named(binary).without_http().arg("--port").arg("1").spawn();
        assert_eq!(mistaken.wait_exit(LIMIT).await, Some(2), "{binary}: {}", mistaken.output());
        let output = mistaken.output();
        assert!(output.contains("--port") && output.contains("Usage:"), "{binary}: {output}");
        let mut help = Process::named(binary).without_http().arg("--help").spawn();
        assert_eq!(help.wait_exit(LIMIT).await, Some(0), "{binary}: {}", help.output());
        assert!(help.output().contains("Usage:"), "{binary}: {}", help.output());
        let variables: &[&str] = match binary {
            "outbox-relay" => &[],
            _ => &["DATABASE_URL", "WAYBILL_JWKS", "RUST_LOG", "KAFKA_SASL_PASSWORD_FILE", "WAYBILL_FAULTS"],
        };
        for variable in variables {
            assert!(help.output().contains(variable), "{binary} tells {variable}: {}", help.output());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_servers_a_service_waits_and_says_so() {
    let tokens = Tokens::new();
    for (binary, dependency) in
        [("waybill-orders", "postgres"), ("waybill-inventory", "postgres"), ("waybill-payments", "postgres")]
    {
        let mut process = Process::named(binary)
            .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
            .env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
            .env("WAYBILL_JWKS", tokens.jwks_path().to_str().unwrap())
            .spawn();
        process.wait_output("waiting for Postgres", LIMIT).await;
        let health = reqwest::get(format!("{}/health", process.url)).await.unwrap();
        assert_eq!(health.status(), 200, "{binary} lives");
        let ready = reqwest::get(format!("{}/ready", process.url)).await.unwrap();
        assert_eq!(ready.status(), 503, "{binary} is not ready");
        let body = ready.text().await.unwrap();
        assert!(body.contains(dependency), "{binary} says why: {body}");
        assert_eq!(
            process.terminate().await,
            Some(0),
            "{binary} stops without its servers: {}",
            process.output()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_away_at_the_start_are_waited_for_and_found() {
    let (topics, tokens) = (TestTopics::new(), Tokens::new());
    topics_apply(&topics).await;
    let database = TestDatabase::create("e2e_away").await;
    let kafka = port_of(&topics.bootstrap);
    let switch = TcpSwitch::to(kafka).await;
    switch.turn_to(None);
    let through = format!("127.0.0.1:{}", switch.port());
    let mut orders = Process::named("waybill-orders")
        .env("DATABASE_URL", &database.url)
        .env("WAYBILL_JWKS", tokens.jwks_path().to_str().unwrap())
        .env("WAYBILL_TOPIC_PREFIX", &topics.prefix)
        .env("KAFKA_BOOTSTRAP_SERVERS", &through)
        .spawn();
    orders.wait_output("not ready to work", LIMIT).await;
    let why = unready(&orders).await.expect("it is not ready");
    assert!(why.contains("waiting for Postgres, Kafka"), "{why}");
    switch.turn_to(Some(kafka));
    orders.wait_ready(LIMIT).await;
    assert_eq!(orders.terminate().await, Some(0), "{}", orders.output());

    // Its tables are there now.
    let named = format!("orders={}", database.url);
    let postgres = database.url.split('@').next_back().and_then(|rest| rest.split('/').next()).unwrap();
    for (away, server) in [("kafka", topics.bootstrap.as_str()), ("postgres", postgres)] {
        let switch = TcpSwitch::to(port_of(server)).await;
        switch.turn_to(None);
        let through = format!("127.0.0.1:{}", switch.port());
        let relay = Process::named("outbox-relay").env("WAYBILL_TOPIC_PREFIX", &topics.prefix);
        let mut relay = match away {
            "kafka" => relay.env("OUTBOX_RELAY_DATABASES", &named).env("KAFKA_BOOTSTRAP_SERVERS", through),
            _ => relay
                .env("OUTBOX_RELAY_DATABASES", named.replace(server, &through))
                .env("KAFKA_BOOTSTRAP_SERVERS", &topics.bootstrap),
        }
        .spawn();
        // It says so once it has tried.
        let why =
            eventually(LIMIT, async || unready(&relay).await.filter(|why| why.to_lowercase().contains(away)))
                .await;
        assert!(relay.output().to_lowercase().contains(away), "{why}: {}", relay.output());
        switch.turn_to(Some(port_of(server)));
        relay.wait_ready(LIMIT).await;
        assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    }
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// What a process that lives says of why it is not ready; `None`: it does not listen yet, or is ready.
async fn unready(process: &Process) -> Option<String> {
    let health = reqwest::get(format!("{}/health", process.url)).await.ok()?;
    assert_eq!(health.status(), 200, "it lives: {}", process.output());
    let ready = reqwest::get(format!("{}/ready", process.url)).await.ok()?;
    if ready.status() == 200 { None } else { ready.text().await.ok() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_the_api_says_try_again() {
    for (binary, path) in [
        ("waybill-orders", "/api/v1/orders"),
        ("waybill-inventory", "/api/v1/products"),
        ("waybill-payments", "/api/v1/payments/01900000-0000-7000-8000-000000000000"),
    ] {
        let process = Process::named(binary)
            .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
            .env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
            .env("WAYBILL_JWKS", "http://127.0.0.1:1/jwks.json")
            .spawn();
        process.wait_output("waiting for the JWKS", LIMIT).await;
        // Not 404: that would be an answer.
        let early = reqwest::get(format!("{}{path}", process.url)).await.unwrap();
        assert_eq!(early.status(), 503, "{binary}");
        assert!(early.headers().contains_key("Retry-After"), "{binary}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_is_carried_from_the_request_to_the_last_reply_and_processes_stop_cleanly() {
    let settings = [("WAYBILL_LOG_FORMAT", "json"), ("RUST_LOG", "info,waybill_outbox=debug")];
    let mut system = System::start_with("e2e_trace", &settings).await;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let order_id = {
        let shop = Shop::new(&system);
        shop.product("tea", 700, 5).await;
        let body = serde_json::json!({
            "lines": [{"sku": "tea", "quantity": 1}], "currency": "EUR", "payment_token": "tok_approve"
        });
        let placed = shop
            .client
            .post(format!("{}/api/v1/orders", system.orders.url))
            .bearer_auth(&shop.customer)
            .header("Idempotency-Key", "traced")
            .header("traceparent", format!("00-{trace_id}-00f067aa0ba902b7-01"))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(placed.status(), 202);
        let order: Value = placed.json().await.unwrap();
        let id = order["id"].as_str().unwrap();
        shop.becomes(id, "CONFIRMED").await;
        shop.payment_becomes(id, "captured").await;
        shop.stock_becomes("tea", (4, 0, 1)).await;
        let is_captured = |records: &[waybill_testkit::OwnedRecord]| {
            records.iter().any(|record| record.header("ce_type") == Some("PaymentCaptured"))
        };
        let records = system.topics.read_all("payments.events", is_captured, LIMIT).await;
        for record in records {
            assert!(record.header("traceparent").unwrap().contains(trace_id), "{record:?}");
            assert_eq!(record.header("ce_correlationid"), Some(id));
            assert!(record.header("ce_causationid").is_some(), "{record:?}");
        }
        invariants::hold(&system, &shop.accepted()).await;
        id.to_owned()
    };
    // Requests of the order's story, and messages of it: each service reads some of both.
    for (name, process, requests, messages) in [
        ("orders", &mut system.orders, 2, 3),
        ("inventory", &mut system.inventory, 0, 2),
        ("payments", &mut system.payments, 1, 2),
        ("relay", &mut system.relay, 0, 0),
    ] {
        let metrics = reqwest::get(format!("{}/metrics", process.url)).await.unwrap().text().await.unwrap();
        assert!(metrics.contains("process_resident_memory_bytes"), "{name}: {metrics}");
        assert_eq!(process.terminate().await, Some(0), "{name}: {}", process.output());
        let told = told_with_ids(name, &process.output());
        let of_the_order = |line: &&Value| line["correlation_id"] == order_id.as_str();
        let count =
            |word: &str| told.iter().filter(of_the_order).filter(|line| line["message"] == word).count();
        assert!(count("answered") >= requests, "{name}: {told:?}");
        assert!(count("handled") >= messages, "{name}: {told:?}");
        let traced = told.iter().filter(of_the_order).any(|line| line["trace_id"] == trace_id);
        assert!(traced || messages == 0, "{name}: {told:?}");
    }
}

/// The lines about requests and messages, each of which must say to which story and trace it belongs.
fn told_with_ids(name: &str, output: &str) -> Vec<Value> {
    let lines = output.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{name}: {error} in {line}"))
    });
    let of_one = |line: &Value| {
        // Probes are machines' and belong to no story; they are not logged at this level.
        line.get("route").is_some() || line.get("message_id").is_some() || line["message"] == "handled"
    };
    let told: Vec<Value> = lines.filter(of_one).collect();
    for line in &told {
        let id = |field: &str| line[field].as_str().unwrap_or_default().parse::<uuid::Uuid>();
        assert!(id("trace_id").is_ok_and(|id| !id.is_nil()), "{name}: {line}");
        assert!(id("correlation_id").is_ok_and(|id| !id.is_nil()), "{name}: {line}");
    }
    told
}
