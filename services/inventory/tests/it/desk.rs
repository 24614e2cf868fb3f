//! A desk that hands commands to the consumer's handler as Kafka would, batch by batch, and reads what it wrote.

use std::sync::Arc;

use bytes::Bytes;
use chrono::Utc;
use sqlx::PgPool;
use uuid::Uuid;
use waybill_events::inventory::{CommitStock, ReleaseStock, ReserveStock, RestockOrder, StockLine};
use waybill_events::{OrderId, topic};
use waybill_inventory::consumers::inventory_commands::InventoryCommands;
use waybill_messaging::consumer::{Batch, BatchHandler};
use waybill_messaging::envelope::Cause;
use waybill_messaging::headers;
use waybill_messaging::message::{Draft, Message};
use waybill_messaging::record::Record;
use waybill_outbox::inbox::InboxProcessor;
use waybill_outbox::retry::Drainer;
use waybill_runtime::clock::SystemClock;
use waybill_testkit::TestDatabase;

use crate::world::database;

/// The consumer's handler on a database of its own.
pub(crate) struct Desk {
    pub(crate) database: TestDatabase,
    processor: InboxProcessor<InventoryCommands>,
    offset: i64,
}

/// A command to an order's reservation.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    Reserve(Vec<(&'static str, i32)>),
    Release,
    Commit,
    Restock,
}

impl Say {
    fn draft(&self, order_id: OrderId) -> Draft {
        let key = order_id.to_string();
        let topic = topic::INVENTORY_COMMANDS;
        let draft = match self {
            Self::Reserve(lines) => {
                let line = |(sku, quantity): &(&str, i32)| StockLine {
                    sku: sku.parse().unwrap(),
                    quantity: *quantity,
                };
                Draft::new(topic, key, &ReserveStock { order_id, lines: lines.iter().map(line).collect() })
            }
            Self::Release => Draft::new(topic, key, &ReleaseStock { order_id }),
            Self::Commit => Draft::new(topic, key, &CommitStock { order_id }),
            Self::Restock => Draft::new(topic, key, &RestockOrder { order_id }),
        };
        draft.unwrap()
    }

    /// The command as a message; its correlation is the order, as the saga has it.
    pub(crate) fn to(&self, order_id: OrderId) -> Message {
        let cause = Cause { correlation_id: order_id.as_uuid(), causation_id: None, trace: None };
        self.draft(order_id).finish(Uuid::now_v7(), Utc::now(), "/waybill/orders", 1, cause)
    }
}

/// The message as the consumer would have it.
pub(crate) fn record(message: &Message, offset: i64) -> Record {
    let headers = headers::encode(&message.envelope).into_iter();
    Record {
        topic: message.topic.clone(),
        partition: 0,
        offset,
        timestamp_ms: None,
        key: Some(Bytes::from(message.key.clone())),
        headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
        payload: Some(Bytes::from(message.payload.clone())),
    }
}

impl Desk {
    pub(crate) async fn new(hint: &str) -> Self {
        let database = database(hint).await;
        let handler = InventoryCommands::new(Arc::new(SystemClock));
        let processor = InboxProcessor::new(database.pool.clone(), "", handler);
        Self { database, processor, offset: 0 }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// A product with this many pieces, and the receipt they came with.
    pub(crate) async fn stocked(&self, sku: &str, pieces: i64) {
        sqlx::query(
            "with product as (
                 insert into products (sku, id, name, unit_price_minor, currency, version, created_at, updated_at)
                 values ($1, gen_random_uuid(), $1, 100, 'EUR', 1, now(), now()) returning sku
             ), shelf as (insert into stock (sku, available) select sku, $2 from product)
             select 1",
        )
        .bind(sku)
        .bind(pieces)
        .execute(self.pool())
        .await
        .unwrap();
    }

    /// Hands these over as one batch and waits until its transaction committed.
    pub(crate) async fn hand(&mut self, messages: &[Message]) {
        let first = self.offset;
        self.offset += i64::try_from(messages.len()).unwrap();
        let records = messages.iter().zip(first..).map(|(message, offset)| record(message, offset)).collect();
        self.hand_records(records).await;
    }

    pub(crate) async fn hand_records(&self, records: Vec<Record>) {
        self.processor.handle(&Batch { records }).await.expect("no infrastructure failed");
    }

    /// What goes on with keys whose dead letter was given up.
    pub(crate) fn drainer(&self) -> Drainer<InventoryCommands> {
        self.processor.drainer()
    }

    /// (available, reserved, shipped)
    pub(crate) async fn levels(&self, sku: &str) -> (i64, i64, i64) {
        sqlx::query_as("select available, reserved, shipped from stock where sku = $1")
            .bind(sku)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// Classes of the dead letters, in their order of arrival.
    pub(crate) async fn dead_letters(&self) -> Vec<String> {
        sqlx::query_scalar(r#"select error_class from dead_letters order by "offset""#)
            .fetch_all(self.pool())
            .await
            .unwrap()
    }

    pub(crate) async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(self.pool()).await.unwrap()
    }
}
