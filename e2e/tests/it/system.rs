//! A whole system of its own: three databases, prefixed topics, three services and a relay as processes.

use std::time::Duration;

use waybill_testkit::process::ProcessBuilder;
use waybill_testkit::{Process, TestDatabase, TestTopics, Tokens, kafka_bootstrap};

/// Longest wait for a process to be ready: debug builds on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) struct System {
    // Processes first: they are dropped (killed) before the databases and topics they use.
    pub(crate) orders: Process,
    pub(crate) inventory: Process,
    pub(crate) payments: Process,
    pub(crate) relay: Process,
    pub(crate) tokens: Tokens,
    pub(crate) topics: TestTopics,
    pub(crate) orders_db: TestDatabase,
    pub(crate) inventory_db: TestDatabase,
    pub(crate) payments_db: TestDatabase,
}

impl System {
    /// Starts everything and waits until all of it is ready.
    pub(crate) async fn start(hint: &str) -> Self {
        let topics = TestTopics::new();
        topics_apply(&topics.prefix).await;
        let tokens = Tokens::new();
        let orders_db = TestDatabase::create(&format!("{hint}_orders")).await;
        let inventory_db = TestDatabase::create(&format!("{hint}_inventory")).await;
        let payments_db = TestDatabase::create(&format!("{hint}_payments")).await;
        let service = |name: &str, database: &TestDatabase| {
            common(Process::named(name), &topics.prefix)
                .env("DATABASE_URL", database.url.as_str())
                .env("WAYBILL_JWKS", tokens.jwks_path().to_str().unwrap())
                .spawn()
        };
        let orders = service("waybill-orders", &orders_db);
        let inventory = service("waybill-inventory", &inventory_db);
        let payments = service("waybill-payments", &payments_db);
        let databases =
            [("orders", &orders_db), ("inventory", &inventory_db), ("payments", &payments_db)]
                .map(|(name, database)| format!("{name}={}", database.url));
        let relay = common(Process::named("outbox-relay"), &topics.prefix)
            .env("OUTBOX_RELAY_DATABASES", databases.join(","))
            .spawn();
        let mut system =
            Self { orders, inventory, payments, relay, tokens, topics, orders_db, inventory_db, payments_db };
        for process in [&mut system.orders, &mut system.inventory, &mut system.payments, &mut system.relay] {
            process.wait_ready(READY_TIMEOUT).await;
        }
        system
    }

    /// Starts a process again after it was killed and waits until it is ready.
    pub(crate) async fn restart(process: &mut Process) {
        process.restart();
        process.wait_ready(READY_TIMEOUT).await;
    }
}

fn common(builder: ProcessBuilder, prefix: &str) -> ProcessBuilder {
    builder.env("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap()).env("WAYBILL_TOPIC_PREFIX", prefix)
}

/// Makes the manifest's topics as an operator would.
async fn topics_apply(prefix: &str) {
    let apply = common(Process::named("waybillctl"), prefix).without_http().arg("topics").arg("apply");
    let mut process = apply.spawn();
    let code = process.wait_exit(READY_TIMEOUT).await;
    assert_eq!(code, Some(0), "waybillctl topics apply: {}", process.output());
}
