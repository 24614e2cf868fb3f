//! Many orders at once: first come first served, a constant number of statements, no deadlock.

use std::cell::Cell;

use futures_util::future::join_all;
use tracing::span;
use waybill_events::OrderId;
use waybill_inventory::commands::obey_stock_commands::obey_stock_commands;
use waybill_inventory::domain::reservation::StockCommand;
use waybill_inventory::domain::shelf::Lines;
use waybill_inventory::domain::stock::{Line, Pieces};
use waybill_messaging::message::Message;

use crate::desk::{Desk, Say};

const SKUS: [&str; 3] = ["TEA-1", "TEA-2", "TEA-3"];

fn wave(orders: usize) -> Vec<Message> {
    let reserve = |number: usize| {
        Say::Reserve(vec![(SKUS[number % 3], 1), (SKUS[(number + 1) % 3], 2)]).to(OrderId::generate())
    };
    (0..orders).map(reserve).collect()
}

#[tokio::test]
async fn two_hundred_orders_share_what_there_is() {
    let mut desk = Desk::new("waves_share").await;
    for sku in SKUS {
        desk.stocked(sku, 90).await;
    }
    let messages = wave(200);
    desk.hand(&messages).await;
    for sku in SKUS {
        assert_eq!(desk.levels(sku).await, (0, 90, 0), "every order takes 1 and 2: 90 pieces serve 30 pairs");
    }
    let keys: Vec<String> = messages.iter().map(|message| message.key.clone()).collect();
    let served: Vec<String> = sqlx::query_scalar(
        "select convert_from(key, 'UTF8') from outbox where headers->>'ce_type' = 'StockReserved' order by id",
    )
    .fetch_all(desk.pool())
    .await
    .unwrap();
    assert_eq!(served, keys[..90], "first come, first served");
    assert_eq!(desk.count("select count(*) from outbox").await, 200, "everybody is answered");
    assert_eq!(desk.count("select count(*) from stock_ledger").await, 180);
    let releases: Vec<_> = messages.iter().map(|m| Say::Release.to(m.key.parse().unwrap())).collect();
    desk.hand(&releases).await;
    for sku in SKUS {
        assert_eq!(desk.levels(sku).await, (90, 0, 0));
    }
}

thread_local! {
    /// Statements this test's thread has run; its runtime has no other.
    static STATEMENTS: Cell<usize> = const { Cell::new(0) };
}

/// Counts the statements sqlx reports to `tracing` (target `sqlx::query`), which it does for each one it runs. The
/// server's own count needs an extension that must be loaded when it starts.
struct Statements;

impl tracing::Subscriber for Statements {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        STATEMENTS.set(STATEMENTS.get() + 1);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn a_wave_takes_as_many_statements_as_one_order() {
    let mut desk = Desk::new("waves_statements").await;
    for sku in SKUS {
        desk.stocked(sku, 1_000).await;
    }
    // For the whole binary: one for this thread only would be disturbed by what other threads' tests register.
    tracing::subscriber::set_global_default(Statements).unwrap();
    let mut counts = Vec::new();
    for orders in [1, 10, 200] {
        let messages = wave(orders);
        STATEMENTS.set(0);
        desk.hand(&messages).await;
        counts.push(STATEMENTS.get());
    }
    assert!(counts[0] >= 5, "the statements are seen: {counts:?}");
    assert!(counts.iter().all(|seen| *seen == counts[0]), "{counts:?} for 1, 10 and 200 orders");
}

/// Commands to reserve every SKU, in this order of lines.
fn reserve_all(skus: &[&str]) -> Vec<(OrderId, StockCommand)> {
    let line = |sku: &&str| Line { sku: sku.parse().unwrap(), pieces: Pieces::ordered(1).unwrap() };
    let lines = Lines::new(skus.iter().map(line).collect()).unwrap();
    vec![(OrderId::generate(), StockCommand::Reserve(lines))]
}

#[tokio::test]
async fn handlers_on_the_same_skus_wait_for_each_other_and_never_in_a_ring() {
    const ROUNDS: usize = 40;
    let desk = Desk::new("waves_deadlock").await;
    let skus: Vec<String> = (0..20).map(|number| format!("SKU-{number:02}")).collect();
    for sku in &skus {
        desk.stocked(sku, 1_000).await;
    }
    let forwards: Vec<&str> = skus.iter().map(String::as_str).collect();
    let backwards: Vec<&str> = skus.iter().rev().map(String::as_str).collect();
    let member = |lines: Vec<&'static str>| {
        let pool = desk.pool().clone();
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let mut tx = pool.begin().await.unwrap();
                let answers = obey_stock_commands(&mut tx, &reserve_all(&lines)).await;
                // Any database error fails the test: a deadlock (40P01) above all.
                assert!(answers.unwrap().iter().all(Result::is_ok));
                tx.commit().await.unwrap();
            }
        })
    };
    let leak = |skus: &[&str]| -> Vec<&'static str> {
        skus.iter().map(|sku| &*Box::leak((*sku).to_owned().into_boxed_str())).collect()
    };
    let members = [&forwards, &backwards, &forwards, &backwards].map(|lines| member(leak(lines)));
    for ended in join_all(members).await {
        ended.unwrap();
    }
    let taken = i64::try_from(ROUNDS * 4).unwrap();
    assert_eq!(desk.levels("SKU-00").await, (1_000 - taken, taken, 0));
}
