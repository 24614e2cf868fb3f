//! Processes from outside: how they start without servers, with bad configuration, and how they stop.

use std::time::Duration;

use waybill_testkit::Process;

use crate::shop::Shop;
use crate::system::System;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_servers_a_service_waits_and_says_so() {
    let tokens = waybill_testkit::Tokens::new();
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
    let mut system = System::start("e2e_trace").await;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    {
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
        let order: serde_json::Value = placed.json().await.unwrap();
        let id = order["id"].as_str().unwrap();
        shop.becomes(id, "CONFIRMED").await;
        shop.payment_becomes(id, "captured").await;
        let is_captured = |records: &[waybill_testkit::OwnedRecord]| {
            records.iter().any(|record| record.header("ce_type") == Some("PaymentCaptured"))
        };
        let records = system.topics.read_all("payments.events", is_captured, LIMIT).await;
        for record in records {
            assert!(record.header("traceparent").unwrap().contains(trace_id), "{record:?}");
            assert_eq!(record.header("ce_correlationid"), Some(id));
            assert!(record.header("ce_causationid").is_some(), "{record:?}");
        }
    }
    for (name, process) in [
        ("orders", &mut system.orders),
        ("inventory", &mut system.inventory),
        ("payments", &mut system.payments),
        ("relay", &mut system.relay),
    ] {
        let metrics = reqwest::get(format!("{}/metrics", process.url)).await.unwrap().text().await.unwrap();
        assert!(metrics.contains("process_resident_memory_bytes"), "{name}: {metrics}");
        assert_eq!(process.terminate().await, Some(0), "{name}: {}", process.output());
    }
}
