//! The life of a reservation through the handler: effects once, replies each time, contradictions to the dead letters.

use bytes::Bytes;
use waybill_events::OrderId;
use waybill_events::inventory::StockRejected;
use waybill_events::topic::INVENTORY_EVENTS;
use waybill_messaging::codec;

use crate::desk::{Desk, Say, record};
use crate::world::said;

fn kinds(said: Vec<(String, i64)>) -> Vec<String> {
    assert!(said.iter().zip(1..).all(|((_, sequence), expected)| *sequence == expected), "1..n: {said:?}");
    said.into_iter().map(|(kind, _)| kind).collect()
}

async fn rejection(desk: &Desk, order: OrderId) -> (String, Option<String>) {
    let payload: Vec<u8> = sqlx::query_scalar(
        "select payload from outbox where key = $1 and headers->>'ce_type' = 'StockRejected'",
    )
    .bind(order.to_string().into_bytes())
    .fetch_one(desk.pool())
    .await
    .unwrap();
    let reply: StockRejected = codec::decode(&payload).unwrap();
    (reply.reason, reply.sku.map(|sku| sku.to_string()))
}

#[tokio::test]
async fn a_reservation_lives_once_however_often_it_is_told() {
    let mut desk = Desk::new("reservations_life").await;
    desk.stocked("TEA-1", 10).await;
    let order = OrderId::generate();
    let reserve = Say::Reserve(vec![("TEA-1", 4)]);
    for (say, levels) in [
        (&reserve, (6, 4, 0)),
        (&reserve, (6, 4, 0)),
        (&Say::Commit, (6, 0, 4)),
        (&reserve, (6, 0, 4)),
        (&Say::Commit, (6, 0, 4)),
        (&Say::Restock, (10, 0, 0)),
        (&Say::Restock, (10, 0, 0)),
        (&Say::Commit, (10, 0, 0)),
        (&reserve, (10, 0, 0)),
    ] {
        desk.hand(&[say.to(order)]).await;
        assert_eq!(desk.levels("TEA-1").await, levels, "after {say:?}");
    }
    let expected = [
        "StockReserved",
        "StockReserved",
        "StockCommitted",
        "StockReserved",
        "StockCommitted",
        "StockRestocked",
        "StockRestocked",
        "StockCommitted",
        "StockRejected",
    ];
    assert_eq!(kinds(said(desk.pool(), INVENTORY_EVENTS, &order.to_string()).await), expected);
    assert_eq!(rejection(&desk, order).await, ("cancelled".to_owned(), None));
    assert_eq!(
        desk.count("select count(*) from stock_ledger").await,
        3,
        "reserve, commit, restock: once each"
    );
    let correlated = "select count(*) from outbox where headers->>'ce_correlationid' = convert_from(key, 'UTF8')
                      and headers->>'ce_causationid' is not null and headers->>'ce_source' = '/waybill/inventory'";
    assert_eq!(desk.count(correlated).await, 9, "every reply names its story and its command");
}

#[tokio::test]
async fn all_lines_or_none_and_the_refusal_is_kept() {
    let mut desk = Desk::new("reservations_refused").await;
    desk.stocked("TEA-1", 10).await;
    desk.stocked("TEA-2", 1).await;
    let (short, unknown) = (OrderId::generate(), OrderId::generate());
    let reserve = Say::Reserve(vec![("TEA-1", 4), ("TEA-2", 2)]);
    desk.hand(&[reserve.to(short), Say::Reserve(vec![("TEA-1", 1), ("NONE", 1)]).to(unknown)]).await;
    assert_eq!(rejection(&desk, short).await, ("insufficient_stock".to_owned(), Some("TEA-2".to_owned())));
    assert_eq!(rejection(&desk, unknown).await, ("unknown_sku".to_owned(), Some("NONE".to_owned())));
    assert_eq!(desk.levels("TEA-1").await, (10, 0, 0), "nothing of a refused order is held");

    sqlx::query("update stock set available = 100").execute(desk.pool()).await.unwrap();
    desk.hand(&[reserve.to(short)]).await;
    desk.hand(&[Say::Release.to(short)]).await;
    let told = ["StockRejected", "StockRejected", "StockReleased"];
    assert_eq!(
        kinds(said(desk.pool(), INVENTORY_EVENTS, &short.to_string()).await),
        told,
        "a refusal stays one"
    );
    assert_eq!(desk.levels("TEA-2").await, (100, 0, 0));
    assert_eq!(desk.dead_letters().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_replay_after_the_inbox_forgot_is_harmless() {
    let mut desk = Desk::new("reservations_replay").await;
    desk.stocked("TEA-1", 10).await;
    let order = OrderId::generate();
    let (reserve, commit) = (Say::Reserve(vec![("TEA-1", 4)]).to(order), Say::Commit.to(order));
    desk.hand(&[reserve.clone(), commit.clone()]).await;
    desk.hand(&[reserve.clone(), commit.clone()]).await;
    assert_eq!(
        said(desk.pool(), INVENTORY_EVENTS, &order.to_string()).await.len(),
        2,
        "the inbox drops what it knows"
    );
    sqlx::query("truncate inbox").execute(desk.pool()).await.unwrap();
    desk.hand(&[reserve, commit]).await;
    assert_eq!(desk.levels("TEA-1").await, (6, 0, 4));
    let told = ["StockReserved", "StockCommitted", "StockReserved", "StockCommitted"];
    assert_eq!(kinds(said(desk.pool(), INVENTORY_EVENTS, &order.to_string()).await), told);
}

#[tokio::test]
async fn what_does_not_follow_becomes_a_dead_letter_and_stops_nobody_else() {
    let mut desk = Desk::new("reservations_dead").await;
    desk.stocked("TEA-1", 10).await;
    let order = |number: u128| OrderId::from_uuid(uuid::Uuid::from_u128(number));
    let reserve = |pieces| Say::Reserve(vec![("TEA-1", pieces)]);
    let good = order(9);
    desk.hand(&[reserve(1).to(order(2)), reserve(1).to(order(3)), Say::Release.to(order(4))]).await;
    desk.hand(&[Say::Commit.to(order(2))]).await;
    let mut misplaced = reserve(1).to(order(7));
    misplaced.key = order(8).to_string();
    misplaced.envelope.subject = order(8).to_string();
    desk.hand(&[
        Say::Commit.to(order(1)),
        Say::Release.to(order(2)),
        Say::Restock.to(order(3)),
        Say::Commit.to(order(4)),
        Say::Restock.to(order(5)),
        reserve(0).to(order(6)),
        Say::Reserve(vec![]).to(order(11)),
        Say::Reserve(vec![("TEA-1", 1), ("TEA-1", 2)]).to(order(12)),
        misplaced,
        reserve(1).to(good),
        reserve(2).to(good),
    ])
    .await;
    let turn = "out_of_turn";
    let invalid = "invalid_command";
    let expected = [turn, turn, turn, turn, turn, invalid, invalid, invalid, invalid, "conflicting_command"];
    assert_eq!(desk.dead_letters().await, expected);
    let told = "select count(*) from outbox where topic = 'inventory.commands.inventory.dlq'";
    assert_eq!(desk.count(told).await, 10, "each is mirrored to the topic");
    assert_eq!(kinds(said(desk.pool(), INVENTORY_EVENTS, &good.to_string()).await), ["StockReserved"]);
    assert_eq!(desk.levels("TEA-1").await, (7, 2, 1));
    assert_eq!(
        desk.count("select count(*) from reservations where version <> 1").await,
        1,
        "only order 2 went on"
    );

    let mut garbled = record(&reserve(1).to(order(10)), 100);
    garbled.payload = Some(Bytes::from_static(b"\0\0\0\0\x06garbage"));
    desk.hand_records(vec![garbled]).await;
    assert_eq!(desk.dead_letters().await.last().map(String::as_str), Some("payload"));
}
