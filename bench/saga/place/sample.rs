//! One order placed over HTTP and read back: what pgbench sends is this one, under other ids.

use std::time::Instant;

use anyhow::{Context as _, Result};
use sqlx::FromRow;
use waybill_bench::journal::Journal;
use waybill_bench::shop::Shop;

use super::ground::Ground;
use crate::arguments::Arguments;

/// Beginning of the ids that pgbench makes. The twelve digits behind count upwards over all sessions, so that they lie
/// beside each other in the indexes, as a service's ids do.
pub(super) const HEAD: &str = "01990000-0000-7000-8000-";

/// The parameters of the statement that placed it, as text.
#[derive(Debug, FromRow)]
pub(super) struct Sample {
    scope: String,
    endpoint: String,
    hash: String,
    answer_headers: String,
    answer_body: String,
    sample: String,
    customer: String,
    total: i64,
    first_sku: String,
    second_sku: String,
    first_price: i64,
    second_price: i64,
    saga: String,
    first_topic: String,
    second_topic: String,
    first_headers: String,
    second_headers: String,
    first_payload: String,
    second_payload: String,
}

/// Places one order and reads it back.
pub(super) async fn take(ground: &Ground, arguments: &Arguments) -> Result<Sample> {
    let shop = Shop::at(&ground.orders.url, &ground.tokens, Ground::skus(), &arguments.spine(0))?;
    let journal = Journal::default();
    let placed = shop.place(Instant::now(), &journal).await;
    placed.with_context(|| format!("the sample was refused: {:?}", journal.refused()))?;
    sqlx::query_as(
        "select k.scope, k.endpoint, k.request_hash::text as hash, k.headers::text as answer_headers,
                k.body::text as answer_body, o.id::text as sample, o.customer_id::text as customer,
                o.total_minor as total, l1.sku as first_sku, l2.sku as second_sku,
                l1.unit_price_minor as first_price, l2.unit_price_minor as second_price,
                json_build_array(json_build_object(
                    'saga', s.saga, 'key', s.key, 'version', s.version, 'status', s.status, 'state', s.state,
                    'data', s.data, 'sequences', s.sequences,
                    'due_in_ms', (extract(epoch from s.due_at - s.created_at) * 1000)::bigint, 'wait_ms', s.wait_ms,
                    'deadline_ms', (extract(epoch from s.deadline_at - s.created_at) * 1000)::bigint,
                    'sent', s.command_xid is not null, 'correlation_id', s.correlation_id,
                    'traceparent', s.traceparent, 'entry', g.entry))::text as saga,
                m1.topic as first_topic, m2.topic as second_topic,
                m1.headers::text as first_headers, m2.headers::text as second_headers,
                m1.payload::text as first_payload, m2.payload::text as second_payload
         from orders o
         join order_lines l1 on l1.order_id = o.id and l1.place = 0
         join order_lines l2 on l2.order_id = o.id and l2.place = 1
         join saga_instances s on s.key = o.id
         join saga_log g on g.key = o.id
         cross join idempotency_keys k
         join outbox m1 on m1.id = (select min(id) from outbox)
         join outbox m2 on m2.id = (select max(id) from outbox)",
    )
    .fetch_one(&ground.database.pool)
    .await
    .context("reading the sample back")
}

impl Sample {
    /// pgbench's variables, for ids that begin with `head`.
    pub(super) fn variables(&self, head: &str) -> Vec<(&'static str, String)> {
        vec![
            ("head", head.to_owned()),
            ("n", "0".to_owned()),
            ("scope", self.scope.clone()),
            ("endpoint", self.endpoint.clone()),
            ("hash", self.hash.clone()),
            ("answer_headers", self.answer_headers.clone()),
            ("answer_body", self.answer_body.clone()),
            ("sample", self.sample.clone()),
            ("customer", self.customer.clone()),
            ("total", self.total.to_string()),
            ("first_sku", self.first_sku.clone()),
            ("second_sku", self.second_sku.clone()),
            ("first_price", self.first_price.to_string()),
            ("second_price", self.second_price.to_string()),
            ("saga", self.saga.clone()),
            ("first_topic", self.first_topic.clone()),
            ("second_topic", self.second_topic.clone()),
            ("first_headers", self.first_headers.clone()),
            ("second_headers", self.second_headers.clone()),
            ("first_payload", self.first_payload.clone()),
            ("second_payload", self.second_payload.clone()),
        ]
    }
}
