//! The committed OpenAPI document is the served one.

use waybill_inventory::http;

use crate::world::World;

#[tokio::test]
async fn the_committed_document_is_current_and_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let current = http::document().to_pretty_json().unwrap() + "\n";
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == current,
        "services/inventory/openapi.json is not current: \
         cargo run -p waybill-inventory -- --openapi > services/inventory/openapi.json"
    );
    assert!(current.contains("\"openapi\": \"3.1"));
    let world = World::new("openapi").await;
    let served = world.get("/openapi.json").await;
    assert_eq!(served.json(), serde_json::from_str::<serde_json::Value>(&current).unwrap());
}
