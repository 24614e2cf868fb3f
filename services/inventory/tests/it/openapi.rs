//! The committed OpenAPI document is the served one.

use waybill_inventory::http;

#[test]
fn the_committed_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let current = http::document().to_pretty_json().unwrap() + "\n";
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == current,
        "services/inventory/openapi.json is not current: \
         cargo run -p waybill-inventory -- --openapi > services/inventory/openapi.json"
    );
    assert!(current.contains("\"openapi\": \"3.1"));
}
