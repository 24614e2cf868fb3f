//! `/explain/{correlation_id}`: own facts, a peer's, and a peer that is away or refuses the operator's token.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::response::IntoResponse as _;
use axum::routing::get;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Mutex;
use waybill_host::Peers;
use waybill_testkit::ports::free_port;

use crate::desk::{Desk, answer};

/// The tokens a peer was shown.
type Shown = Arc<Mutex<Vec<String>>>;

/// A peer that knows nothing; returns its URL.
async fn peer(shown: Shown) -> String {
    async fn facts(State(shown): State<Shown>, headers: HeaderMap) -> axum::response::Response {
        shown.lock().unwrap().push(headers[AUTHORIZATION].to_str().unwrap().to_owned());
        axum::Json(
            json!({"outbox_since": "2020-01-01T00:00:00Z", "outbox": [], "inbox": [], "idempotency": [], "sagas": [],
            "saga_log": [], "parked": [], "dead_letters": [], "news": "a field nobody knows"}),
        )
        .into_response()
    }
    let routes = Router::new().route("/operator/v1/facts/{id}", get(facts)).with_state(shown);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_facts_and_a_peer_s_are_joined_and_one_that_is_away_is_named() {
    let shown = Shown::default();
    let away = format!("http://127.0.0.1:{}", free_port());
    let peers = format!("things=http://127.0.0.1:1,near={},far={away}", peer(Arc::clone(&shown)).await);
    let desk = Desk::with_peers("host_explain", Peers::parse(&peers).unwrap()).await;
    let story = desk.hear(&[("k", "reject this")]).await[0];
    let path = format!("/explain/{story}");
    let (status, told) = desk.get(&path).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!((&told["asked"], &told["complete"]), (&json!(["things", "near"]), &json!(false)), "{told}");
    assert_eq!(told["not_asked"][0]["service"], "far");
    let why = told["not_asked"][0]["why"].as_str().unwrap();
    assert!(why.contains("far can not be asked at") && why.contains("refused"), "{why}");
    let whats: Vec<&Value> =
        told["timeline"].as_array().unwrap().iter().map(|entry| &entry["what"]).collect();
    assert!(whats.contains(&&json!("dead_letter")), "{told}");
    assert_eq!(told["services"][1]["news"], "a field nobody knows", "a newer peer's answer is handed on");
    let token = shown.lock().unwrap()[0].clone();
    assert!(token.starts_with("Bearer ey"), "the operator's own token: the peer verifies it");

    let text = desk.request(Method::GET, &path).header("accept", "text/plain").send().await.unwrap();
    assert_eq!(text.headers()["content-type"], "text/plain; charset=utf-8");
    let text = text.text().await.unwrap();
    assert!(text.contains("group things could not handle ThingSaid (open)"), "{text}");
    assert!(text.contains("\nNOT ASKED: far: "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_knows_is_said_only_when_everybody_was_asked() {
    let unknown = "01980000-0000-7000-8000-0000000000aa";
    let desk = Desk::with_peers("host_unknown", Peers::parse("far=http://127.0.0.1:1").unwrap()).await;
    let (status, told) = desk.get(&format!("/explain/{unknown}")).await;
    assert_eq!((status, &told["not_asked"][0]["service"]), (200, &json!("far")), "{told}");

    let desk = Desk::new("host_alone").await;
    let (status, body) = desk.get(&format!("/explain/{unknown}")).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not_found")));
    let why = body["error"]["message"].as_str().unwrap();
    assert!(
        why.contains("\nNOT TOLD by things: what was said before "),
        "it may be older than the outbox: {why}"
    );
    let story = desk.hear(&[("k", "reject this")]).await[0];
    let (_, told) = answer(desk.request(Method::GET, &format!("/explain/{story}"))).await;
    assert_eq!(told["not_asked"][0]["why"], "WAYBILL_OPERATOR_PEERS names none", "{told}");
}
