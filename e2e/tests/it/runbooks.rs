//! Every command of docs/runbooks, run in its order against a started system with the real tools.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use waybill_testkit::polling::eventually_named;
use waybill_testkit::{Process, TestTopics};

use crate::desk::{Desk, Said};
use crate::invariants;
use crate::shop::Shop;
use crate::system::{Service, Special, System};

/// Those that this test follows.
const FOLLOWED: [&str; 4] = ["inspecting-events.md", "relay-lag.md", "stuck-saga.md", "dead-letters.md"];
/// What starts and stops its system itself is followed where `cargo xtask` is at hand.
const DRILL: &str = "replay-drill.md";
const DRILL_TEST: &str = include_str!("../../../xtask/tests/it/drill.rs");
/// How a command begins, where it stands in the text.
const PROGRAMS: [&str; 7] = ["waybillctl ", "kafka-", "kcat ", "psql ", "curl ", "kill ", "cargo "];
/// No prefix, for the runbooks name topics and groups as they are; sagas that are soon stuck; every capture rejected once,
/// what gives stock back tried again once, after long enough for its head to be lost meanwhile.
const SETTINGS: [(&str, &str); 5] = [
    ("WAYBILL_TOPIC_PREFIX", ""),
    ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "1000"),
    ("WAYBILL_ORDERS_RETRY_ATTEMPTS_MAX", "2"),
    ("WAYBILL_FAULTS", "CapturePayment:reject:1,ReleaseStock:retry:1"),
    ("WAYBILL_RETRY_DELAYS_MS", "20000,20000,20000"),
];
/// Where the head of a key that waits for its stock lies.
const RETRIES: &str = "inventory.commands.inventory.retry.1";
/// Longest wait for what an order leads to.
const STEP_TIMEOUT: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_runbooks_works() {
    let special = Special::own_servers().await;
    let kafka = special.servers.as_ref().unwrap().kafka.bootstrap();
    apply_topics(&kafka).await;
    let mut system = System::start_special("e2e_runbooks", &SETTINGS, special).await;
    Shop::new(&system).product("tea", 1_250, 100).await;
    let desk = Desk::new(&system, &kafka);
    events_and_lag(&desk, &Shop::new(&system)).await;
    stuck_sagas(&desk, &Shop::new(&system)).await;
    dead_letters(&desk, &mut system).await;
}

async fn events_and_lag(desk: &Desk, shop: &Shop<'_>) {
    let order = given_up(shop).await;
    mirrored(desk, &order).await;
    let said = follow(desk, FOLLOWED[0], &order, &[]).await;
    said.contains(&[
        "ce_type=CapturePayment",
        "OrderConfirmed",
        &order,
        "orders.events",
        "LAG",
        "asked: orders",
    ]);
    let said = follow(desk, FOLLOWED[1], &order, &[]).await;
    said.contains(&["outbox_relay_lease_held", "unpublished", "open_for", "retention.ms = -1", "1 drifted"]);
    replayed(desk, &order).await;
    shop.payment_becomes(&order, "captured").await;
}

/// Three that are stuck: one is mended, one skips its step, one is abandoned.
async fn stuck_sagas(desk: &Desk, shop: &Shop<'_>) {
    let orders = [given_up(shop).await, given_up(shop).await, given_up(shop).await];
    for order in &orders {
        shop.system.place_order_saga_becomes(order, "stuck").await;
    }
    let [mended, skipped, abandoned] = &orders;
    let turns = [("saga skip", skipped.as_str()), ("saga abandon", abandoned.as_str())];
    let said = follow(desk, FOLLOWED[2], mended, &turns).await;
    said.contains(&[mended, skipped, abandoned, "stuck", "would skip", "would abandon"]);
    shop.payment_becomes(mended, "captured").await;
    for (order, end) in [(mended, "completed"), (skipped, "completed"), (abandoned, "abandoned")] {
        shop.system.place_order_saga_becomes(order, end).await;
    }
    // Nobody has done it by hand here.
    replayed(desk, skipped).await;
    for order in [skipped, abandoned] {
        shop.payment_becomes(order, "captured").await;
    }
    invariants::hold_whatever_failed(shop.system, &shop.accepted()).await;
}

/// It gives the oldest letter up; what that would have done, the saga's next command does, which was held behind it.
async fn dead_letters(desk: &Desk, system: &mut System) {
    let without_head = head_lost(system).await;
    let shop = Shop::new(system);
    let discarded = given_up(&shop).await;
    let order = given_up(&shop).await;
    follow(desk, FOLLOWED[3], &order, &[]).await.contains(&[
        "CapturePayment",
        "on_purpose",
        "the cause is mended",
        "nothing is changed",
        "attempt: 1 -> 2",
        "1 dead letters discarded",
        "it was the first payment",
        "would resume replay",
        "its head was lost",
    ]);
    shop.payment_becomes(&order, "captured").await;
    let letters = "select count(*) from dead_letters where state = 'discarded'";
    let letters: i64 = sqlx::query_scalar(letters).fetch_one(&system.payments_db.pool).await.unwrap();
    assert_eq!(letters, 1);
    shop.payment_becomes(&discarded, "captured").await;
    for (order, end) in [(&discarded, "completed"), (&order, "completed"), (&without_head, "compensated")] {
        system.place_order_saga_becomes(order, end).await;
    }
    invariants::hold_whatever_failed(system, &shop.accepted()).await;
}

/// An order whose stock is not given back, because the head of its key is gone from its topic.
async fn head_lost(system: &mut System) -> String {
    let order = Shop::new(system).order(&[("tea", 1)], "tok_decline").await;
    system.place_order_saga_becomes(&order, "stuck").await;
    let mut topics = TestTopics::on(&*system.topics.bootstrap);
    topics.prefix.clear();
    topics.read_all(RETRIES, |records| !records.is_empty(), STEP_TIMEOUT).await;
    topics.delete_records(RETRIES).await;
    // Whoever has read it already has forgotten it too.
    System::restart(system.process(Service::Inventory)).await;
    order
}

/// Every dead letter of this order and others, as `waybillctl` sends them again.
async fn replayed(desk: &Desk, order: &str) {
    let replay =
        "waybillctl dead-letters replay --all --apply --reason 'the next runbook begins without them'";
    desk.run("a replay of all", replay, order).await;
}

/// Both console tools show every header of a dead letter's mirror as text.
async fn mirrored(desk: &Desk, order: &str) {
    const TOPIC: &str = "payments.commands.payments.dlq";
    let kcat =
        format!("kcat -b \"$KAFKA_BOOTSTRAP_SERVERS\" -C -t {TOPIC} -o beginning -c 1 -q -f 'k=%k h=%h\\n'");
    let console = format!(
        "kafka-console-consumer.sh --bootstrap-server \"$KAFKA_BOOTSTRAP_SERVERS\" --topic {TOPIC} --from-beginning \
         --max-messages 1 --timeout-ms 60000 --formatter-property print.key=true \
         --formatter-property print.headers=true --formatter-property print.value=false"
    );
    let whole = desk.run("kcat", &kcat, order).await;
    let pairs = whole.text.split_once("h=").unwrap().1.trim();
    // The message's own text may hold commas; the names do not.
    let header = |name: &str| {
        let found = pairs.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{name} is not among {pairs}")).to_owned()
    };
    let number = |name: &str| header(name).parse::<i64>().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(header("dlq_topic"), "payments.commands");
    assert_eq!((header("dlq_group"), header("dlq_key")), ("payments".to_owned(), order.to_owned()));
    assert_eq!((header("dlq_error_class"), number("dlq_attempts")), ("on_purpose".to_owned(), 1));
    assert!((0..6).contains(&number("dlq_partition")) && number("dlq_offset") >= 0, "{pairs}");
    assert!(!header("dlq_error_message").is_empty() && header("ce_type") == "CapturePayment", "{pairs}");
    assert_eq!(header("traceparent").len(), 55, "{pairs}");
    for name in ["dlq_first_failed_at", "dlq_last_failed_at"] {
        let time = header(name);
        assert!(time.starts_with("20") && time.ends_with('Z'), "{name}: {time}");
    }
    let told = desk.run("kafka-console-consumer", &console, order).await;
    for name in [
        "dlq_id",
        "dlq_topic",
        "dlq_partition",
        "dlq_offset",
        "dlq_key",
        "dlq_group",
        "dlq_error_class",
        "dlq_attempts",
        "dlq_first_failed_at",
        "dlq_last_failed_at",
        "traceparent",
    ] {
        told.contains(&[&format!("{name}:{}", header(name))]);
    }
    told.contains(&["dlq_error_message:", order]);
}

/// A command that is not run would be one that nobody has ever tried: none stands outside a block, no block outside a
/// runbook, no runbook outside the tests.
#[test]
fn no_command_of_the_runbooks_escapes_the_tests() {
    let readme = read("README.md");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        names.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    assert!(names.remove("README.md"));
    let tested: BTreeSet<String> = FOLLOWED.iter().chain([&DRILL]).map(|name| (*name).to_owned()).collect();
    assert_eq!(names, tested, "a runbook that no test follows, or one that is gone");
    assert!(DRILL_TEST.contains(DRILL), "nobody follows {DRILL}");
    let mut run = String::new();
    for name in &names {
        assert!(readme.contains(&format!("]({name})")), "{name} is not in the list");
        let blocks = blocks(&read(name));
        assert!(!blocks.is_empty(), "{name} has no command to test");
        run += &blocks.concat();
    }
    for block in blocks(&readme) {
        assert!(run.contains(&block), "README.md: no runbook has this command: {block}");
    }
    for name in names.iter().map(String::as_str).chain(["README.md"]) {
        for command in outside_of_blocks(&read(name)) {
            assert!(
                run.contains(&command),
                "{name}: no block has this command, and no test runs it: {command}"
            );
        }
    }
}

#[test]
fn commands_are_found_inside_and_outside_of_blocks() {
    let text = "See `waybillctl verify`, and `a file`:\n\n```sh\nls\nls -l\n```\n\n    rm it\n\n```text\nkill\n```\n";
    assert_eq!(blocks(text), ["ls\nls -l\n"]);
    assert_eq!(outside_of_blocks(text), ["waybillctl verify", "rm it", "kill"]);
}

/// An order whose capture is a dead letter.
async fn given_up(shop: &Shop<'_>) -> String {
    let id = shop.order(&[("tea", 1)], "tok_approve").await;
    shop.becomes(&id, "CONFIRMED").await;
    let letters = "select count(*) from dead_letters where convert_from(key, 'utf8') = $1 and state = 'open'";
    eventually_named("the dead letter", STEP_TIMEOUT, async || {
        let query = sqlx::query_scalar::<_, i64>(letters).bind(&id);
        (query.fetch_one(&shop.system.payments_db.pool).await.unwrap() > 0).then_some(())
    })
    .await;
    id
}

async fn apply_topics(kafka: &str) {
    let apply = Process::named("waybillctl").without_http().arg("topics").arg("apply");
    let mut apply = apply.env("KAFKA_BOOTSTRAP_SERVERS", kafka).env("WAYBILL_TOPIC_PREFIX", "").spawn();
    assert_eq!(apply.wait_exit(STEP_TIMEOUT).await, Some(0), "{}", apply.output());
}

/// Runs every block of this runbook.
async fn follow(desk: &Desk, runbook: &str, order: &str, turns: &[(&str, &str)]) -> Said {
    desk.follow(runbook, &blocks(&read(runbook)), order, turns).await
}

/// The blocks that are marked `sh`.
fn blocks(runbook: &str) -> Vec<String> {
    let fenced = parts(runbook).filter(|(fence, _)| *fence == Some("sh"));
    fenced.map(|(_, lines)| lines.iter().map(|line| format!("{line}\n")).collect()).collect()
}

/// What looks like a command and is in no block that is marked `sh`: a line that is set off, or a program's name in the text
/// with more behind it.
fn outside_of_blocks(runbook: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (fence, lines) in parts(runbook).filter(|(fence, _)| *fence != Some("sh")) {
        for line in lines {
            match line.strip_prefix("    ") {
                Some(command) => found.push(command.to_owned()),
                None if fence.is_some() => found.push(line.to_owned()),
                None => {
                    let spans = line.split('`').skip(1).step_by(2);
                    let commands =
                        spans.filter(|span| PROGRAMS.iter().any(|program| span.starts_with(program)));
                    found.extend(commands.map(str::to_owned));
                }
            }
        }
    }
    found
}

/// A runbook's text in parts: what each is fenced as, and its lines.
fn parts(runbook: &str) -> impl Iterator<Item = (Option<&str>, Vec<&str>)> {
    // Text and fenced lines take turns.
    runbook.split("```").enumerate().map(|(number, part)| {
        let fenced = number % 2 == 1;
        let mut lines = part.lines();
        let fence = if fenced { lines.next() } else { None };
        (fence, lines.collect())
    })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}
