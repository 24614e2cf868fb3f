//! Health: the process's own state, its dependencies, and how often they are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use waybill_http::health::{Health, router};
use waybill_testkit::eventually;

use crate::server::{PATIENCE, Server};

#[tokio::test]
async fn readiness_follows_the_dependencies_and_health_does_not() {
    let away = Arc::new(AtomicBool::new(true));
    let looks = Arc::new(AtomicUsize::new(0));
    let check = {
        let (away, looks) = (away.clone(), looks.clone());
        move || {
            looks.fetch_add(1, Ordering::SeqCst);
            let away = away.load(Ordering::SeqCst);
            async move { if away { Err("connection refused".to_owned()) } else { Ok(()) } }
        }
    };
    let health = Health::new("orders", "1.2.3").check("postgres", check).check("kafka", async || Ok(()));
    let server = Server::start(router(health)).await;
    let get = async |path: &str| {
        let answer = reqwest::get(server.url(path)).await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let down = json!({"status": "unavailable", "dependencies": {
        "kafka": {"status": "up"}, "postgres": {"status": "down", "error": "connection refused"}}});
    for _ in 0..20 {
        assert_eq!(get("/ready").await, (503, down.clone()));
    }
    assert!(looks.load(Ordering::SeqCst) < 20, "asking often does not load the dependency");
    let (status, body) = get("/health").await;
    assert_eq!((status, &body["status"], &body["version"]), (200, &json!("ok"), &json!("1.2.3")));
    assert!(body["uptime_seconds"].is_u64() && body["memory_bytes"].as_u64().is_some_and(|b| b > 1_000_000));
    away.store(false, Ordering::SeqCst);
    eventually(PATIENCE, async || (get("/readyz").await.0 == 200).then_some(())).await;
    assert_eq!(get("/livez").await.0, 200);
    let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("http_request_duration_seconds_bucket"), "{metrics}");
}

#[tokio::test]
async fn a_dependency_that_hangs_is_down() {
    let health = Health::new("orders", "1").check("kafka", std::future::pending);
    let readiness = health.readiness().await;
    assert_eq!((readiness.status, readiness.dependencies["kafka"].status), ("unavailable", "down"));
}
