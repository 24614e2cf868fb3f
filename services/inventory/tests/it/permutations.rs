//! Every order in which a reserve, a release and a duplicate of each can arrive: the same stock, and true replies.

use waybill_events::OrderId;
use waybill_events::topic::INVENTORY_EVENTS;

use crate::desk::{Desk, Say};
use crate::world::said;

/// All orders of four things.
pub(crate) fn permutations() -> Vec<[usize; 4]> {
    let mut all = Vec::new();
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            for c in (0..4).filter(|c| *c != a && *c != b) {
                all.push([a, b, c, 6 - a - b - c]);
            }
        }
    }
    all
}

/// What must be answered: a reserve succeeds only before any release, a release always.
fn expected(commands: &[Say]) -> Vec<(String, i64)> {
    let mut released = false;
    let mut kinds = Vec::new();
    for command in commands {
        kinds.push(match command {
            Say::Reserve(_) if released => "StockRejected",
            Say::Reserve(_) => "StockReserved",
            _ => "StockReleased",
        });
        released |= matches!(command, Say::Release);
    }
    kinds.into_iter().map(str::to_owned).zip(1..).collect()
}

#[tokio::test]
async fn cancels_may_arrive_whenever_they_like() {
    let mut desk = Desk::new("permutations").await;
    desk.stocked("TEA-1", 10).await;
    desk.stocked("TEA-2", 10).await;
    let reserve = || Say::Reserve(vec![("TEA-2", 3), ("TEA-1", 4)]);
    let four = [reserve(), Say::Release, reserve(), Say::Release];
    assert_eq!(permutations().len(), 24);
    for (permutation, one_batch) in permutations().into_iter().flat_map(|p| [(p, true), (p, false)]) {
        let order = OrderId::generate();
        let commands: Vec<Say> = permutation.iter().map(|at| four[*at].clone()).collect();
        let messages: Vec<_> = commands.iter().map(|command| command.to(order)).collect();
        if one_batch {
            desk.hand(&messages).await;
        } else {
            for message in messages {
                desk.hand(&[message]).await;
            }
        }
        assert_eq!(
            said(desk.pool(), INVENTORY_EVENTS, &order.to_string()).await,
            expected(&commands),
            "{commands:?}"
        );
        assert_eq!(desk.levels("TEA-1").await, (10, 0, 0), "{commands:?}");
        assert_eq!(desk.levels("TEA-2").await, (10, 0, 0), "{commands:?}");
    }
    assert_eq!(desk.dead_letters().await, Vec::<String>::new());
    let late: i64 =
        desk.count("select count(*) from outbox where headers->>'ce_type' = 'StockRejected'").await;
    let reasons = "select count(*) from reservations where state = 'released'";
    assert!(late > 0);
    assert_eq!(desk.count(reasons).await, 48, "each order ends released, with or without lines");
}
