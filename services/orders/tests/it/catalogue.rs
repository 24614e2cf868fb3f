//! The price projection: whatever order events come in, the newest price of each SKU stands.

use chrono::Utc;
use uuid::Uuid;
use waybill_events::inventory::{ProductAdded, ProductPriceChanged, StockReceived};
use waybill_events::{Published, Sku};
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::{Draft, Message};

use crate::world::World;

fn event<T: Published>(sku: &str, sequence: i64, event: &T) -> Message {
    let cause = Cause { correlation_id: Uuid::now_v7(), causation_id: None, trace: None };
    let draft = Draft::new(T::TOPIC, sku, event).unwrap();
    draft.finish(Uuid::now_v7(), Utc::now(), "/waybill/inventory", sequence, cause)
}

fn added(sku: &str, unit_price_minor: i64) -> Message {
    let (name, currency) = (sku.to_owned(), "EUR".parse().unwrap());
    event(sku, 1, &ProductAdded { sku: sku.parse().unwrap(), name, unit_price_minor, currency })
}

fn changed(sku: &str, sequence: i64, unit_price_minor: i64) -> Message {
    let (sku_id, currency): (Sku, _) = (sku.parse().unwrap(), "EUR".parse().unwrap());
    event(sku, sequence, &ProductPriceChanged { sku: sku_id, unit_price_minor, currency })
}

impl World {
    async fn price(&self, sku: &str) -> (i64, i64) {
        sqlx::query_as("select unit_price_minor, version from catalogue where sku = $1")
            .bind(sku)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn an_older_event_never_overwrites_a_newer_one() {
    let world = World::new("catalogue_order").await;
    world.hear(&[added("A", 100), added("B", 100)]).await;
    world.hear(&[changed("A", 4, 400)]).await;
    world.hear(&[changed("A", 3, 300), changed("B", 2, 200)]).await;
    world.hear(&[added("A", 100)]).await;
    assert_eq!((world.price("A").await, world.price("B").await), ((400, 4), (200, 2)));
}

#[tokio::test]
async fn several_events_of_one_sku_in_one_batch_leave_the_last() {
    let world = World::new("catalogue_batch").await;
    let batch = [added("A", 1), changed("A", 2, 2), changed("A", 4, 4), changed("A", 3, 3)];
    world.hear(&batch).await;
    world.hear(&batch).await;
    assert_eq!(world.price("A").await, (4, 4));
}

#[tokio::test]
async fn events_of_no_interest_are_passed_over() {
    let world = World::new("catalogue_other").await;
    let received = StockReceived { sku: "A".parse().unwrap(), quantity: 1, available: 1 };
    world.hear(&[event("A", 2, &received), added("A", 7)]).await;
    assert_eq!(world.price("A").await, (7, 1));
    assert_eq!(world.count("select count(*) from inbox").await, 1, "no inbox row for what is of no interest");
    world.assert_sound().await;
}
