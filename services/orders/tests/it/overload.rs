//! The program with a relay that is away: commands are turned away at the bound, reads and the consumer go on.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;
use waybill_events::{CustomerId, topics};
use waybill_messaging::config as kafka;
use waybill_messaging::topics::TopicAdmin;
use waybill_testkit::{TestTopics, Tokens, eventually, kafka_bootstrap};

use crate::process::orders;
use crate::world::database;

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_full_outbox_turns_commands_away_until_it_has_room() {
    let database = database("overload").await;
    let (topics, tokens) = (TestTopics::new(), Tokens::new());
    let admin = TopicAdmin::new(&kafka::admin(&kafka_bootstrap(), "test"), &topics.prefix).unwrap();
    let manifest = topics::manifest_parsed().unwrap();
    admin.apply(&manifest, Some(1)).await.unwrap();
    topics.adopt(manifest.topics().iter().map(|topic| topic.name.as_str()));
    let price =
        "insert into catalogue (sku, unit_price_minor, currency, version) values ('TEA', 5, 'EUR', 1)";
    sqlx::query(price).execute(&database.pool).await.unwrap();
    let mut process =
        orders(&database, &tokens, &topics.prefix).env("WAYBILL_OUTBOX_UNPUBLISHED_MAX", "20").spawn();
    process.wait_ready(PATIENCE).await;

    let (client, token) = (Client::new(), tokens.token(&CustomerId::generate().to_string(), "customer"));
    let url = format!("{}/api/v1/orders", process.url);
    let body =
        json!({"lines": [{"sku": "TEA", "quantity": 1}], "currency": "EUR", "payment_token": "tok_approve"});
    let place = async |key: String| {
        let post = client.post(&url).bearer_auth(&token).header("Idempotency-Key", key).json(&body);
        post.send().await.unwrap()
    };
    // Two rows an order: eleven are over the bound, which the watch sees within a second or so.
    let refused = eventually(PATIENCE, async || {
        let answer = place(Uuid::now_v7().to_string()).await;
        (answer.status() != StatusCode::ACCEPTED).then_some(answer)
    })
    .await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "outbox_full");

    let question = "select (select count(*) from orders), (select count(*) from idempotency_keys), (select count(*) from outbox)";
    let rows =
        async || -> (i64, i64, i64) { sqlx::query_as(question).fetch_one(&database.pool).await.unwrap() };
    let before = rows().await;
    assert!(before.2 > 20, "{before:?}");
    let key = Uuid::now_v7().to_string();
    assert_eq!(place(key.clone()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rows().await, before, "who is turned away leaves no row");
    let first = "select key from idempotency_keys order by created_at limit 1";
    let first: String = sqlx::query_scalar(first).fetch_one(&database.pool).await.unwrap();
    let again = place(first.clone()).await;
    assert_eq!(again.status(), StatusCode::ACCEPTED, "who was accepted before hears so again");
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    let other =
        json!({"lines": [{"sku": "TEA", "quantity": 2}], "currency": "EUR", "payment_token": "tok_approve"});
    let other = client.post(&url).bearer_auth(&token).header("Idempotency-Key", &first).json(&other);
    assert_eq!(other.send().await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    let stranger = tokens.token(&CustomerId::generate().to_string(), "customer");
    let stranger = client.post(&url).bearer_auth(stranger).header("Idempotency-Key", &first).json(&body);
    assert_eq!(stranger.send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE, "another's key");
    assert_eq!(rows().await, before);
    let cancel = "select id from orders limit 1";
    let order: Uuid = sqlx::query_scalar(cancel).fetch_one(&database.pool).await.unwrap();
    let cancelled = client.post(format!("{url}/{order}/cancel")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(cancelled.status(), StatusCode::SERVICE_UNAVAILABLE);
    let read = client.get(format!("{url}/{order}")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK, "reads stay up");
    let metrics = client.get(format!("{}/metrics", process.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("outbox_full 1"), "{metrics}");

    // The relay has caught up.
    let caught_up = "update outbox_relay set position_from = pg_current_snapshot()";
    sqlx::query(caught_up).execute(&database.pool).await.unwrap();
    let accepted = eventually(PATIENCE, async || {
        let answer = place(key.clone()).await;
        (answer.status() == StatusCode::ACCEPTED).then_some(answer)
    })
    .await;
    assert!(!accepted.headers().contains_key("idempotency-replayed"), "the key was free");
    let told = process.output().matches("commands are turned away").count();
    assert_eq!(told, 1, "it is said once:\n{}", process.output());
    assert_eq!(process.terminate().await, Some(0), "{}", process.output());
}

#[tokio::test]
async fn the_operators_api_is_on_its_own_address() {
    let database = database("operator_address").await;
    let (topics, tokens) = (TestTopics::new(), Tokens::new());
    let admin = TopicAdmin::new(&kafka::admin(&kafka_bootstrap(), "test"), &topics.prefix).unwrap();
    let manifest = topics::manifest_parsed().unwrap();
    admin.apply(&manifest, Some(1)).await.unwrap();
    topics.adopt(manifest.topics().iter().map(|topic| topic.name.as_str()));
    let mut process = orders(&database, &tokens, &topics.prefix).spawn();
    process.wait_ready(PATIENCE).await;
    let (client, operator) = (Client::new(), tokens.token("olga", "operator"));
    let get = async |url: String| client.get(url).bearer_auth(&operator).send().await.unwrap();
    let sagas = get(format!("{}/operator/v1/sagas", process.operator_url)).await;
    assert_eq!(sagas.json::<Value>().await.unwrap(), json!({"items": [], "next_cursor": null}));
    assert_eq!(get(format!("{}/operator/v1/sagas", process.url)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(format!("{}/api/v1/orders", process.operator_url)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(process.terminate().await, Some(0), "{}", process.output());
}
