//! Bodies in and out: the error body's shape, limits, content types, paths of fields, traces.

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use uuid::Uuid;
use waybill_http::ApiError;
use waybill_http::error::FieldError;
use waybill_http::json::Json;
use waybill_http::paging::{Cursor, Page};
use waybill_http::params::{Path, Query};
use waybill_http::request_log::Trace;

use crate::server::Server;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    quantity: u32,
}

#[derive(Deserialize)]
struct Numbered {
    n: u32,
}

fn router() -> Router {
    Router::new()
        .route(
            "/orders",
            post(async |Json(order): Json<Order>| Json(order.lines.iter().map(|l| l.quantity).sum::<u32>())),
        )
        .route("/raw", post(async |body: Bytes| body.len().to_string()))
        .route("/orders/{id}", get(async |Path(id): Path<Uuid>| id.to_string()))
        .route("/pages", get(async |page: Page| format!("{page:?}")))
        .route("/numbers", get(async |Query(number): Query<Numbered>| number.n.to_string()))
        .route("/trace", get(async |Trace(trace): Trace| trace.traceparent()))
        .route(
            "/panic",
            get(async || {
                if true {
                    panic!("as planned")
                }
            }),
        )
        .route(
            "/fields",
            get(async || {
                ApiError::fields(vec![
                    FieldError::new("lines[0].sku", "unknown_sku", "no product has this SKU"),
                    FieldError::new("currency", "unknown_currency", "write an ISO 4217 code"),
                ])
            }),
        )
}

async fn post_json(server: &Server, path: &str, body: impl Into<reqwest::Body>) -> Response {
    let request =
        Client::new().post(server.url(path)).header("content-type", "application/json; charset=utf-8");
    request.body(body).send().await.unwrap()
}

async fn refused(response: Response) -> (u16, String, String) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (status, text(&body["error"]["code"]), text(&body["error"]["details"][0]["path"]))
}

fn refusal(status: u16, code: &str, path: &str) -> (u16, String, String) {
    (status, code.to_owned(), path.to_owned())
}

#[tokio::test]
async fn the_error_body_has_one_shape() {
    let server = Server::start(router()).await;
    let answer =
        Client::new().get(server.url("/fields")).header("traceparent", TRACEPARENT).send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(
        answer.text().await.unwrap(),
        "{\"type\":\"urn:waybill:problem:invalid_field\",\"title\":\"Bad Request\",\"status\":400,\
         \"detail\":\"2 fields are wrong; error.details names each\",\"instance\":\"/fields\",\
         \"error\":{\"code\":\"invalid_field\",\"message\":\"2 fields are wrong; error.details names each\",\
         \"details\":[{\"path\":\"lines[0].sku\",\"code\":\"unknown_sku\",\"message\":\"no product has this SKU\"},\
         {\"path\":\"currency\",\"code\":\"unknown_currency\",\"message\":\"write an ISO 4217 code\"}]},\
         \"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}"
    );
}

#[tokio::test]
async fn each_wrong_body_is_refused_by_what_is_wrong_with_it() {
    let server = Server::start(router()).await;
    let fine = r#"{"lines":[{"quantity":2},{"quantity":3}]}"#;
    assert_eq!(post_json(&server, "/orders", fine).await.text().await.unwrap(), "5");
    for (body, expected) in [
        (
            r#"{"lines":[{"quantity":2},{"quantity":"3"}]}"#,
            refusal(400, "invalid_field", "lines[1].quantity"),
        ),
        (r#"{"lines":[{"quantity":2},{}]}"#, refusal(400, "invalid_field", "lines[1].quantity")),
        (r#"{"lines":[],"total":1}"#, refusal(400, "invalid_field", "total")),
        (r#"{"lines":["#, refusal(400, "malformed_json", "")),
        ("", refusal(400, "malformed_json", "")),
    ] {
        assert_eq!(refused(post_json(&server, "/orders", body).await).await, expected, "{body}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let sent = Client::new().post(server.url("/orders")).header("content-type", content_type).body(fine);
        let answer = sent.send().await.unwrap();
        assert_eq!(refused(answer).await, refusal(415, "unsupported_media_type", ""), "{content_type}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_announced_or_not() {
    let server = Server::start(router()).await;
    let large = vec![b' '; 64 * 1024 + 1];
    assert_eq!(
        refused(post_json(&server, "/orders", large.clone()).await).await,
        refusal(413, "body_too_large", "")
    );
    let chunked = chunked_status(&server, &large).await;
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    let most = post_json(&server, "/raw", vec![b' '; 64 * 1024]).await;
    assert_eq!(most.text().await.unwrap(), "65536");
}

/// The status line for a body sent in one chunk, its length not announced.
async fn chunked_status(server: &Server, body: &[u8]) -> String {
    let mut stream = server.connect().await;
    let head = "POST /orders HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut request = format!("{head}{:x}\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request.extend_from_slice(b"\r\n0\r\n\r\n");
    stream.write_all(&request).await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    line
}

#[tokio::test]
async fn paths_queries_methods_and_panics_answer_in_the_same_shape() {
    let server = Server::start(router()).await;
    let cursor = Cursor { created_at: chrono::Utc::now(), id: Uuid::nil() }.encode();
    assert!(
        reqwest::get(server.url(&format!("/pages?limit=100&cursor={cursor}")))
            .await
            .unwrap()
            .status()
            .is_success()
    );
    for (path, expected) in [
        ("/orders/not-a-uuid", refusal(400, "invalid_field", "id")),
        ("/pages?limit=0", refusal(400, "invalid_field", "limit")),
        ("/pages?limit=101", refusal(400, "invalid_field", "limit")),
        ("/pages?limit=many", refusal(400, "invalid_field", "limit")),
        ("/pages?cursor=forged", refusal(400, "invalid_field", "cursor")),
        ("/numbers?n=x", refusal(400, "invalid_field", "n")),
        ("/nowhere", refusal(404, "route_not_found", "")),
        ("/raw", refusal(405, "method_not_allowed", "")),
        ("/panic", refusal(500, "internal", "")),
    ] {
        assert_eq!(refused(reqwest::get(server.url(path)).await.unwrap()).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_trace_is_continued_and_a_broken_one_begun_anew() {
    let server = Server::start(router()).await;
    let asked = async |traceparent: &str| {
        let request = Client::new().get(server.url("/trace")).header("traceparent", traceparent);
        request.send().await.unwrap().text().await.unwrap()
    };
    let continued = asked(TRACEPARENT).await;
    assert!(continued.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{continued}");
    assert_ne!(continued, TRACEPARENT);
    let begun = asked("00-broken").await;
    assert!(begun.starts_with("00-") && begun.len() == TRACEPARENT.len(), "{begun}");
}

#[tokio::test]
async fn labels_of_the_measurements_are_bounded() {
    let server = Server::start(router()).await;
    for path in ["/nowhere-1", "/nowhere-2"] {
        let _answer = Client::new().request("BREW".parse().unwrap(), server.url(path)).send().await.unwrap();
    }
    let metrics = waybill_telemetry::metrics::render();
    assert!(metrics.contains(r#"method="OTHER",route="unmatched",status="404""#), "{metrics}");
    assert!(!metrics.contains("nowhere-1"));
}

#[test]
fn the_shared_parts_of_a_document_are_open_api_3_1() {
    use utoipa::OpenApi as _;
    use waybill_http::openapi::Common;

    #[utoipa::path(get, path = "/things", responses(waybill_http::openapi::WriteRefusals))]
    #[allow(dead_code)]
    async fn things() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(things), modifiers(&Common))]
    struct Document;

    let document = serde_json::to_value(Document::openapi()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let refusal =
        &document["paths"]["/things"]["get"]["responses"]["422"]["content"]["application/problem+json"];
    assert_eq!(refusal["schema"], json!({"$ref": "#/components/schemas/Problem"}));
    assert_eq!(
        document["components"]["schemas"]["FieldError"]["required"],
        json!(["path", "code", "message"])
    );
    assert_eq!(document["components"]["securitySchemes"]["access_token"]["scheme"], "bearer");
}
