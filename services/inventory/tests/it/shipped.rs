//! Every order in which the commands of a shipped order can arrive, in and out of turn: pieces move once, none is lost.

use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;
use waybill_events::OrderId;
use waybill_events::topic::INVENTORY_EVENTS;
use waybill_outbox::retry::operate::discard_in_tx;
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::eventually;

use crate::desk::{Desk, Say};
use crate::permutations::permutations;
use crate::world::said;

const SKU: &str = "TEA-1";
const STOCKED: i64 = 10_000;
const PIECES: i32 = 4;
/// Longest wait for the drainer, which looks each second.
const PATIENCE: Duration = Duration::from_secs(60);

/// What must come of an order's commands when those out of turn are given up: its replies, the ledger's kinds by name,
/// its state.
#[derive(Debug, Default, PartialEq, Eq)]
struct Story {
    replies: Vec<&'static str>,
    moved: Vec<&'static str>,
    given_up: usize,
    state: &'static str,
}

impl Story {
    fn of(commands: &[Say]) -> Self {
        let mut story = Self::default();
        commands.iter().for_each(|command| story.hear(command));
        story
    }

    fn hear(&mut self, command: &Say) {
        let (reply, moved) = match (command, self.state) {
            (Say::Reserve(_), "") => ("StockReserved", Some(("reserve", "reserved"))),
            (Say::Reserve(_), "reserved" | "committed") => ("StockReserved", None),
            (Say::Reserve(_), _) => ("StockRejected", None),
            (Say::Release, "reserved") => ("StockReleased", Some(("release", "released"))),
            (Say::Release, "" | "released") => {
                self.state = "released";
                ("StockReleased", None)
            }
            (Say::Commit, "reserved") => ("StockCommitted", Some(("commit", "committed"))),
            (Say::Commit, "committed" | "restocked") => ("StockCommitted", None),
            (Say::Restock, "committed") => ("StockRestocked", Some(("restock", "restocked"))),
            (Say::Restock, "restocked") => ("StockRestocked", None),
            _ => {
                self.given_up += 1;
                return;
            }
        };
        self.replies.push(reply);
        if let Some((kind, state)) = moved {
            self.moved.push(kind);
            self.moved.sort_unstable();
            self.state = state;
        }
    }
}

/// Hands over every permutation of the four after those before them, in one batch and one by one.
async fn hand_all(desk: &mut Desk, before: &[Say], four: &[Say; 4]) -> Vec<(OrderId, Vec<Say>)> {
    let mut orders = Vec::new();
    for (permutation, one_batch) in permutations().into_iter().flat_map(|p| [(p, true), (p, false)]) {
        let order = OrderId::generate();
        let commands: Vec<Say> =
            before.iter().cloned().chain(permutation.iter().map(|at| four[*at].clone())).collect();
        let messages: Vec<_> = commands.iter().map(|command| command.to(order)).collect();
        let size = if one_batch { messages.len() } else { 1 };
        for batch in messages.chunks(size) {
            desk.hand(batch).await;
        }
        orders.push((order, commands));
    }
    orders
}

async fn open_letters(pool: &PgPool) -> Vec<Uuid> {
    let open = sqlx::query_scalar("select id from dead_letters where state = 'open'");
    open.fetch_all(pool).await.unwrap()
}

/// Gives up each dead letter as an operator would, until nothing is held behind one. Each order has four commands to
/// give up at most, one at a time.
async fn give_up_what_is_out_of_turn(desk: &Desk) {
    for _ in 0..4 {
        for id in open_letters(desk.pool()).await {
            let mut tx = desk.pool().begin().await.unwrap();
            discard_in_tx(&mut tx, id).await.unwrap();
            tx.commit().await.unwrap();
        }
        let draining = "select count(*) from parked_keys where state = 'draining'";
        eventually(PATIENCE, async || (desk.count(draining).await == 0).then_some(())).await;
    }
    assert_eq!(desk.count("select count(*) from parked_keys").await, 0);
    assert_eq!(open_letters(desk.pool()).await, Vec::<Uuid>::new());
}

/// The levels are what the orders' states say: nothing appeared, nothing vanished.
async fn assert_balanced(desk: &Desk) {
    let in_state = async |state: &str| -> i64 {
        let found = sqlx::query_scalar("select count(*) from reservations where state = $1").bind(state);
        found.fetch_one(desk.pool()).await.unwrap()
    };
    let pieces = i64::from(PIECES);
    let (reserved, shipped) = (in_state("reserved").await * pieces, in_state("committed").await * pieces);
    assert_eq!(desk.levels(SKU).await, (STOCKED - reserved - shipped, reserved, shipped));
}

async fn assert_every_permutation(hint: &str, before: &[Say], four: &[Say; 4]) {
    let mut desk = Desk::new(hint).await;
    desk.stocked(SKU, STOCKED).await;
    let orders = hand_all(&mut desk, before, four).await;
    // As it stands with what is out of turn blocking its key, and again when that was given up.
    assert_balanced(&desk).await;
    let shutdown = Shutdown::manual();
    let drainer = tokio::spawn(desk.drainer().run(shutdown.clone()));
    give_up_what_is_out_of_turn(&desk).await;
    shutdown.request();
    drainer.await.unwrap();
    assert_balanced(&desk).await;
    let mut given_up = 0;
    for (order, commands) in &orders {
        let expected = Story::of(commands);
        given_up += expected.given_up;
        let replies = said(desk.pool(), INVENTORY_EVENTS, &order.to_string()).await;
        let numbered: Vec<_> = expected.replies.iter().map(|kind| (*kind).to_owned()).zip(1..).collect();
        assert_eq!(replies, numbered, "{commands:?}");
        let moved =
            "select kind from stock_ledger where source_id = $1 and sku = $2 and quantity = $3 order by kind";
        let moved = sqlx::query_scalar(moved).bind(order.as_uuid()).bind(SKU).bind(PIECES);
        let moved: Vec<String> = moved.fetch_all(desk.pool()).await.unwrap();
        assert_eq!(moved, expected.moved, "{commands:?}");
        let state = "select state from reservations where order_id = $1";
        let state: Option<String> =
            sqlx::query_scalar(state).bind(order.as_uuid()).fetch_optional(desk.pool()).await.unwrap();
        assert_eq!(state.unwrap_or_default(), expected.state, "{commands:?}");
    }
    assert_eq!(desk.dead_letters().await, vec!["out_of_turn"; given_up]);
    assert!(given_up > 0);
}

fn reserve() -> Say {
    Say::Reserve(vec![(SKU, PIECES)])
}

#[tokio::test]
async fn every_permutation_of_commit_and_restock_ships_and_takes_back_once() {
    let four = [Say::Commit, Say::Restock, Say::Commit, Say::Restock];
    assert_every_permutation("permutations_shipped", &[reserve()], &four).await;
}

#[tokio::test]
async fn every_permutation_of_all_four_commands_loses_no_piece() {
    let four = [reserve(), Say::Release, Say::Commit, Say::Restock];
    assert_every_permutation("permutations_all", &[], &four).await;
}
