//! Sagas that are really stuck, because what they must have done fails again and again: an operator looks, mends the cause,
//! and ends each with another verb of `waybillctl`; then every promise holds.

use std::time::Duration;

use serde_json::Value;
use sqlx::AssertSqlSafe;
use waybill_testkit::polling::eventually_named;

use crate::invariants;
use crate::journal::Accepted;
use crate::shop::Shop;
use crate::system::{Service, Special, System};

/// Sagas that are soon stuck.
const SETTINGS: [(&str, &str); 2] =
    [("WAYBILL_ORDERS_STEP_DEADLINE_MS", "1000"), ("WAYBILL_ORDERS_RETRY_ATTEMPTS_MAX", "2")];
/// Every compensation fails, however often it is sent.
const FAULTS: &str = "ReleaseStock:reject:100";
const WAIT: Duration = Duration::from_secs(150);

impl System {
    /// Runs `waybillctl`, which must succeed, and returns what it wrote.
    pub(crate) async fn done(&self, arguments: &[&str]) -> String {
        let (code, said) = self.operator(arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    }

    /// The items that a verb lists as JSON.
    async fn listed(&self, arguments: &[&str]) -> Vec<Value> {
        let said = self.done(&[arguments, &["--json"]].concat()).await;
        let json = said.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        json.unwrap_or_else(|| panic!("{said}"))["items"].as_array().unwrap().clone()
    }

    /// Does it with `--apply`, after the plan has changed nothing.
    async fn changed(&self, arguments: &[&str], reason: &str) -> String {
        let plan = self.done(arguments).await;
        assert!(plan.contains("--apply"), "{plan}");
        self.done(&[arguments, &["--apply", "--reason", reason]].concat()).await
    }
}

/// An order whose payment is declined, and whose stock can not be given back.
async fn stuck(system: &System, shop: &Shop<'_>) -> String {
    let id = shop.order(&[("tea", 1)], "tok_decline").await;
    system.place_order_saga_becomes(&id, "stuck").await;
    id
}

/// `dead_letters_open` of inventory, as Prometheus reads it.
async fn open_letters(system: &System) -> Option<i64> {
    let metrics =
        reqwest::get(format!("{}/metrics", system.inventory.url)).await.unwrap().text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("dead_letters_open{group=\"inventory\"} "));
    line.and_then(|count| count.parse().ok())
}

async fn told_open(system: &System, count: i64) {
    eventually_named("the metric of open dead letters", WAIT, async || {
        (open_letters(system).await == Some(count)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stuck_sagas_are_retried_skipped_and_abandoned_by_an_operator() {
    let special = Special {
        of_service: vec![(Service::Inventory, "WAYBILL_FAULTS", FAULTS.to_owned())],
        ..Special::default()
    };
    let mut system = System::start_special("e2e_stuck", &SETTINGS, special).await;
    let shop = Shop::new(&system);
    shop.product("tea", 1_250, 100).await;
    let [retried, skipped, abandoned] =
        [stuck(&system, &shop).await, stuck(&system, &shop).await, stuck(&system, &shop).await];
    looked_at(&system, [&retried, &skipped, &abandoned]).await;
    waits(&system, 3).await;
    another_letter_is_seen(&system).await;
    let accepted = shop.accepted();
    // The cause is mended; nothing moves by itself.
    system.without_specials(Service::Inventory).await;
    assert_eq!(system.listed(&["saga", "list", "--state", "stuck"]).await.len(), 3);

    // The saga sends its command once more, which waits behind the dead letter, until that is given up.
    system.changed(&["saga", "retry", "place-order", &retried], "the fault is mended").await;
    let discard = ["dead-letters", "discard", "--correlation-id"];
    system.changed(&[&discard[..], &[retried.as_str()]].concat(), "the saga sends another").await;
    system.place_order_saga_becomes(&retried, "compensated").await;

    // The saga ends as if the stock were given back; the replay does give it back.
    system.changed(&["saga", "skip", "place-order", &skipped], "given back by a replay").await;
    system.place_order_saga_becomes(&skipped, "compensated").await;
    let replay = ["dead-letters", "replay", "--correlation-id", &skipped, "--apply", "--reason", "mended"];
    system.done(&replay).await;

    system.changed(&["saga", "abandon", "place-order", &abandoned], "seen to by hand").await;
    system.place_order_saga_becomes(&abandoned, "abandoned").await;
    system.changed(&[&discard[..], &[abandoned.as_str()]].concat(), "what is held behind it does it").await;

    ended(&system, &accepted, [&retried, &skipped, &abandoned]).await;
}

/// A dead letter that is not what its topic shows.
async fn another_letter_is_seen(system: &System) {
    let pool = &system.inventory_db.pool;
    for (change, back) in [
        ("payload = payload || '\\x00'", "payload = substr(payload, 1, length(payload) - 1)"),
        ("key = key || '\\x00'", "key = substr(key, 1, length(key) - 1)"),
    ] {
        let write = |set: &str| AssertSqlSafe(format!("update dead_letters set {set} where state = 'open'"));
        sqlx::query(write(change)).execute(pool).await.unwrap();
        system.verify().await.seen_by("dead letters", change);
        sqlx::query(write(back)).execute(pool).await.unwrap();
    }
}

/// No promise is broken while somebody has to look: `waybillctl verify` says what waits for whom.
async fn waits(system: &System, count: u64) {
    let verified = system.verify().await;
    assert_eq!(verified.code, Some(0), "{}", verified.output);
    for what in ["stuck sagas", "open dead letters", "blocked keys"] {
        assert_eq!(verified.report["waits_for_operator"][what], count, "{what}: {}", verified.output);
    }
}

/// Everything that an operator looks at before he does something.
async fn looked_at(system: &System, orders: [&String; 3]) {
    let stuck = system.listed(&["saga", "list", "--state", "stuck"]).await;
    assert_eq!(stuck.len(), 3, "{stuck:?}");
    for order in orders {
        let saga = stuck.iter().find(|saga| saga["key"] == **order).unwrap_or_else(|| panic!("{order}"));
        assert!(saga["stuck_why"].is_string(), "{saga}");
        let shown = system.done(&["saga", "show", "place-order", order]).await;
        assert!(shown.contains("stuck because") && shown.contains("status          stuck"), "{shown}");
        let parked = system.done(&["parked", "show", "inventory", order]).await;
        assert!(parked.contains("ReleaseStock"), "what the saga sent again is held: {parked}");
    }
    let letters = system.listed(&["dead-letters", "list", "--group", "inventory"]).await;
    assert_eq!(letters.len(), 3, "one a key: {letters:?}");
    told_open(system, 3).await;
}

async fn ended(system: &System, accepted: &[Accepted], orders: [&String; 3]) {
    let [available, held] = [
        "select available from stock where sku = 'tea'",
        "select (select count(*) from parked_keys) + (select count(*) from held_messages)",
    ];
    eventually_named("all stock to be back and no key to wait", WAIT, async || {
        let pool = &system.inventory_db.pool;
        let available: i64 = sqlx::query_scalar(available).fetch_one(pool).await.unwrap();
        let held: i64 = sqlx::query_scalar(held).fetch_one(pool).await.unwrap();
        ((available, held) == (100, 0)).then_some(())
    })
    .await;
    assert!(system.listed(&["saga", "list", "--state", "stuck"]).await.is_empty());
    let states = [("discarded", 2), ("resolved", 1), ("open", 0)];
    for (state, count) in states {
        let letters = system.listed(&["dead-letters", "list", "--state", state]).await;
        assert_eq!(letters.len(), count, "{state}: {letters:?}");
    }
    told_open(system, 0).await;
    let audit = system.listed(&["audit", "list"]).await;
    let of = |action: &str| audit.iter().filter(|entry| entry["action"] == action).count();
    let actions = ["sagas.retry", "sagas.skip", "sagas.abandon", "dead_letters.discard", "replays.create"];
    assert_eq!(actions.map(of), [1, 1, 1, 2, 1], "{audit:?}");
    assert!(audit.iter().all(|entry| entry["subject"] == "on-call"), "{audit:?}");
    for (order, words) in orders.into_iter().zip(["retry", "skip", "abandon"]) {
        let log = system.done(&["saga", "show", "place-order", order]).await;
        assert!(log.to_lowercase().contains(words), "{words} is in the saga's log: {log}");
    }
    invariants::hold_beside(system, accepted, 3).await;
    // One of the orders belongs to the operator who abandoned its saga: it is told, not judged.
    let verified = system.verify().await;
    assert_eq!(verified.code, Some(0), "{}", verified.output);
    assert!(verified.output.contains("orders whose saga an operator abandoned"), "{}", verified.output);
}
