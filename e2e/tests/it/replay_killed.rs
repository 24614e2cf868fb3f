//! Five thousand dead letters of seven hundred keys in three failure groups replayed, each group by a replay of its own, the
//! service's process killed half-way with SIGKILL: each is handled once, each key's in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use uuid::Uuid;
use waybill_testkit::polling::eventually_named;

use crate::system::{Service, Special, System};

const LETTERS: usize = 5_000;
const KEYS: usize = 700;
/// Of the keys, those whose stock is to be reserved: of some at once, of the others by a replay.
const RESERVING: usize = 500;
/// Handled until the process is killed: it is in the middle of its largest steps then.
const KILLED_AFTER: i64 = 1_500;
/// Records on their way to the broker at once, each of another key.
const IN_FLIGHT: usize = 200;
/// Longest wait for each part: a debug build on a busy machine.
const PART_TIMEOUT: Duration = Duration::from_secs(240);
/// Frames that every version reads, and the order in each.
const GOLDEN: [(&str, &str); 3] = [
    ("ReserveStock", include_str!("../../../schemas/golden/inventory/ReserveStock.6.json")),
    ("CommitStock", include_str!("../../../schemas/golden/inventory/CommitStock.8.json")),
    ("ReleaseStock", include_str!("../../../schemas/golden/inventory/ReleaseStock.7.json")),
];
/// The first appearance of commands is rejected, of those to reserve stock a share; a key goes on without it, so that all
/// become dead letters.
const SETTINGS: [(&str, &str); 2] = [
    ("WAYBILL_FAULTS", "ReserveStock:reject:1:70,CommitStock:reject:1,ReleaseStock:reject:1"),
    ("WAYBILL_RETRY_EXHAUSTED", "skip"),
];

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

    /// Starts a replay of each failure group, and tells how many there are.
    async fn replay_each_group(&self) -> u64 {
        let groups = self.operator(&["dead-letters", "groups"]).await["items"].as_array().unwrap().clone();
        let kinds: BTreeSet<&str> = groups.iter().map(|group| group["kind"].as_str().unwrap()).collect();
        assert_eq!((groups.len(), kinds.len()), (GOLDEN.len(), GOLDEN.len()), "{groups:?}");
        let mut total = 0;
        for group in &groups {
            let id = group["failure_group"].as_str().unwrap();
            let replay = ["dead-letters", "replay", "--failure-group", id, "--rate", "1000", "--detach"];
            let made = self.operator(&[&replay[..], &["--apply", "--reason", "drill"]].concat()).await;
            assert_eq!(made["items"][0]["total"], group["count"], "{made}");
            total += made["items"][0]["total"].as_u64().unwrap();
        }
        assert_eq!(total, LETTERS as u64);
        groups.len() as u64
    }

    /// Every promise holds but two: the reservations are of no order, and nobody has said the commands, which is what was put
    /// in. All of them are seen: of the commands those that were handled at once, for of dead letters it is not asked.
    async fn holds_but_for_what_was_put_in(&self, handled_at_once: i64) {
        let verified = self.0.verify().await;
        let checks = verified.report["checks"].as_array().unwrap_or_else(|| panic!("{}", verified.output));
        for check in checks {
            let (expected, why) = match check["name"].as_str().unwrap() {
                "books" => (KEYS as i64, "there is no such order"),
                "inbox origins" => (handled_at_once, "which nobody said"),
                _ => (0, ""),
            };
            assert_eq!(check["violations"], json!(expected), "{}", verified.output);
            let mut examples = check["examples"].as_array().unwrap().iter();
            assert!(examples.all(|example| example.as_str().unwrap().ends_with(why)), "{check}");
        }
        assert_eq!(verified.report["waits_for_operator"], json!({}), "{}", verified.output);
    }

    /// Stock of the frame's products: enough for one reservation of each order, and for no second.
    async fn stock_up(&self) {
        for (sku, pieces) in [("TEA-GREEN-100", 2 * RESERVING), ("CUP_WHITE.1", RESERVING)] {
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

    async fn column(&self, question: &'static str) -> BTreeSet<String> {
        let rows: Vec<String> =
            sqlx::query_scalar(question).fetch_all(&self.0.inventory_db.pool).await.unwrap();
        rows.into_iter().collect()
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

    /// The same order's commands again and again, of one kind; their ids by order, in the order in which they lie. Only
    /// an order whose stock was reserved at once has another before: that is what is then committed.
    async fn command(&self) -> BTreeMap<String, Vec<String>> {
        let mut said = BTreeMap::new();
        let orders: Vec<String> = (0..KEYS).map(|_| Uuid::now_v7().to_string()).collect();
        let (reserving, releasing) = orders.split_at(RESERVING);
        self.round(reserving.iter().map(|order| (order.as_str(), "ReserveStock")), &mut said).await;
        self.until("every first command to be decided", DECIDED, RESERVING as i64).await;
        let committing: BTreeSet<String> = self.column("select order_id::text from reservations").await;
        assert!(!committing.is_empty() && committing.len() < RESERVING, "a share: {}", committing.len());
        let kind = |order: &str| if committing.contains(order) { "CommitStock" } else { "ReserveStock" };
        let reserving = reserving.iter().map(|order| (order.as_str(), kind(order)));
        let releasing = releasing.iter().map(|order| (order.as_str(), "ReleaseStock"));
        let all: Vec<(&str, &str)> = reserving.chain(releasing).collect();
        let mut left = LETTERS + committing.len() - RESERVING;
        while left > 0 {
            let now = &all[..KEYS.min(left)];
            self.round(now.iter().copied(), &mut said).await;
            left -= now.len();
        }
        said
    }

    /// One command of each of these orders. One key's are never on their way together: it returns when all have arrived.
    async fn round<'a>(
        &self,
        commands: impl Iterator<Item = (&'a str, &'a str)>,
        said: &mut BTreeMap<String, Vec<String>>,
    ) {
        let send = |(order, kind): (&'a str, &'a str)| {
            let id = Uuid::now_v7().to_string();
            let before = said.entry(order.to_owned()).or_default();
            before.push(id.clone());
            let sequence = before.len();
            async move { self.send(order, kind, &id, sequence).await }
        };
        let sends: Vec<_> = commands.map(send).collect();
        stream::iter(sends).buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
    }

    async fn send(&self, order: &str, kind: &str, id: &str, sequence: usize) {
        let (frame, sequence) = (frame(kind, order), sequence.to_string());
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "/elsewhere"),
            ("ce_type", kind),
            ("ce_time", "2026-05-04T10:00:00.000000Z"),
            ("ce_subject", order),
            ("ce_correlationid", order),
            ("ce_sequence", &sequence),
            ("content-type", "application/avro"),
        ];
        let headers = headers.map(|(name, value)| (name, value.as_bytes()));
        self.0.topics.produce("inventory.commands", Some(order.as_bytes()), &headers, Some(&frame)).await;
    }

    /// The replies in the order in which they were said: order, its version, the command they answer.
    async fn replies(&self) -> BTreeMap<String, Vec<(i64, String)>> {
        let rows: Vec<(String, i64, String)> = sqlx::query_as(
            "select convert_from(key, 'utf8'), (headers->>'ce_sequence')::bigint, headers->>'ce_causationid'
             from outbox where topic like '%inventory.events' and headers->>'ce_causationid' is not null order by id",
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

/// A command of this kind about this order.
fn frame(kind: &str, order: &str) -> Vec<u8> {
    let (_, golden) = GOLDEN.iter().find(|(name, _)| *name == kind).unwrap();
    let golden: Value = serde_json::from_str(golden).unwrap();
    let mut frame = unhex(golden["cases"][0]["frame"].as_str().unwrap());
    let named = golden["cases"][0]["value"]["order_id"].as_str().unwrap().as_bytes();
    let place = frame.windows(named.len()).position(|part| part == named).unwrap();
    frame[place..place + order.len()].copy_from_slice(order.as_bytes());
    frame
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

const OPEN: &str = "select count(*) from dead_letters where state = 'open'";
const DECIDED: &str =
    "select (select count(*) from dead_letters where state = 'open') + (select count(*) from reservations)";
const HANDLED: &str = "select count(*) from dead_letters where state = 'resolved'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_on_after_its_process_was_killed() {
    let mut rig = Rig::start().await;
    rig.stock_up().await;
    let said = rig.command().await;
    rig.until("all to be dead letters", OPEN, LETTERS as i64).await;
    rig.replays_running(0).await;

    let groups = rig.replay_each_group().await;
    rig.replays_running(groups).await;
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
    let ended = eventually_named("the end of the replays", PART_TIMEOUT, async || {
        let shown = rig.operator(&["dead-letters", "replay", "list"]).await;
        let replays = shown["items"].as_array().unwrap().clone();
        replays.iter().all(|replay| replay["state"] == "finished").then_some(replays)
    })
    .await;
    let sum = |name: &str| ended.iter().map(|replay| replay[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(
        (ended.len() as u64, sum("resolved"), sum("failed")),
        (groups, LETTERS as u64, 0),
        "{ended:?}"
    );
    rig.replays_running(0).await;

    let replies = rig.replies().await;
    assert_eq!(replies.len(), KEYS);
    for (order, ids) in &said {
        let expected: Vec<(i64, String)> = (1..).zip(ids.iter().cloned()).collect();
        assert_eq!(replies[order], expected, "the replies of {order}");
    }
    let reserved = rig.count("select count(*) from reservations where state = 'reserved'").await;
    let committed = rig.count("select count(*) from reservations where state = 'committed'").await;
    assert_eq!(reserved + committed, RESERVING as i64);
    assert_eq!(rig.count("select coalesce(sum(reserved), 0)::bigint from stock").await, 3 * reserved);
    assert_eq!(rig.count("select coalesce(sum(available), 0)::bigint from stock").await, 0);
    assert_eq!(rig.count("select count(*) from parked_keys").await, 0);
    rig.holds_but_for_what_was_put_in(committed).await;
}
