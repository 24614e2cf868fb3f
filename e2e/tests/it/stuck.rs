//! Sagas that are really stuck, because what they must have done fails again and again: an operator looks, mends the cause,
//! and ends each with another verb of `waybillctl`; then every promise holds.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use waybill_testkit::polling::eventually_named;

use crate::invariants;
use crate::shop::Shop;
use crate::system::{Service, Special, System};

/// Sagas that are soon stuck, and deleted a day after their end.
const SETTINGS: [(&str, &str); 3] = [
    ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "1000"),
    ("WAYBILL_ORDERS_RETRY_ATTEMPTS_MAX", "2"),
    ("WAYBILL_SAGA_RETENTION_DAYS", "1"),
];
const WAIT: Duration = Duration::from_secs(150);

/// A compensation that fails, however often it is sent.
struct Failing {
    command: &'static str,
    service: Service,
    /// With this means of payment an order comes to be taken back.
    payment_token: &'static str,
    /// Of a hundred pieces: those are missing that a saga would have given back which was abandoned before.
    available: i64,
}

const RELEASE: Failing = Failing {
    command: "ReleaseStock",
    service: Service::Inventory,
    payment_token: "tok_decline",
    available: 100,
};
/// The provider answers when nobody waits for it any more.
const VOID: Failing = Failing {
    command: "VoidPayment",
    service: Service::Payments,
    payment_token: "tok_slow_30000",
    available: 99,
};

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

/// An order that is taken back, which can not be done.
async fn stuck(system: &System, shop: &Shop<'_>, failing: &Failing) -> String {
    let id = shop.order(&[("tea", 1)], failing.payment_token).await;
    system.place_order_saga_becomes(&id, "stuck").await;
    id
}

/// Waits until a service tells this, as Prometheus reads it.
async fn told(system: &System, service: Service, line: &str) {
    eventually_named(line, WAIT, async || {
        let metrics = reqwest::get(format!("{}/metrics", system.process_of(service).url)).await.unwrap();
        metrics.text().await.unwrap().lines().any(|told| told == line).then_some(())
    })
    .await;
}

async fn told_open(system: &System, failing: &Failing, count: i64) {
    let line = format!("dead_letters_open{{group=\"{}\"}} {count}", failing.service.name());
    told(system, failing.service, &line).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stuck_sagas_are_retried_skipped_and_abandoned_by_an_operator() {
    mended_by_every_verb("e2e_stuck", &RELEASE).await;
}

/// What is left of the abandoned one is the operator's: `waybillctl verify` knows it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_stuck_at_a_void_are_mended_and_an_abandoned_one_is_never_held_against_its_order() {
    let mut system = mended_by_every_verb("e2e_stuck_void", &VOID).await;
    let old = "update saga_instances set created_at = created_at - interval '3 years', updated_at = updated_at - interval '3 years';
               update orders set updated_at = updated_at - interval '3 years';
               update operator_audit set at = at - interval '3 years'";
    sqlx::raw_sql(old).execute(&system.orders_db.pool).await.unwrap();
    System::restart(&mut system.orders).await;
    eventually_named("old sagas and what was done to them to be forgotten", WAIT, async || {
        let left = "select (select count(*) from saga_instances) + (select count(*) from operator_audit)";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&system.orders_db.pool).await.unwrap();
        (left == 1).then_some(())
    })
    .await;
    told_abandoned(&system).await;
}

async fn mended_by_every_verb(hint: &str, failing: &Failing) -> System {
    let special = Special {
        of_service: vec![(failing.service, "WAYBILL_FAULTS", format!("{}:reject:100", failing.command))],
        ..Special::default()
    };
    let mut system = System::start_special(hint, &SETTINGS, special).await;
    let shop = Shop::new(&system);
    shop.product("tea", 1_250, 100).await;
    let orders = [(); 3].map(|()| stuck(&system, &shop, failing));
    let [retried, skipped, abandoned] = <[String; 3]>::try_from(join_all(orders).await).unwrap();
    looked_at(&system, failing, [&retried, &skipped, &abandoned]).await;
    waits(&system, 3).await;
    another_letter_is_seen(&system, failing.service).await;
    let accepted = shop.accepted();
    // The cause is mended; nothing moves by itself.
    system.without_specials(failing.service).await;
    assert_eq!(system.listed(&["saga", "list", "--state", "stuck"]).await.len(), 3);

    // The saga sends its command once more, which waits behind the dead letter, until that is given up.
    system.changed(&["saga", "retry", "place-order", &retried], "the fault is mended").await;
    let discard = ["dead-letters", "discard", "--correlation-id"];
    system.changed(&[&discard[..], &[retried.as_str()]].concat(), "the saga sends another").await;
    system.place_order_saga_becomes(&retried, "compensated").await;

    // The saga goes on as if it were done; the replay does it.
    system.changed(&["saga", "skip", "place-order", &skipped], "done by a replay").await;
    system.place_order_saga_becomes(&skipped, "compensated").await;
    let replay = ["dead-letters", "replay", "--correlation-id", &skipped, "--apply", "--reason", "mended"];
    system.done(&replay).await;

    system.changed(&["saga", "abandon", "place-order", &abandoned], "seen to by hand").await;
    system.place_order_saga_becomes(&abandoned, "abandoned").await;
    system.changed(&[&discard[..], &[abandoned.as_str()]].concat(), "what is held behind it does it").await;

    ended(&system, failing, [&retried, &skipped, &abandoned]).await;
    invariants::hold_beside(&system, &accepted, 3).await;
    told_abandoned(&system).await;
    system
}

/// A dead letter that is not what its topic shows.
async fn another_letter_is_seen(system: &System, service: Service) {
    let pool = &system.database(service).pool;
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
async fn looked_at(system: &System, failing: &Failing, orders: [&String; 3]) {
    told(system, Service::Orders, "saga_stuck{saga=\"place-order\"} 3").await;
    let group = failing.service.name();
    let stuck = system.listed(&["saga", "list", "--state", "stuck"]).await;
    assert_eq!(stuck.len(), 3, "{stuck:?}");
    for order in orders {
        let saga = stuck.iter().find(|saga| saga["key"] == **order).unwrap_or_else(|| panic!("{order}"));
        assert!(saga["stuck_why"].is_string(), "{saga}");
        let shown = system.done(&["saga", "show", "place-order", order]).await;
        assert!(shown.contains("stuck because") && shown.contains("status          stuck"), "{shown}");
        let parked = system.done(&["parked", "show", group, order]).await;
        assert!(parked.contains(failing.command), "what the saga sent again is held: {parked}");
    }
    let letters = system.listed(&["dead-letters", "list", "--group", group]).await;
    assert_eq!(letters.len(), 3, "one a key: {letters:?}");
    told_open(system, failing, 3).await;
}

async fn ended(system: &System, failing: &Failing, orders: [&String; 3]) {
    let [available, held] = [
        "select available from stock where sku = 'tea'",
        "select (select count(*) from parked_keys) + (select count(*) from held_messages)",
    ];
    eventually_named("stock to be back and no key to wait", WAIT, async || {
        let available: i64 =
            sqlx::query_scalar(available).fetch_one(&system.inventory_db.pool).await.unwrap();
        let held = invariants::count_in_all(system, held).await;
        ((available, held) == (failing.available, 0)).then_some(())
    })
    .await;
    told(system, Service::Orders, "saga_stuck{saga=\"place-order\"} 0").await;
    assert!(system.listed(&["saga", "list", "--state", "stuck"]).await.is_empty());
    let states = [("discarded", 2), ("resolved", 1), ("open", 0)];
    for (state, count) in states {
        let letters = system.listed(&["dead-letters", "list", "--state", state]).await;
        assert_eq!(letters.len(), count, "{state}: {letters:?}");
    }
    told_open(system, failing, 0).await;
    let audit = system.listed(&["audit", "list"]).await;
    let of = |action: &str| audit.iter().filter(|entry| entry["action"] == action).count();
    let actions = ["sagas.retry", "sagas.skip", "sagas.abandon", "dead_letters.discard", "replays.create"];
    assert_eq!(actions.map(of), [1, 1, 1, 2, 1], "{audit:?}");
    assert!(audit.iter().all(|entry| entry["subject"] == "on-call"), "{audit:?}");
    for (order, words) in orders.into_iter().zip(["retry", "skip", "abandon"]) {
        let log = system.done(&["saga", "show", "place-order", order]).await;
        assert!(log.to_lowercase().contains(words), "{words} is in the saga's log: {log}");
    }
}

/// One of the orders belongs to the operator who abandoned its saga: it is told, not judged.
async fn told_abandoned(system: &System) {
    let verified = system.verify().await;
    assert_eq!(verified.code, Some(0), "{}", verified.output);
    assert!(verified.output.contains("orders whose saga an operator abandoned"), "{}", verified.output);
}
