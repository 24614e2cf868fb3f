//! The committed OpenAPI document is the served one, and documents the filter as it is.

use serde_json::Value;
use waybill_host::operator;
use waybill_outbox::operate::Filter;

use crate::desk::Desk;

#[tokio::test]
async fn the_committed_document_is_current_and_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/operator-openapi.json");
    let current = operator::document().to_pretty_json().unwrap() + "\n";
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == current,
        "crates/host/operator-openapi.json is not current: \
         cargo run -p waybill-orders -- --operator-openapi > crates/host/operator-openapi.json"
    );
    let desk = Desk::new("host_openapi").await;
    let (status, served) = desk.get("/openapi.json").await;
    assert_eq!((status, served), (200, serde_json::from_str::<Value>(&current).unwrap()));
}

#[test]
fn the_documented_filter_is_the_one_that_is_read() {
    let document = serde_json::to_value(operator::document()).unwrap();
    let documented = document["components"]["schemas"]["Filter"]["properties"].as_object().unwrap().keys();
    for field in documented {
        let body = format!("{{\"{field}\": null}}");
        let unknown = serde_json::from_str::<Filter>(&body).err().map(|error| error.to_string());
        assert!(!unknown.unwrap_or_default().contains("unknown field"), "{field}");
    }
    let unknown = serde_json::from_str::<Filter>("{\"?\": 1}").unwrap_err().to_string();
    let known = unknown.matches('`').count() / 2 - 1;
    assert_eq!(known, document["components"]["schemas"]["Filter"]["properties"].as_object().unwrap().len());
}
