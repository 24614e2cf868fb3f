//! Who may read a payment, and what they see.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::Value;
use uuid::Uuid;
use waybill_events::OrderId;
use waybill_http::auth::Verifier;
use waybill_http::serve::{self, Limits};
use waybill_payments::http::{self, AppState};
use waybill_runtime::pool::Statements;
use waybill_testkit::Tokens;

use crate::world::{AMOUNT, World, authorize, void};

struct Api {
    router: axum::Router,
    tokens: Tokens,
}

impl Api {
    async fn new(world: &World) -> Self {
        let tokens = Tokens::new();
        let jwks = tokens.jwks_path().to_str().unwrap().to_owned();
        let verifier = Verifier::load(&jwks, Tokens::ISSUER, Tokens::AUDIENCE).await.unwrap();
        let reads = Statements::connect(&world.database.url, 2, "payments-test").unwrap();
        let state = AppState { reads, verifier: Arc::new(verifier) };
        Self { router: serve::harden(http::router(state), &Limits::default()), tokens }
    }

    async fn get(&self, path: &str, token: Option<&str>) -> (StatusCode, Value) {
        use tower::ServiceExt as _;
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1024 * 1024).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

#[tokio::test]
async fn a_customer_reads_their_own_and_staff_reads_all() {
    let world = World::new("pay_http").await;
    world.start_worker();
    let api = Api::new(&world).await;
    let order = OrderId::generate();
    world.deliver(order, &authorize(order, "tok_decline")).await;
    world.told(order, 1).await;
    let path = format!("/api/v1/payments/{order}");
    let owner = api.tokens.token(&Uuid::from_u128(1).to_string(), "customer");
    let other = api.tokens.token(&Uuid::from_u128(2).to_string(), "customer");
    let operator = api.tokens.token("watch", "operator");
    for token in [&owner, &operator] {
        let (status, body) = api.get(&path, Some(token)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["status"], "declined");
        assert_eq!(body["reason"], "card_declined");
        assert_eq!(body["amount_minor"], AMOUNT);
        assert_eq!(body["captured_minor"], 0);
        assert!(body.get("payment_token").is_none(), "{body}");
    }
    let (status, body) = api.get(&path, Some(&other)).await;
    assert_eq!((status, body["error"]["code"].as_str()), (StatusCode::NOT_FOUND, Some("payment_not_found")));
    assert_eq!(api.get(&path, None).await.0, StatusCode::UNAUTHORIZED);
    let (status, body) = api.get("/api/v1/payments/nonsense", Some(&owner)).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (StatusCode::BAD_REQUEST, &"invalid_field".into()),
        "{body}"
    );
    assert_eq!(body["error"]["details"][0]["path"], "order_id", "{body}");
    // A tombstone belongs to nobody yet.
    let early = OrderId::generate();
    world.deliver(early, &void(early)).await;
    let path = format!("/api/v1/payments/{early}");
    assert_eq!(api.get(&path, Some(&owner)).await.0, StatusCode::NOT_FOUND);
    let (status, body) = api.get(&path, Some(&operator)).await;
    assert_eq!((status, body["status"].as_str()), (StatusCode::OK, Some("voided")));
}

#[tokio::test]
async fn who_reads_must_be_known() {
    let world = World::new("pay_tokens_bad").await;
    let api = Api::new(&world).await;
    let path = format!("/api/v1/payments/{}", OrderId::generate());
    let (me, tokens) = (Uuid::from_u128(1).to_string(), &api.tokens);
    for (token, status, code) in [
        (None, 401, "token_missing"),
        (Some("x".to_owned()), 401, "token_malformed"),
        (Some(tokens.expired(&me, "customer")), 401, "token_expired"),
        (Some(tokens.forged_key(&me, "customer")), 401, "token_invalid"),
        (Some(tokens.forged_none(&me, "customer")), 401, "token_malformed"),
        (Some(tokens.token("not-a-uuid", "customer")), 403, "customer_required"),
    ] {
        let (said, body) = api.get(&path, token.as_deref()).await;
        assert_eq!((said.as_u16(), &body["error"]["code"]), (status, &code.into()), "{body}");
    }
}

#[tokio::test]
async fn the_committed_openapi_document_is_current_and_served() {
    let committed = include_str!("../../openapi.json");
    let current = http::document().to_pretty_json().unwrap();
    assert_eq!(
        committed.trim_end(),
        current.trim_end(),
        "write it again: cargo run -p waybill-payments -- --openapi > services/payments/openapi.json"
    );
    let api = Api::new(&World::new("pay_openapi").await).await;
    let (status, served) = api.get("/api/v1/openapi.json", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(served, serde_json::from_str::<Value>(committed).unwrap());
}
