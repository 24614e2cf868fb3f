//! Every command of docs/runbooks, run in its order against a started system with the real tools.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::process::binary_path;
use waybill_testkit::{Process, TestDatabase};

use crate::invariants;
use crate::shop::Shop;
use crate::system::{Special, System};

/// No prefix, for the runbooks name topics and groups as they are; sagas that are soon stuck; every capture rejected once.
const SETTINGS: [(&str, &str); 4] = [
    ("WAYBILL_TOPIC_PREFIX", ""),
    ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "1000"),
    ("WAYBILL_ORDERS_RETRY_ATTEMPTS_MAX", "2"),
    ("WAYBILL_FAULTS", "CapturePayment:reject:1"),
];
/// Longest that a runbook may take: each of Kafka's tools starts a Java machine.
const RUNBOOK_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for what an order leads to.
const STEP_TIMEOUT: Duration = Duration::from_secs(150);
/// Kafka's tools by the names of their scripts.
const TOOLS: [(&str, &str); 4] = [
    ("kafka-console-consumer.sh", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-get-offsets.sh", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_runbooks_works() {
    let special = Special::own_servers().await;
    let kafka = special.servers.as_ref().unwrap().kafka.bootstrap();
    apply_topics(&kafka).await;
    let system = System::start_special("e2e_runbooks", &SETTINGS, special).await;
    let shop = Shop::new(&system);
    shop.product("tea", 1_250, 100).await;
    let desk = Desk::new(&system, &kafka);

    // A dead letter each time: replayed by the runbook before the next begins.
    let first = given_up(&shop).await;
    mirrored(&desk, &first).await;
    let said = desk.follow("inspecting-events.md", &first).await;
    said.contains(&[
        "ce_type=CapturePayment",
        "OrderConfirmed",
        &first,
        "orders.events",
        "LAG",
        "asked: orders",
    ]);
    let said = desk.follow("relay-lag.md", &first).await;
    said.contains(&["outbox_relay_lease_held", "unpublished", "open_for"]);
    desk.follow("replay-drill.md", &first).await.contains(&["CapturePayment", "drill"]);
    paid(&shop, &first).await;

    let second = given_up(&shop).await;
    system.place_order_saga_becomes(&second, "stuck").await;
    desk.follow("stuck-saga.md", &second).await.contains(&[&second, "stuck", "would skip", "would abandon"]);
    paid(&shop, &second).await;

    invariants::hold_whatever_failed(&system, &shop.accepted()).await;

    // The last: it gives the oldest letter up, and nobody does by hand here what that would have done.
    given_up(&shop).await;
    let third = given_up(&shop).await;
    desk.follow("dead-letters.md", &third).await.contains(&[
        "CapturePayment",
        "on_purpose",
        "the cause is mended",
        "nothing is changed",
        "attempt: 1 -> 2",
        "1 dead letters discarded",
        "it was the first payment",
        "would resume replay",
    ]);
    paid(&shop, &third).await;
    let discarded = "select count(*) from dead_letters where state = 'discarded'";
    let discarded: i64 = sqlx::query_scalar(discarded).fetch_one(&system.payments_db.pool).await.unwrap();
    assert_eq!(discarded, 1);
    invariants::hold_meanwhile(&system).await;
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

#[test]
fn every_runbook_is_in_the_list() {
    let readme = read("README.md");
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || readme.contains(&format!("]({name})")), "{name} is not in the list");
        assert!(name == "README.md" || !commands(&read(&name)).is_empty(), "{name} has no command to test");
    }
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

async fn paid(shop: &Shop<'_>, id: &str) {
    shop.payment_becomes(id, "captured").await;
}

async fn apply_topics(kafka: &str) {
    let apply = Process::named("waybillctl").without_http().arg("topics").arg("apply");
    let mut apply = apply.env("KAFKA_BOOTSTRAP_SERVERS", kafka).env("WAYBILL_TOPIC_PREFIX", "").spawn();
    assert_eq!(apply.wait_exit(STEP_TIMEOUT).await, Some(0), "{}", apply.output());
}

/// Where an operator sits: the tools on the path, and the variables that docs/runbooks/README.md names.
struct Desk {
    tools: PathBuf,
    variables: BTreeMap<&'static str, String>,
}

impl Desk {
    fn new(system: &System, kafka: &str) -> Self {
        let services =
            [("orders", &system.orders), ("inventory", &system.inventory), ("payments", &system.payments)];
        let operators = services.map(|(name, process)| format!("{name}={}", process.operator_url)).join(",");
        let names = services.map(|(name, _)| name).into_iter().zip(system.databases());
        let named = |(name, database): (&str, &TestDatabase)| format!("{name}={}", database.url);
        let databases = names.map(named).collect::<Vec<_>>().join(",");
        let variables = [
            ("KAFKA_BOOTSTRAP_SERVERS", kafka.to_owned()),
            ("WAYBILL_TOPIC_PREFIX", String::new()),
            ("WAYBILL_OPERATOR_URLS", operators),
            ("OPERATOR_URL", system.orders.operator_url.clone()),
            // It leaves the text as it is.
            ("EDITOR", "true".to_owned()),
            ("WAYBILL_TOKEN", system.tokens.token("on-call", "operator")),
            ("WAYBILL_VERIFY_DATABASES", databases),
            ("ORDERS_DATABASE_URL", system.orders_db.url.clone()),
            ("RELAY_URL", system.relay.url.clone()),
        ];
        Self { tools: tools(), variables: variables.into() }
    }

    /// Runs a runbook's commands, one block after the other in one shell, and returns what they said.
    async fn follow(&self, runbook: &str, order: &str) -> Said {
        let blocks = commands(&read(runbook));
        let numbered = blocks.iter().enumerate();
        let script: String =
            numbered.map(|(number, block)| format!("echo '=== block {}'\n{block}\n", number + 1)).collect();
        self.run(runbook, &script, order).await
    }

    /// Runs commands in one shell, which stops at the first that fails.
    async fn run(&self, runbook: &str, script: &str, order: &str) -> Said {
        let path = format!("{}:{}", self.tools.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &format!("exec 2>&1\nset -euo pipefail\n{script}")])
            .env("PATH", path)
            .env("ORDER", order);
        // What they write into the folder they are in goes with the tools.
        shell.envs(&self.variables).current_dir(&self.tools).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(RUNBOOK_TIMEOUT, shell.output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("{runbook} takes longer than {RUNBOOK_TIMEOUT:?}")).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{runbook}: the last block failed ({}):\n{text}", output.status);
        Said { runbook: runbook.to_owned(), text }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.tools);
    }
}

/// What a runbook's commands printed.
struct Said {
    runbook: String,
    text: String,
}

impl Said {
    fn contains(&self, words: &[&str]) {
        for word in words {
            assert!(self.text.contains(word), "{}: nothing says `{word}`:\n{}", self.runbook, self.text);
        }
    }
}

/// A folder with waybillctl and Kafka's tools under their usual names.
fn tools() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("waybill-runbooks-{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(binary_path("waybillctl"), folder.join("waybillctl")).unwrap();
    for (name, class) in TOOLS {
        let file = folder.join(name);
        let java = "exec java -Xmx256m -XX:TieredStopAtLevel=1 -cp \"$WAYBILL_KAFKA_CLASSPATH\"";
        std::fs::write(&file, format!("#!/bin/sh\n{java} {class} \"$@\"\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// The blocks that are marked `sh`.
fn commands(runbook: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut inside = false;
    for line in runbook.lines() {
        match (inside, line) {
            (false, "```sh") => {
                inside = true;
                blocks.push(String::new());
            }
            (true, "```") => inside = false,
            (true, line) => {
                let block = blocks.last_mut().expect("a block was begun");
                block.push_str(line);
                block.push('\n');
            }
            (false, _) => {}
        }
    }
    blocks
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}
