//! What customers and staff do over HTTP.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;
use waybill_testkit::polling::eventually_named;

use crate::journal::Accepted;
use crate::load::RETRY_PAUSE;
use crate::system::System;

/// Longest wait for an order to end: a killed relay's lease has to run out first.
const END_TIMEOUT: Duration = Duration::from_secs(180);

/// A customer of a system, with staff at hand.
pub(crate) struct Shop<'a> {
    pub(crate) system: &'a System,
    pub(crate) client: Client,
    pub(crate) customer: String,
    admin: String,
    journal: Mutex<Vec<Accepted>>,
}

impl<'a> Shop<'a> {
    pub(crate) fn new(system: &'a System) -> Self {
        let customer = system.tokens.token(&Uuid::now_v7().to_string(), "customer");
        let admin = system.tokens.token("staff", "admin");
        Self { system, client: Client::new(), customer, admin, journal: Mutex::default() }
    }

    /// Adds a product with stock and waits until orders knows its price.
    pub(crate) async fn product(&self, sku: &str, price: i64, quantity: i64) {
        let product =
            json!({"sku": sku, "name": format!("The {sku}"), "unit_price_minor": price, "currency": "EUR"});
        let (status, body) = self.admin_post("/api/v1/products", &product).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        if quantity > 0 {
            let receipt = json!({"quantity": quantity});
            let (status, body) = self.admin_post(&format!("/api/v1/stock/{sku}/receipts"), &receipt).await;
            assert_eq!(status, StatusCode::CREATED, "{body}");
        }
        // Seen by its effect: an order that could not be paid for says when the price is known.
        eventually_named("orders knows the price", END_TIMEOUT, async || {
            let known: Option<i64> =
                sqlx::query_scalar("select unit_price_minor from catalogue where sku = $1")
                    .bind(sku)
                    .fetch_optional(&self.system.orders_db.pool)
                    .await
                    .unwrap();
            (known == Some(price)).then_some(())
        })
        .await;
    }

    async fn admin_post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request =
            self.client.post(format!("{}{path}", self.system.inventory.url)).bearer_auth(&self.admin);
        answered(request.header("Idempotency-Key", Uuid::now_v7().to_string()).json(body)).await
    }

    /// Places an order and returns its id. Told that there is no room just now, it comes again under the same key.
    pub(crate) async fn order(&self, lines: &[(&str, i64)], payment_token: &str) -> String {
        let key = Uuid::now_v7().to_string();
        let began = Instant::now();
        let (status, body) = loop {
            let (status, body) = self.place(lines, payment_token, &key).await;
            if status != StatusCode::SERVICE_UNAVAILABLE || began.elapsed() > END_TIMEOUT {
                break (status, body);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        assert_eq!(body["status"], "PENDING", "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn place(
        &self,
        lines: &[(&str, i64)],
        payment_token: &str,
        key: &str,
    ) -> (StatusCode, Value) {
        let lines: Vec<Value> =
            lines.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
        let body = json!({"lines": lines, "currency": "EUR", "payment_token": payment_token});
        let request = self.client.post(format!("{}/api/v1/orders", self.system.orders.url));
        let response = request.bearer_auth(&self.customer).header("Idempotency-Key", key).json(&body);
        let response = response.send().await.unwrap();
        let (status, answer) = (response.status(), response.bytes().await.unwrap());
        if status == StatusCode::ACCEPTED {
            let accepted = Accepted::new(&self.customer, key, body, answer.to_vec());
            self.journal.lock().unwrap().push(accepted);
        }
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// Every order that was accepted so far.
    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        self.journal.lock().unwrap().clone()
    }

    pub(crate) async fn cancel(&self, id: &str) -> (StatusCode, Value) {
        let request = self.client.post(format!("{}/api/v1/orders/{id}/cancel", self.system.orders.url));
        let answer = answered(request.bearer_auth(&self.customer)).await;
        for order in self.journal.lock().unwrap().iter_mut().filter(|order| order.id == id) {
            order.cancelled = Some(answer.0.is_success());
        }
        answer
    }

    /// Waits until the order has this status and returns it.
    pub(crate) async fn becomes(&self, id: &str, status: &str) -> Value {
        eventually_named("the order's end", END_TIMEOUT, async || {
            let order =
                self.get(&self.system.orders.url, &format!("/api/v1/orders/{id}"), &self.customer).await.1;
            (order["status"] == status).then_some(order)
        })
        .await
    }

    /// Waits until the order is confirmed or rejected, and tells which.
    pub(crate) async fn decided(&self, id: &str) -> String {
        eventually_named("the order's decision", END_TIMEOUT, async || {
            let order =
                self.get(&self.system.orders.url, &format!("/api/v1/orders/{id}"), &self.customer).await.1;
            let status = order["status"].as_str().unwrap_or_default();
            ["CONFIRMED", "REJECTED"].contains(&status).then(|| status.to_owned())
        })
        .await
    }

    /// The stock of a SKU: (available, reserved, shipped).
    pub(crate) async fn stock(&self, sku: &str) -> (i64, i64, i64) {
        let (_, stock) =
            self.get(&self.system.inventory.url, &format!("/api/v1/stock/{sku}"), &self.customer).await;
        let count = |name: &str| stock[name].as_i64().unwrap_or_else(|| panic!("{name} of {stock}"));
        (count("available"), count("reserved"), count("shipped"))
    }

    pub(crate) async fn stock_becomes(&self, sku: &str, expected: (i64, i64, i64)) {
        eventually_named("the stock", END_TIMEOUT, async || {
            (self.stock(sku).await == expected).then_some(())
        })
        .await;
    }

    pub(crate) async fn payment(&self, id: &str) -> (StatusCode, Value) {
        self.get(&self.system.payments.url, &format!("/api/v1/payments/{id}"), &self.customer).await
    }

    pub(crate) async fn payment_becomes(&self, id: &str, status: &str) -> Value {
        eventually_named("the payment", END_TIMEOUT, async || {
            let payment = self.payment(id).await.1;
            (payment["status"] == status).then_some(payment)
        })
        .await
    }

    async fn get(&self, url: &str, path: &str, token: &str) -> (StatusCode, Value) {
        answered(self.client.get(format!("{url}{path}")).bearer_auth(token)).await
    }
}

async fn answered(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap_or(Value::Null))
}
