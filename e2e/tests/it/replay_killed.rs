//! Five thousand dead letters of seven hundred keys replayed, the service's process killed half-way with SIGKILL: each is
//! handled once, each key's in its order.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use uuid::Uuid;
use waybill_testkit::polling::eventually_named;

use crate::system::{Service, Special, System};

const LETTERS: usize = 5_000;
const KEYS: usize = 700;
/// Handled until the process is killed: it is in the middle of its largest steps then.
const KILLED_AFTER: i64 = 1_500;
/// Records on their way to the broker at once, each of another key.
const IN_FLIGHT: usize = 200;
/// Longest wait for each part: a debug build on a busy machine.
const PART_TIMEOUT: Duration = Duration::from_secs(240);
/// A frame that every version reads, and the order in it.
const GOLDEN: &str = include_str!("../../../schemas/golden/inventory/ReserveStock.6.json");
/// The first appearance of every command is rejected; a key goes on without it, so that all become dead letters.
const SETTINGS: [(&str, &str); 2] =
    [("WAYBILL_FAULTS", "ReserveStock:reject:1"), ("WAYBILL_RETRY_EXHAUSTED", "skip")];

/// A system whose inventory hears commands that no order of it has given.
struct Rig(System);

impl Rig {
    async fn start() -> Self {
        let of_inventory = |(name, value): (&'static str, &str)| (Service::Inventory, name, value.to_owned());
        let of_service = SETTINGS.into_iter().map(of_inventory).collect();
        let special = Special { of_service, ..Special::default() };
        Self(System::start_special("e2e_replay_killed", &[], special).await)
    }

    /// What `waybillctl ARGUMENTS --json` answers.
    async fn operator(&self, arguments: &[&str]) -> Value {
        let (code, output) = self.0.operator(&[arguments, &["--json"]].concat()).await;
        assert_eq!(code, Some(0), "{arguments:?}: {output}");
        output.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{output}"))
    }

    /// Every promise holds but one: the reservations are of no order, which is what was put in. All of them are seen.
    async fn holds_but_for_the_orders(&self) {
        let verified = self.0.verify().await;
        let checks = verified.report["checks"].as_array().unwrap_or_else(|| panic!("{}", verified.output));
        for check in checks {
            let expected = if check["name"] == "books" { KEYS } else { 0 };
            assert_eq!(check["violations"], json!(expected), "{}", verified.output);
        }
        let examples = checks.iter().filter_map(|check| check["examples"].as_array()).flatten();
        for example in examples {
            assert!(example.as_str().unwrap().ends_with("there is no such order"), "{example}");
        }
        assert_eq!(verified.report["waits_for_operator"], json!({}), "{}", verified.output);
    }

    /// Stock of the frame's products: enough for one reservation of each order, and for no second.
    async fn stock_up(&self) {
        for (sku, pieces) in [("TEA-GREEN-100", 2 * KEYS), ("CUP_WHITE.1", KEYS)] {
            let product = json!({"sku": sku, "name": sku, "unit_price_minor": 100, "currency": "EUR"});
            self.post("/api/v1/products", &product).await;
            self.post(&format!("/api/v1/stock/{sku}/receipts"), &json!({"quantity": pieces})).await;
        }
    }

    async fn post(&self, path: &str, body: &Value) {
        let post = reqwest::Client::new().post(format!("{}{path}", self.0.inventory.url));
        let post = post.bearer_auth(self.0.tokens.token("staff", "admin"));
        let answer =
            post.header("Idempotency-Key", Uuid::now_v7().to_string()).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    async fn count(&self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(&self.0.inventory_db.pool).await.unwrap()
    }

    /// Waits until inventory tells of so many replays that run.
    async fn replays_running(&self, replays: u64) {
        let line = format!("replays_running {replays}");
        eventually_named(&line, PART_TIMEOUT, async || {
            let metrics = reqwest::get(format!("{}/metrics", self.0.inventory.url)).await.ok()?;
            metrics.text().await.ok()?.lines().any(|told| told == line).then_some(())
        })
        .await;
    }

    async fn until(&self, what: &str, question: &'static str, least: i64) {
        let reached = async || (self.count(question).await >= least).then_some(());
        eventually_named(what, PART_TIMEOUT, reached).await;
    }

    /// Commands to reserve, the same order's again and again; their ids by order, in the order in which they lie.
    async fn command(&self) -> BTreeMap<String, Vec<String>> {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let frame = unhex(golden["cases"][0]["frame"].as_str().unwrap());
        let named = golden["cases"][0]["value"]["order_id"].as_str().unwrap().as_bytes().to_vec();
        let place = frame.windows(named.len()).position(|part| part == named).unwrap();
        let orders: Vec<String> = (0..KEYS).map(|_| Uuid::now_v7().to_string()).collect();
        let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for round in 0..LETTERS.div_ceil(KEYS) {
            let now = &orders[..KEYS.min(LETTERS - round * KEYS)];
            let send = |order: &String| {
                let (id, order) = (Uuid::now_v7().to_string(), order.clone());
                said.entry(order.clone()).or_default().push(id.clone());
                let mut frame = frame.clone();
                frame[place..place + order.len()].copy_from_slice(order.as_bytes());
                async move { self.send(&order, &id, round + 1, &frame).await }
            };
            // One key's are never on their way together: the next round begins when all of this one have arrived.
            let sends: Vec<_> = now.iter().map(send).collect();
            stream::iter(sends).buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
        }
        said
    }

    async fn send(&self, order: &str, id: &str, sequence: usize, frame: &[u8]) {
        let sequence = sequence.to_string();
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "/elsewhere"),
            ("ce_type", "ReserveStock"),
            ("ce_time", "2026-05-04T10:00:00.000000Z"),
            ("ce_subject", order),
            ("ce_correlationid", order),
            ("ce_sequence", &sequence),
            ("content-type", "application/avro"),
        ];
        let headers = headers.map(|(name, value)| (name, value.as_bytes()));
        self.0.topics.produce("inventory.commands", Some(order.as_bytes()), &headers, Some(frame)).await;
    }

    /// The replies in the order in which they were said: order, its version, the command they answer.
    async fn replies(&self) -> BTreeMap<String, Vec<(i64, String)>> {
        let rows: Vec<(String, i64, String)> = sqlx::query_as(
            "select convert_from(key, 'utf8'), (headers->>'ce_sequence')::bigint, headers->>'ce_causationid'
             from outbox where headers->>'ce_type' in ('StockReserved', 'StockRejected') order by id",
        )
        .fetch_all(&self.0.inventory_db.pool)
        .await
        .unwrap();
        let mut replies: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
        for (order, version, cause) in rows {
            replies.entry(order).or_default().push((version, cause));
        }
        replies
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

const OPEN: &str = "select count(*) from dead_letters where state = 'open'";
const HANDLED: &str = "select count(*) from dead_letters where state = 'resolved'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_on_after_its_process_was_killed() {
    let mut rig = Rig::start().await;
    rig.stock_up().await;
    let said = rig.command().await;
    rig.until("all to be dead letters", OPEN, LETTERS as i64).await;
    rig.replays_running(0).await;

    let replay =
        ["dead-letters", "replay", "--all", "--rate", "1000", "--detach", "--apply", "--reason", "drill"];
    let made = rig.operator(&replay).await;
    assert_eq!(made["items"][0]["total"], json!(LETTERS), "{made}");
    rig.replays_running(1).await;
    rig.until("a part to be handled", HANDLED, KILLED_AFTER).await;
    rig.0.inventory.kill9().await;
    let handled = rig.count(HANDLED).await;
    let left = "select count(*) from replay_items where state in ('pending', 'sent')";
    let (left, on_their_way) =
        (rig.count(left).await, rig.count("select count(*) from replay_items where state = 'sent'").await);
    println!("killed with {handled} handled, {left} without an outcome, {on_their_way} of them sent");
    assert!(left > 0, "killed half-way");

    System::restart(&mut rig.0.inventory).await;
    rig.until("all to be handled", HANDLED, LETTERS as i64).await;
    let ended = async || {
        let shown = rig.operator(&["dead-letters", "replay", "list"]).await;
        (shown["items"][0]["state"] == "finished").then(|| shown["items"][0].clone())
    };
    let ended = eventually_named("the end of the replay", PART_TIMEOUT, ended).await;
    assert_eq!((&ended["resolved"], &ended["failed"]), (&json!(LETTERS), &json!(0)), "{ended}");
    rig.replays_running(0).await;

    let replies = rig.replies().await;
    assert_eq!(replies.len(), KEYS);
    for (order, ids) in &said {
        let expected: Vec<(i64, String)> = (1..).zip(ids.iter().cloned()).collect();
        assert_eq!(replies[order], expected, "the replies of {order}");
    }
    assert_eq!(rig.count("select coalesce(sum(reserved), 0)::bigint from stock").await, 3 * KEYS as i64);
    assert_eq!(rig.count("select coalesce(sum(available), 0)::bigint from stock").await, 0);
    assert_eq!(rig.count("select count(*) from parked_keys").await, 0);
    rig.holds_but_for_the_orders().await;
}
