//! Bad input: each fault gets its status, code and path, and leaves no row behind.

use reqwest::Method;
use serde_json::{Value, json};
use waybill_orders::domain::limits::TOTAL_MINOR_MAX;

use crate::world::{Answer, World, new_key, send, usual_order};

/// Everything that a refused request must leave empty.
async fn assert_no_row(world: &World) {
    let rows = "select (select count(*) from orders) + (select count(*) from order_lines)
              + (select count(*) from idempotency_keys) + (select count(*) from saga_instances)
              + (select count(*) from saga_log) + (select count(*) from outbox)";
    assert_eq!(world.count(rows).await, 0);
}

/// The usual order with one place of it changed.
fn changed(pointer: &str, value: Value) -> Value {
    let mut body = usual_order();
    *body.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    body
}

fn without(object: &str, field: &str) -> Value {
    let mut body = usual_order();
    body.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(field).unwrap();
    body
}

fn with(object: &str, field: &str) -> Value {
    let mut body = usual_order();
    body.pointer_mut(object).unwrap().as_object_mut().unwrap().insert(field.to_owned(), json!(1));
    body
}

fn lines(count: usize) -> Value {
    (0..count).map(|n| json!({"sku": format!("S{n}"), "quantity": 1})).collect()
}

#[tokio::test]
async fn every_field_is_checked_and_named() {
    let world = World::new("bad_fields").await;
    let long = "x".repeat(65);
    let cases = [
        (json!({}), "lines"),
        (without("", "lines"), "lines"),
        (without("", "currency"), "currency"),
        (without("", "payment_token"), "payment_token"),
        (without("/lines/1", "sku"), "lines[1].sku"),
        (without("/lines/1", "quantity"), "lines[1].quantity"),
        (with("", "total_minor"), "total_minor"),
        (with("", "customer_id"), "customer_id"),
        (with("/lines/0", "unit_price_minor"), "lines[0].unit_price_minor"),
        (changed("/lines", json!("TEA")), "lines"),
        (changed("/lines", json!(null)), "lines"),
        (changed("/lines/1", json!(7)), "lines[1]"),
        (changed("/lines/1/sku", json!(7)), "lines[1].sku"),
        (changed("/lines/1/quantity", json!("2")), "lines[1].quantity"),
        (changed("/lines/1/quantity", json!(1.5)), "lines[1].quantity"),
        (changed("/lines/1/quantity", json!(1e300)), "lines[1].quantity"),
        (changed("/currency", json!(978)), "currency"),
        (changed("/payment_token", json!(["tok"])), "payment_token"),
        (changed("/lines", json!([])), "lines"),
        (changed("/lines", lines(101)), "lines"),
        (changed("/lines/1/quantity", json!(0)), "lines[1].quantity"),
        (changed("/lines/1/quantity", json!(-1)), "lines[1].quantity"),
        (changed("/lines/1/quantity", json!(10_001)), "lines[1].quantity"),
        (changed("/lines/1/quantity", json!(i64::MAX)), "lines[1].quantity"),
        (changed("/lines/1/sku", json!("")), "lines[1].sku"),
        (changed("/lines/1/sku", json!("A B")), "lines[1].sku"),
        (changed("/lines/1/sku", json!(long)), "lines[1].sku"),
        (changed("/lines/1/sku", json!("TEA")), "lines[1].sku"),
        (changed("/currency", json!("eur")), "currency"),
        (changed("/currency", json!("XXX")), "currency"),
        (changed("/currency", json!("")), "currency"),
        (changed("/payment_token", json!("")), "payment_token"),
        (changed("/payment_token", json!("tok-approve")), "payment_token"),
        (changed("/payment_token", json!(long)), "payment_token"),
    ];
    for (body, path) in cases {
        let answer = world.post(&new_key(), &body).await;
        assert_eq!(answer.refusal(), (400, "invalid_field".to_owned(), vec![path.to_owned()]), "{body}");
    }
    assert_no_row(&world).await;
}

#[tokio::test]
async fn faults_are_told_all_at_once_with_a_code_each() {
    let world = World::new("bad_many").await;
    let body = json!({
        "lines": [{"sku": "TEA", "quantity": 0}, {"sku": "TEA", "quantity": 1}, {"sku": "?", "quantity": 10_001}],
        "currency": "XYZ", "payment_token": "",
    });
    let answer = world.post(&new_key(), &body).await;
    let details = answer.json()["error"]["details"].clone();
    let told: Vec<_> =
        details.as_array().unwrap().iter().map(|d| (d["path"].clone(), d["code"].clone())).collect();
    let expected = [
        ("lines[0].quantity", "out_of_range"),
        ("lines[1].sku", "duplicate_sku"),
        ("lines[2].sku", "malformed"),
        ("lines[2].quantity", "out_of_range"),
        ("currency", "unknown_currency"),
        ("payment_token", "malformed"),
    ];
    assert_eq!(told, expected.map(|(path, code)| (json!(path), json!(code))));
    assert_no_row(&world).await;
}

#[tokio::test]
async fn what_the_catalogue_does_not_sell_so_can_not_be_ordered() {
    let world = World::new("bad_catalogue").await;
    // The dearest price that inventory knows.
    world.priced(&[("GOLD", TOTAL_MINOR_MAX, "EUR"), ("YEN", 100, "JPY"), ("FREE", 0, "EUR")]).await;
    let order = |skus: &[(&str, i64)]| {
        let lines: Vec<_> = skus.iter().map(|(sku, n)| json!({"sku": sku, "quantity": n})).collect();
        json!({"lines": lines, "currency": "EUR", "payment_token": "tok_approve"})
    };
    for (body, code, paths) in [
        (order(&[("TEA", 1), ("NONE", 1)]), "unknown_sku", vec!["lines[1].sku"]),
        (order(&[("tea", 1)]), "unknown_sku", vec!["lines[0].sku"]),
        (order(&[("TEA", 1), ("YEN", 1)]), "currency_mismatch", vec!["lines[1].sku"]),
        (order(&[("YEN", 1), ("NONE", 1)]), "currency_mismatch", vec!["lines[0].sku", "lines[1].sku"]),
        (order(&[("GOLD", 2)]), "total_overflow", vec!["lines"]),
        (order(&[("GOLD", 1), ("TEA", 1)]), "total_overflow", vec!["lines"]),
        (order(&[("FREE", 5)]), "total_zero", vec!["lines"]),
    ] {
        let refusal = world.post(&new_key(), &body).await.refusal();
        let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
        assert_eq!(refusal, (422, code.to_owned(), paths), "{body}");
    }
    assert_no_row(&world).await;
    // A refusal does not use the key up: the same request may succeed once the product is there.
    let (key, body) = (new_key(), order(&[("LATE", 1)]));
    assert_eq!(world.post(&key, &body).await.status, 422);
    world.priced(&[("LATE", 5, "EUR")]).await;
    assert_eq!(world.post(&key, &body).await.status, 202);
}

#[tokio::test]
async fn the_limits_themselves_are_allowed() {
    let world = World::new("bad_limits").await;
    world.priced(&[("GOLD", TOTAL_MINOR_MAX, "EUR")]).await;
    let body = json!({"lines": [{"sku": "GOLD", "quantity": 1}], "currency": "EUR", "payment_token": "t"});
    assert_eq!(world.post(&new_key(), &body).await.json()["total_minor"], TOTAL_MINOR_MAX);
    let sku = "S".repeat(64);
    world.priced(&[(&sku, 1, "EUR")]).await;
    let body = json!({"lines": [{"sku": sku, "quantity": 10_000}], "currency": "EUR", "payment_token": "t".repeat(64)});
    assert_eq!(world.post(&"k".repeat(128), &body).await.json()["total_minor"], 10_000);
    let names: Vec<String> = (0..100).map(|n| format!("S{n}")).collect();
    for name in &names {
        world.priced(&[(name, 1, "EUR")]).await;
    }
    let body = json!({"lines": lines(100), "currency": "EUR", "payment_token": "t"});
    let answer = world.post(&new_key(), &body).await;
    let read = world.get(&format!("/orders/{}", answer.order())).await;
    assert_eq!(read.json()["lines"][99], json!({"sku": "S99", "quantity": 1, "unit_price_minor": 1}));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_large_is_refused() {
    let world = World::new("bad_bodies").await;
    let send_raw = async |kind: &str, body: String| -> Answer {
        let request = world.customers(Method::POST, "/orders").header("Idempotency-Key", new_key());
        let kind = Some(kind).filter(|kind| !kind.is_empty());
        send(kind.into_iter().fold(request, |request, kind| request.header("Content-Type", kind)).body(body))
            .await
    };
    let usual = usual_order().to_string();
    for (kind, body, status, code) in [
        ("application/json", "{\"lines\": [".to_owned(), 400, "malformed_json"),
        ("application/json", String::new(), 400, "malformed_json"),
        ("application/json", format!("{usual} x"), 400, "malformed_json"),
        ("application/json", format!("[{usual}]"), 400, "invalid_field"),
        ("text/plain", usual.clone(), 415, "unsupported_media_type"),
        ("", usual.clone(), 415, "unsupported_media_type"),
        ("application/json", format!("{usual}{}", " ".repeat(64 * 1024)), 413, "body_too_large"),
    ] {
        let (said, what, _) = send_raw(kind, body).await.refusal();
        assert_eq!((said, what.as_str()), (status, code), "{kind}");
    }
    assert_no_row(&world).await;
}

#[tokio::test]
async fn the_idempotency_key_is_required_and_has_a_form() {
    let world = World::new("bad_keys").await;
    let post = || world.customers(Method::POST, "/orders").json(&usual_order());
    let code = |answer: Answer| (answer.status.as_u16(), answer.refusal().1);
    assert_eq!(code(send(post()).await), (400, "idempotency_key_missing".to_owned()));
    for bad in ["", "a b", &"k".repeat(129), "\"open"] {
        let answer = send(post().header("Idempotency-Key", bad)).await;
        assert_eq!(code(answer), (400, "idempotency_key_malformed".to_owned()), "{bad:?}");
    }
    assert_no_row(&world).await;
}

#[tokio::test]
async fn who_calls_must_be_known_and_a_customer() {
    let world = World::new("bad_tokens").await;
    let me = world.customer.to_string();
    let post = |token: Option<String>| {
        let request = world.anonymous(Method::POST, "/orders").header("Idempotency-Key", new_key());
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        send(request.json(&usual_order()))
    };
    for (token, status, code) in [
        (None, 401, "token_missing"),
        (Some("x".to_owned()), 401, "token_malformed"),
        (Some(world.tokens.expired(&me, "customer")), 401, "token_expired"),
        (Some(world.tokens.forged_key(&me, "customer")), 401, "token_invalid"),
        (Some(world.tokens.forged_none(&me, "customer")), 401, "token_malformed"),
        (Some(world.tokens.token(&me, "admin")), 403, "customer_required"),
        (Some(world.tokens.token("not-a-uuid", "customer")), 403, "customer_required"),
    ] {
        let (said, what, _) = post(token).await.refusal();
        assert_eq!((said, what.as_str()), (status, code));
    }
    assert_no_row(&world).await;
}

#[tokio::test]
async fn paths_and_queries_are_checked() {
    let world = World::new("bad_paths").await;
    for (path, at) in [
        ("/orders/7", "id"),
        ("/orders/018f4e5c7d1a7c3b9e2d5a6b7c8d9e0f", "id"),
        ("/orders?limit=0", "limit"),
        ("/orders?limit=101", "limit"),
        ("/orders?limit=ten", "limit"),
        ("/orders?cursor=AAAA", "cursor"),
    ] {
        let refusal = world.get(path).await.refusal();
        assert_eq!(refusal, (400, "invalid_field".to_owned(), vec![at.to_owned()]), "{path}");
    }
    let cancel = send(world.customers(Method::POST, "/orders/7/cancel")).await;
    assert_eq!(cancel.refusal().0, 400);
    assert_eq!(send(world.customers(Method::DELETE, "/orders")).await.status, 405);
    assert_eq!(world.get("/nothing").await.status, 404);
}

#[tokio::test]
async fn a_key_used_again_and_anothers_order_are_refused_and_change_no_row() {
    let world = World::new("bad_reuse").await;
    let key = new_key();
    let order = world.post(&key, &usual_order()).await.order();
    let rows = "select (select count(*) from orders) + (select count(*) from order_lines)
              + (select count(*) from idempotency_keys) + (select count(*) from saga_instances)
              + (select count(*) from saga_log) + (select count(*) from outbox)
              + (select sum(version)::bigint from orders)";
    let before = world.count(rows).await;
    let reused = world.post(&key, &changed("/lines/0/quantity", json!(3))).await.refusal();
    assert_eq!((reused.0, reused.1.as_str()), (422, "idempotency_key_reused"));
    let stranger = new_key();
    let path = format!("/orders/{order}/cancel");
    let cancel = send(world.request(&stranger, "customer", Method::POST, &path)).await.refusal();
    assert_eq!((cancel.0, cancel.1.as_str()), (404, "order_not_found"));
    let nobody = send(world.anonymous(Method::POST, &path)).await.refusal();
    assert_eq!((nobody.0, nobody.1.as_str()), (401, "token_missing"));
    assert_eq!(world.count(rows).await, before);
}
