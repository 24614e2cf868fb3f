//! Every order in which commands can arrive, also those that no saga sends: money moves once, and nothing is left held.

use waybill_events::OrderId;
use waybill_outbox::inbox::Verdict;

use crate::world::{AMOUNT, World, authorize, capture, refund, void};

/// Every order of an authorization and a void, each also repeated: nothing is held at the end, and the last word is true.
#[tokio::test]
async fn every_permutation_of_authorize_and_void_holds_nothing() {
    let world = World::new("pay_permutations").await;
    world.start_worker();
    let mut orders = Vec::new();
    for permutation in permutations(&["authorize", "void", "authorize", "void"]) {
        let order = OrderId::generate();
        for command in &permutation {
            let verdict = match *command {
                "authorize" => world.deliver(order, &authorize(order, "tok_approve")).await,
                _ => world.deliver(order, &void(order)).await,
            };
            assert!(matches!(verdict, Verdict::Done), "{permutation:?}");
        }
        orders.push((order, permutation));
    }
    for (order, permutation) in orders {
        assert_eq!(world.settled(order).await, "voided", "{permutation:?}");
        let told = world.told(order, 1).await;
        assert!(told.iter().any(|reply| reply == "PaymentVoided"), "{permutation:?}: {told:?}");
        // An authorization that comes after its void is declined.
        let last = told.last().unwrap().as_str();
        assert!(["PaymentVoided", "PaymentDeclined"].contains(&last), "{permutation:?}: {told:?}");
        if let Some((state, captured, _, _)) = world.sandbox(order).await {
            assert_eq!((state.as_str(), captured), ("voided", 0), "{permutation:?}");
        }
    }
}

fn permutations(items: &[&'static str]) -> Vec<Vec<&'static str>> {
    let Some((first, rest)) = items.split_first() else { return vec![Vec::new()] };
    let longer = |shorter: Vec<&'static str>| {
        (0..=shorter.len()).map(move |at| {
            let mut one = shorter.clone();
            one.insert(at, first);
            one
        })
    };
    let mut all: Vec<_> = permutations(rest).into_iter().flat_map(longer).collect();
    all.sort_unstable();
    all.dedup();
    all
}

async fn say(world: &World, order: OrderId, command: &str) -> Verdict {
    match command {
        "authorize" => world.deliver(order, &authorize(order, "tok_approve")).await,
        "void" => world.deliver(order, &void(order)).await,
        "capture" => world.deliver(order, &capture(order)).await,
        _ => world.deliver(order, &refund(order, AMOUNT)).await,
    }
}

/// The state after a command, and the reply; `None` is a command out of turn.
fn follow(state: &'static str, command: &str) -> Option<(&'static str, &'static str)> {
    Some(match (command, state) {
        ("authorize", "") => ("authorized", "PaymentAuthorized"),
        ("authorize", "voided") => ("voided", "PaymentDeclined"),
        ("authorize", _) => (state, "PaymentAuthorized"),
        ("void", "" | "authorized" | "voided") => ("voided", "PaymentVoided"),
        ("capture", "authorized") => ("captured", "PaymentCaptured"),
        ("capture", "captured" | "refunded") => (state, "PaymentCaptured"),
        ("refund", "captured" | "refunded") => ("refunded", "PaymentRefunded"),
        _ => return None,
    })
}

/// What the provider holds and has moved is what the payment's state says.
async fn assert_balanced(world: &World, order: OrderId, state: &str, told: &str) {
    let expected = match state {
        "refunded" => Some(("approved", AMOUNT, AMOUNT)),
        "captured" => Some(("approved", AMOUNT, 0)),
        "authorized" => Some(("approved", 0, 0)),
        _ => None,
    };
    let Some((kept, captured, refunded, calls)) = world.sandbox(order).await else {
        assert_eq!(expected, None, "{told}");
        return;
    };
    assert_eq!((kept.as_str(), captured, refunded), expected.unwrap_or(("voided", 0, 0)), "{told}");
    assert!(calls <= 1, "authorized once: {told}");
}

/// Each command when the provider has answered the one before, as the saga waits for its replies.
async fn assert_each_answered(world: &World, before: &[&'static str], permutation: &[&'static str]) {
    let order = OrderId::generate();
    let (mut state, mut replies) = ("", Vec::new());
    for command in before.iter().chain(permutation) {
        let verdict = say(world, order, command).await;
        if let Some((next, reply)) = follow(state, command) {
            assert!(matches!(verdict, Verdict::Done), "{command} in {permutation:?}: {verdict:?}");
            state = next;
            replies.push(reply);
        } else {
            let out_of_turn = matches!(verdict, Verdict::Reject { class: "out_of_turn", .. });
            assert!(out_of_turn, "{command} in {permutation:?}: {verdict:?}");
        }
        if !state.is_empty() {
            assert_eq!(world.settled(order).await, state, "{command} in {permutation:?}");
        }
    }
    assert_eq!(world.told(order, replies.len()).await, replies, "{permutation:?}");
    assert_balanced(world, order, state, &format!("{permutation:?}")).await;
}

#[tokio::test]
async fn every_permutation_of_capture_and_refund_moves_the_money_once() {
    let world = World::new("pay_perm_capture").await;
    world.start_worker();
    for permutation in permutations(&["capture", "refund", "capture", "refund"]) {
        assert_each_answered(&world, &["authorize"], &permutation).await;
    }
}

#[tokio::test]
async fn every_permutation_of_all_four_commands_balances() {
    let world = World::new("pay_perm_all").await;
    world.start_worker();
    for permutation in permutations(&["authorize", "void", "capture", "refund"]) {
        assert_each_answered(&world, &[], &permutation).await;
    }
}

/// Nobody waits for a reply: a refund is refused while its capture is under way, or done after it, and never half.
#[tokio::test]
async fn every_permutation_of_capture_and_refund_in_a_hurry_balances() {
    let world = World::new("pay_perm_hurry").await;
    world.start_worker();
    for permutation in permutations(&["capture", "refund", "capture", "refund"]) {
        let order = OrderId::generate();
        say(&world, order, "authorize").await;
        assert_eq!(world.settled(order).await, "authorized");
        let mut refunded = false;
        for command in &permutation {
            let is_done = matches!(say(&world, order, command).await, Verdict::Done);
            assert!(is_done || *command == "refund", "{permutation:?}");
            refunded |= is_done && *command == "refund";
        }
        let state = if refunded { "refunded" } else { "captured" };
        assert_eq!(world.settled(order).await, state, "{permutation:?}");
        assert_balanced(&world, order, state, &format!("{permutation:?}")).await;
    }
}
