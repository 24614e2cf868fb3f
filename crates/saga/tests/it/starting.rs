//! Starting sagas: all of a call or none, once for each key however many start it at once, counted when begun.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use uuid::Uuid;
use waybill_messaging::message::Message;
use waybill_outbox::append::append;
use waybill_runtime::clock::{Clock as _, SystemClock, new_id};
use waybill_saga::{Definition, Runner, SagaError, Sequences, Started, Step};

use crate::desk::{Desk, cause};
use crate::sagas::{Parcel, with_local_pivot};

/// Processes that start the same sagas at once.
const STARTERS: usize = 4;
/// Sagas of one call.
const SAGAS: usize = 20;
const ROUNDS: usize = 10;

/// Starts these in a transaction with their messages.
async fn start(desk: &Desk, keys: &[Uuid]) -> Result<(), SagaError> {
    let started: Vec<Started> = keys.iter().map(|key| desk.begin(*key)).collect();
    let messages: Vec<Message> = started.iter().flat_map(|s| s.messages.clone()).collect();
    let mut tx = desk.pool().begin().await.unwrap();
    desk.runner.start_in_tx(&mut tx, &started).await?;
    append(&mut tx, "", &messages).await.unwrap();
    tx.commit().await.unwrap();
    Ok(())
}

/// How many instances, log entries and messages there are.
async fn rows(desk: &Desk) -> (i64, i64, i64) {
    let question = "select (select count(*) from saga_instances), (select count(*) from saga_log), (select count(*) from outbox)";
    sqlx::query_as(question).fetch_one(desk.pool()).await.unwrap()
}

#[tokio::test]
async fn the_same_sagas_started_at_once_in_any_order_begin_once_and_nobody_is_locked_out() {
    let desk = Desk::open("saga_starts", with_local_pivot()).await;
    for round in 1..=ROUNDS {
        let keys: Vec<Uuid> = (0..SAGAS).map(|_| new_id()).collect();
        // Each begins elsewhere, every second one backwards.
        let orders = (0..STARTERS).map(|starter| {
            let mut keys = keys.clone();
            keys.rotate_left(starter * SAGAS / STARTERS);
            if starter % 2 == 1 {
                keys.reverse();
            }
            keys
        });
        let orders: Vec<Vec<Uuid>> = orders.collect();
        let ended = join_all(orders.iter().map(|keys| start(&desk, keys))).await;
        assert_eq!(ended.iter().filter(|end| end.is_ok()).count(), 1, "{ended:?}");
        let lost =
            ended.iter().filter(|end| matches!(end, Err(SagaError::AlreadyStarted { saga: "parcel" })));
        assert_eq!(lost.count(), STARTERS - 1, "a unique violation, not a deadlock: {ended:?}");
        let all = (round * SAGAS) as i64;
        assert_eq!(rows(&desk).await, (all, all, all), "each once, with its log entry and its first command");
    }
}

#[tokio::test]
async fn one_saga_that_runs_already_keeps_all_of_a_call_from_starting() {
    let desk = Desk::open("saga_start_none", with_local_pivot()).await;
    let running = desk.start(1).await[0];
    let before = desk.see(running).await;
    let mut keys: Vec<Uuid> = (0..SAGAS).map(|_| new_id()).collect();
    keys.insert(SAGAS / 2, running);
    let refused = start(&desk, &keys).await;
    assert!(matches!(refused, Err(SagaError::AlreadyStarted { .. })), "{refused:?}");
    assert_eq!(rows(&desk).await, (1, 1, 1));
    let after = desk.see(running).await;
    assert_eq!((after.revision, after.state), (before.revision, before.state));
    assert_eq!(desk.log(running).await.len(), 1);
    // Twice in one call is no better.
    let twice = start(&desk, &[keys[0], keys[0]]).await;
    assert!(matches!(twice, Err(SagaError::AlreadyStarted { .. })), "{twice:?}");
    keys.retain(|key| *key != running);
    start(&desk, &keys).await.unwrap();
    let logged: BTreeSet<Uuid> = sqlx::query_scalar("select key from saga_log")
        .fetch_all(desk.pool())
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(logged.len(), SAGAS + 1);
}

#[tokio::test]
async fn beginnings_are_counted_also_those_that_are_rolled_back() {
    let definition = Definition::named("counted", 1).pivot(Step::local("pivot")).build();
    let runner = Runner::new("/test/counted", vec![definition]);
    let key = new_id();
    for _ in 0..3 {
        let (data, now) = (Parcel { id: key }, SystemClock.now());
        let _rolled_back = runner.start(key, &data, &cause(key), Sequences::default(), now).unwrap();
    }
    let metrics = waybill_telemetry::metrics::render();
    assert!(metrics.contains("saga_started_total{saga=\"counted\"} 3"), "{metrics}");
}
