//! Nobody but operators reaches a route, whatever it is.

use reqwest::Method;
use serde_json::json;
use waybill_host::operator;

use crate::desk::{Desk, answer};

#[tokio::test]
async fn every_route_needs_the_role_operator() {
    let desk = Desk::new("host_who").await;
    let document = serde_json::to_value(operator::document()).unwrap();
    let mut routes = vec![("get".to_owned(), "/openapi.json".to_owned())];
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/operator/v1").expect("every path is under it");
        let path = path.replace("{id}", "01980000-0000-7000-8000-000000000001").replace(['{', '}'], "");
        routes.extend(methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    }
    assert!(routes.len() > 24, "{routes:?}");
    for (method, path) in routes {
        let method: Method = method.to_uppercase().parse().unwrap();
        let (status, body) = answer(desk.anonymous(method.clone(), &path)).await;
        assert_eq!((status, &body["error"]["code"]), (401, &json!("token_missing")), "{method} {path}");
        for role in ["customer", "admin"] {
            let token = desk.tokens.token("01980000-0000-7000-8000-000000000002", role);
            let (status, body) = answer(desk.anonymous(method.clone(), &path).bearer_auth(token)).await;
            assert_eq!((status, &body["error"]["code"]), (403, &json!("role_required")), "{method} {path}");
        }
    }
    assert_eq!(desk.get("/nowhere").await.0, 404);
}

#[tokio::test]
async fn a_service_without_sagas_says_so() {
    let desk = Desk::new("host_no_sagas").await;
    let (status, body) = desk.get("/sagas").await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("no_sagas")));
}

#[tokio::test]
async fn what_nobody_asked_for_is_refused() {
    let desk = Desk::new("host_strict").await;
    for (path, field) in [
        ("/dead-letters?gruop=things", "gruop"),
        ("/dead-letters?limit=501", "limit"),
        ("/dead-letters?limit=0", "limit"),
        ("/dead-letters?cursor=mine", "cursor"),
        ("/replays?state=running", "state"),
        ("/parked?state=free", "state"),
        ("/audit?reason=x", "reason"),
        ("/facts/01980000-0000-7000-8000-000000000001?message_ids=x", "message_ids"),
    ] {
        let (status, body) = desk.get(path).await;
        assert_eq!((status, &body["error"]["details"][0]["path"]), (400, &json!(field)), "{path}: {body}");
    }
    for (path, body, field) in [
        ("/replays", json!({"filter": {}, "reason": "r", "speed": 1}), "speed"),
        ("/replays", json!({"filter": {"gruop": "x"}, "reason": "r"}), "filter.gruop"),
        ("/replays", json!({"filter": {}}), "reason"),
        ("/replays", json!({"filter": {}, "reason": " "}), "reason"),
        ("/replays", json!({"filter": {}, "reason": "r", "rate_per_s": 0}), "rate_per_s"),
        ("/dead-letters/discard", json!({"filter": {}, "reason": "r"}), "expect"),
        (
            "/dead-letters/edit",
            json!({"items": [{"id": "01980000-0000-7000-8000-000000000001"}], "reason": "r"}),
            "items[0].payload_base64",
        ),
        ("/dead-letters/dry-run", json!({"limit": 101}), "limit"),
        ("/outbox/republish", json!({"from_id": 1}), ""),
        ("/outbox/republish", json!({"from_id": 1, "to_id": 2, "apply": true}), "reason"),
    ] {
        let (status, answer) = desk.post(path, body.clone()).await;
        assert_eq!(
            (status, &answer["error"]["details"][0]["path"]),
            (400, &json!(field)),
            "{path} {body}: {answer}"
        );
    }
}
