//! Every bad input: the right status, code and path, and no row written.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, new_key, send};

/// A product that would be taken.
const PRODUCT: &str = r#"{"sku": "TEA-2", "name": "Tea", "unit_price_minor": 5, "currency": "EUR"}"#;

fn with(body: &str, field: &str, value: Option<Value>) -> Value {
    let mut body: Value = serde_json::from_str(body).unwrap();
    let object = body.as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(field.to_owned(), value),
        None => object.remove(field),
    };
    body
}

#[tokio::test]
async fn each_field_is_judged_by_its_path() {
    let world = World::new("bad_fields").await;
    world.stocked("TEA-1", 5).await;
    let before = world.rows().await;
    let product =
        |field: &str, value| (Method::POST, "/products", field.to_owned(), with(PRODUCT, field, value));
    let price_body = r#"{"unit_price_minor": 5, "currency": "EUR"}"#;
    let price = |field: &str, value| {
        (Method::PUT, "/products/TEA-1/price", field.to_owned(), with(price_body, field, value))
    };
    let receipt = |field: &str, value| {
        (Method::POST, "/stock/TEA-1/receipts", field.to_owned(), with(r#"{"quantity": 5}"#, field, value))
    };
    let mut cases = Vec::new();
    for (field, wrong) in [
        ("sku", vec![json!(1), json!(""), json!("a b"), json!("a/b"), json!("x".repeat(65)), json!(null)]),
        ("name", vec![json!(1), json!(""), json!("  "), json!("x".repeat(201)), json!("a\u{0}b")]),
        (
            "unit_price_minor",
            vec![json!("5"), json!(0), json!(-1), json!(1.5), json!(9_007_199_254_740_992_i64)],
        ),
        ("unit_price_minor", vec![json!(1e300), json!(u64::MAX)]),
        ("currency", vec![json!(1), json!(""), json!("eur"), json!("XXX"), json!("EURO")]),
    ] {
        cases.push(product(field, None));
        cases.extend(wrong.iter().map(|value| product(field, Some(value.clone()))));
        if matches!(field, "unit_price_minor" | "currency") {
            cases.push(price(field, None));
            cases.extend(wrong.iter().map(|value| price(field, Some(value.clone()))));
        }
    }
    for value in [json!("5"), json!(0), json!(-1), json!(2.5), json!(1_000_000_001), json!(null)] {
        cases.push(receipt("quantity", Some(value)));
    }
    cases.push(receipt("quantity", None));
    for case in
        [product("colour", Some(json!("red"))), price("sku", Some(json!("x"))), receipt("x", Some(json!(1)))]
    {
        cases.push(case);
    }
    for (method, path, field, body) in cases {
        let refusal = world.write(method, path, &new_key(), &body).await.refusal();
        assert_eq!(refusal, (400, "invalid_field".to_owned(), vec![field]), "{path} {body}");
    }
    let all = json!({"sku": "", "name": "", "unit_price_minor": 0, "currency": ""});
    let refusal = world.post("/products", &new_key(), &all).await.refusal();
    assert_eq!(refusal.2, ["sku", "name", "currency", "unit_price_minor"], "all at once");
    assert_eq!(world.rows().await, before, "nothing was written");
}

#[tokio::test]
async fn transport_keys_and_paths_are_judged() {
    let world = World::new("bad_transport").await;
    world.stocked("TEA-1", 5).await;
    let before = world.rows().await;
    let post = || world.request("admin", Method::POST, "/products");
    let keyed = || post().header("Idempotency-Key", new_key());
    let json_type = ("content-type", "application/json");
    let body: Value = serde_json::from_str(PRODUCT).unwrap();
    let too_long = "k".repeat(129);
    let large = with(PRODUCT, "name", Some(json!("x".repeat(70_000))));
    let twice = keyed().header("Idempotency-Key", "second").json(&body);
    for (request, status, code) in [
        (post().json(&body), 400, "idempotency_key_missing"),
        (post().header("Idempotency-Key", "").json(&body), 400, "idempotency_key_malformed"),
        (post().header("Idempotency-Key", too_long).json(&body), 400, "idempotency_key_malformed"),
        (twice, 400, "idempotency_key_malformed"),
        (keyed().header(json_type.0, json_type.1).body("{"), 400, "malformed_json"),
        (keyed().header(json_type.0, json_type.1).body(""), 400, "malformed_json"),
        (keyed().header(json_type.0, json_type.1).body("[]"), 400, "invalid_field"),
        (keyed().json(&json!(["TEA-2", "Tea", 5, "EUR"])), 400, "invalid_field"),
        (keyed().header(json_type.0, "text/plain").body(PRODUCT), 415, "unsupported_media_type"),
        (keyed().body(PRODUCT), 415, "unsupported_media_type"),
        (keyed().json(&large), 413, "body_too_large"),
    ] {
        let refusal = send(request).await.refusal();
        assert_eq!((refusal.0, refusal.1.as_str()), (status, code));
    }
    let receipt = json!({"quantity": 1});
    let unknown = world.post("/stock/NONE/receipts", &new_key(), &receipt).await.refusal();
    assert_eq!(unknown, (404, "unknown_sku".to_owned(), vec![]));
    let long = format!("/stock/{}/receipts", "x".repeat(65));
    assert_eq!(world.post(&long, &new_key(), &receipt).await.refusal().2, ["sku"]);
    assert_eq!(
        world.get("/stock/a%20b").await.refusal(),
        (400, "invalid_field".to_owned(), vec!["sku".to_owned()])
    );
    assert_eq!(world.get("/stock/%ff").await.refusal().2, ["sku"]);
    assert_eq!(world.get("/stock/NONE").await.refusal().1, "unknown_sku");
    assert_eq!(world.get("/nothing").await.refusal().1, "route_not_found");
    assert_eq!(send(world.request("admin", Method::DELETE, "/products")).await.status, 405);
    assert_eq!(world.rows().await, before, "nothing was written");
}

#[tokio::test]
async fn callers_are_known_and_writers_are_admins() {
    let world = World::new("bad_callers").await;
    world.stocked("TEA-1", 5).await;
    let before = world.rows().await;
    let routes = [
        (Method::GET, "/products"),
        (Method::GET, "/products/TEA-1"),
        (Method::GET, "/stock/TEA-1"),
        (Method::POST, "/products"),
        (Method::PUT, "/products/TEA-1/price"),
        (Method::POST, "/stock/TEA-1/receipts"),
    ];
    for (method, path) in routes {
        let code = |request: reqwest::RequestBuilder| async move {
            let refusal = send(request).await.refusal();
            (refusal.0, refusal.1)
        };
        let anonymous = || world.anonymous(method.clone(), path);
        let expired = world.tokens.expired("keeper", "admin");
        let forged = world.tokens.forged_key("keeper", "admin");
        assert_eq!(code(anonymous()).await, (401, "token_missing".to_owned()), "{path}");
        assert_eq!(code(anonymous().bearer_auth(expired)).await, (401, "token_expired".to_owned()), "{path}");
        assert_eq!(code(anonymous().bearer_auth(forged)).await, (401, "token_invalid".to_owned()), "{path}");
        assert_eq!(code(anonymous().bearer_auth("x")).await, (401, "token_malformed".to_owned()), "{path}");
        for role in ["customer", "operator"] {
            let request = world.request(role, method.clone(), path);
            if method == Method::GET {
                assert_eq!(send(request).await.status, 200, "{path}: any valid token reads");
            } else {
                // The role is looked at before the key and the body.
                assert_eq!(code(request).await, (403, "role_required".to_owned()), "{path}");
            }
        }
    }
    assert_eq!(world.rows().await, before, "nothing was written");
}
