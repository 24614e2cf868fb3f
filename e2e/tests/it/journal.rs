//! What a client wrote down: the orders it was told are accepted. The invariants start from here, not from the database.

use reqwest::{Client, StatusCode};
use serde_json::Value;

/// One accepted order.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    /// Access token of the customer who placed it.
    pub(crate) customer: String,
    /// Its idempotency key.
    pub(crate) key: String,
    /// What was sent.
    pub(crate) request: Value,
    /// What was answered, byte for byte.
    pub(crate) answer: Vec<u8>,
    /// A cancel's answer: accepted, or refused because the order had been rejected. `None`: not asked.
    pub(crate) cancelled: Option<bool>,
}

impl Accepted {
    /// From a 202.
    pub(crate) fn new(customer: &str, key: &str, request: Value, answer: Vec<u8>) -> Self {
        let order: Value = serde_json::from_slice(&answer).unwrap();
        let id = order["id"].as_str().unwrap_or_else(|| panic!("an id in {order}")).to_owned();
        Self { id, customer: customer.to_owned(), key: key.to_owned(), request, answer, cancelled: None }
    }

    /// Asks again under the same key: the same bytes.
    pub(crate) async fn answered_the_same(&self, client: &Client, orders_url: &str) {
        let request = client.post(format!("{orders_url}/api/v1/orders")).bearer_auth(&self.customer);
        let again = request.header("Idempotency-Key", &self.key).json(&self.request).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::ACCEPTED, "key {} again", self.key);
        assert_eq!(again.headers().get("Idempotency-Replayed").map(|v| v.as_bytes()), Some(&b"true"[..]));
        assert_eq!(again.bytes().await.unwrap(), self.answer, "key {} is answered as it was first", self.key);
    }
}
