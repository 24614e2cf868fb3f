//! A whole system of its own: three databases, prefixed topics, three services and a relay as processes.

use std::time::Duration;

use serde_json::Value;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::process::ProcessBuilder;
use waybill_testkit::{OwnKafka, OwnPostgres, Process, TestDatabase, TestTopics, Tokens};

/// Longest wait for a process to be ready: debug builds on a busy machine.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(150);
/// Longest wait for a saga's status: its commands are tried again meanwhile.
const SAGA_TIMEOUT: Duration = Duration::from_secs(150);

/// One of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Orders,
    Inventory,
    Payments,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Orders, Self::Inventory, Self::Payments];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Payments => "payments",
        }
    }
}

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
    settings: Vec<(&'static str, &'static str)>,
    special: Special,
}

/// What is different about a system.
#[derive(Default)]
pub(crate) struct Special {
    /// Servers of its own, which it may stop and kill; else everybody's.
    pub(crate) servers: Option<Servers>,
    /// More variables for a service.
    pub(crate) of_service: Vec<(Service, &'static str, String)>,
}

pub(crate) struct Servers {
    pub(crate) postgres: OwnPostgres,
    pub(crate) kafka: OwnKafka,
}

impl Special {
    /// A system on servers of its own.
    pub(crate) async fn own_servers() -> Self {
        let (postgres, kafka) = tokio::join!(OwnPostgres::start(), OwnKafka::builder().start());
        Self { servers: Some(Servers { postgres, kafka }), ..Self::default() }
    }

    fn topics(&self) -> TestTopics {
        self.servers.as_ref().map_or_else(TestTopics::new, |own| TestTopics::on(own.kafka.bootstrap()))
    }

    async fn database(&self, hint: &str) -> TestDatabase {
        match &self.servers {
            Some(own) => TestDatabase::create_on(&own.postgres.url("postgres"), hint).await,
            None => TestDatabase::create(hint).await,
        }
    }
}

impl System {
    /// Starts everything and waits until all of it is ready.
    pub(crate) async fn start(hint: &str) -> Self {
        Self::start_with(hint, &[]).await
    }

    /// The same with more settings (environment variables) for every process.
    pub(crate) async fn start_with(hint: &str, settings: &[(&'static str, &'static str)]) -> Self {
        Self::start_special(hint, settings, Special::default()).await
    }

    /// The same, and special.
    pub(crate) async fn start_special(
        hint: &str,
        settings: &[(&'static str, &'static str)],
        special: Special,
    ) -> Self {
        let topics = special.topics();
        topics_apply(&topics).await;
        let tokens = Tokens::new();
        let orders_db = special.database(&format!("{hint}_orders")).await;
        let inventory_db = special.database(&format!("{hint}_inventory")).await;
        let payments_db = special.database(&format!("{hint}_payments")).await;
        let databases = [&orders_db, &inventory_db, &payments_db];
        let [orders, inventory, payments] = Service::ALL.map(|service| {
            let database = databases[service as usize];
            service_builder(service, &topics, &tokens, database, settings, &special).spawn()
        });
        let relay = relay_builder(&topics, databases, settings).spawn();
        let settings = settings.to_vec();
        let mut system = Self {
            orders,
            inventory,
            payments,
            relay,
            tokens,
            topics,
            orders_db,
            inventory_db,
            payments_db,
            settings,
            special,
        };
        system.all_ready().await;
        system
    }

    /// Waits until every process is ready.
    ///
    /// # Panics
    /// When one of them has ended.
    pub(crate) async fn all_ready(&mut self) {
        for process in [&mut self.orders, &mut self.inventory, &mut self.payments, &mut self.relay] {
            process.wait_ready(READY_TIMEOUT).await;
        }
    }

    /// Starts a process again after it was killed and waits until it is ready.
    pub(crate) async fn restart(process: &mut Process) {
        // One that still runs has the port.
        process.kill9().await;
        process.restart();
        process.wait_ready(READY_TIMEOUT).await;
    }

    /// Another process of the service: one more member of its group.
    pub(crate) fn member(&self, service: Service) -> Process {
        self.member_builder(service).spawn()
    }

    /// The same; it kills itself where it comes to this place (`PLACE`, or `PLACE:TIME` for a later time).
    pub(crate) fn member_that_crashes(&self, service: Service, place: &str) -> Process {
        self.member_builder(service).env("WAYBILL_FAILPOINT", place).spawn()
    }

    fn member_builder(&self, service: Service) -> ProcessBuilder {
        let database = self.database(service);
        service_builder(service, &self.topics, &self.tokens, database, &self.settings, &self.special)
    }

    /// Runs `waybillctl verify` once. The system may be in motion.
    pub(crate) async fn verify(&self) -> Verified {
        Verified::by(self.verifying(&["--json"])).await
    }

    /// The same for people: its standard output and its standard error.
    pub(crate) async fn verify_as_text(&self) -> String {
        Verified::by(self.verifying(&[])).await.output
    }

    /// `waybillctl verify` at work.
    pub(crate) fn verifying(&self, arguments: &[&str]) -> Process {
        let named = named(self.databases()).join(",");
        // With the settings: one of them may be another prefix.
        let builder = common(Process::named("waybillctl"), &self.topics, &self.settings).without_http();
        let builder = builder.arg("verify").env("WAYBILL_VERIFY_DATABASES", named);
        arguments.iter().fold(builder, |builder, argument| builder.arg(*argument)).spawn()
    }

    /// Waits until the saga that places this order has this status.
    pub(crate) async fn place_order_saga_becomes(&self, id: &str, wanted: &str) {
        let what = format!("the saga of order {id} to be {wanted}");
        eventually_named(&what, SAGA_TIMEOUT, async || {
            let status: Option<String> = sqlx::query_scalar(
                "select status from saga_instances where saga = 'place-order' and key = $1::uuid",
            )
            .bind(id)
            .fetch_optional(&self.orders_db.pool)
            .await
            .unwrap();
            (status.as_deref() == Some(wanted)).then_some(())
        })
        .await;
    }

    /// Runs `waybillctl` as an operator does; the exit code and everything that was written.
    pub(crate) async fn operator(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let services =
            [("orders", &self.orders), ("inventory", &self.inventory), ("payments", &self.payments)];
        let urls = services.map(|(name, process)| format!("{name}={}", process.operator_url)).join(",");
        let builder = common(Process::named("waybillctl"), &self.topics, &[]).without_http();
        let builder = builder.env("WAYBILL_OPERATOR_URLS", urls);
        let builder = builder.env("WAYBILL_TOKEN", self.tokens.token("on-call", "operator"));
        let mut process = arguments.iter().fold(builder, |builder, argument| builder.arg(*argument)).spawn();
        let code = process.wait_exit(READY_TIMEOUT).await;
        (code, process.output())
    }

    /// Starts a service again without what was special about it, on another address.
    pub(crate) async fn without_specials(&mut self, service: Service) {
        self.special.of_service.retain(|(whose, ..)| *whose != service);
        self.process(service).terminate().await;
        let mut process = self.member(service);
        process.wait_ready(READY_TIMEOUT).await;
        *self.process(service) = process;
    }

    /// A second relay on the same databases.
    pub(crate) fn second_relay(&self) -> Process {
        relay_builder(&self.topics, self.databases(), &self.settings).spawn()
    }

    pub(crate) fn process(&mut self, service: Service) -> &mut Process {
        match service {
            Service::Orders => &mut self.orders,
            Service::Inventory => &mut self.inventory,
            Service::Payments => &mut self.payments,
        }
    }

    /// The process that the service began with.
    pub(crate) fn process_of(&self, service: Service) -> &Process {
        match service {
            Service::Orders => &self.orders,
            Service::Inventory => &self.inventory,
            Service::Payments => &self.payments,
        }
    }

    /// The servers of a system that has its own.
    pub(crate) fn servers(&mut self) -> &mut Servers {
        self.special.servers.as_mut().expect("the test asked for servers of its own")
    }

    /// The brokers of a system that has its own servers.
    pub(crate) fn own_kafka(&self) -> &OwnKafka {
        &self.special.servers.as_ref().expect("the test asked for servers of its own").kafka
    }

    pub(crate) fn database(&self, service: Service) -> &TestDatabase {
        self.databases()[service as usize]
    }

    /// In the order of [`Service::ALL`].
    pub(crate) fn databases(&self) -> [&TestDatabase; 3] {
        [&self.orders_db, &self.inventory_db, &self.payments_db]
    }
}

/// What `waybillctl verify` said.
pub(crate) struct Verified {
    /// 0: all promises hold; 3: some are broken; 1: it could not look.
    pub(crate) code: Option<i32>,
    /// The report; null when there is none.
    pub(crate) report: Value,
    /// Everything that was written, for a failure's message.
    pub(crate) output: String,
}

impl Verified {
    /// When the process has ended.
    pub(crate) async fn by(mut process: Process) -> Self {
        let code = process.wait_exit(READY_TIMEOUT).await;
        let output = process.output();
        let report = output.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null);
        Self { code, report, output }
    }

    /// This check has found what was planted.
    ///
    /// # Panics
    /// When it has not.
    pub(crate) fn seen_by(&self, check: &str, what: &str) {
        assert_eq!(self.code, Some(3), "not seen: {what}: {}", self.output);
        let checks = self.report["checks"].as_array().unwrap().iter();
        let violated = checks.filter(|found| found["violations"] != 0);
        let violated: Vec<&str> = violated.filter_map(|found| found["name"].as_str()).collect();
        assert!(
            violated.contains(&check),
            "{what}: not seen by {check} but by {violated:?}: {}",
            self.output
        );
    }
}

fn service_builder(
    service: Service,
    topics: &TestTopics,
    tokens: &Tokens,
    database: &TestDatabase,
    settings: &[(&'static str, &'static str)],
    special: &Special,
) -> ProcessBuilder {
    let builder = common(Process::named(&format!("waybill-{}", service.name())), topics, settings)
        .env("DATABASE_URL", database.url.as_str())
        .env("WAYBILL_JWKS", tokens.jwks_path().to_str().unwrap());
    let own = special.of_service.iter().filter(|(whose, ..)| *whose == service);
    own.fold(builder, |builder, (_, name, value)| builder.env(name, value.as_str()))
}

fn relay_builder(
    topics: &TestTopics,
    databases: [&TestDatabase; 3],
    settings: &[(&'static str, &'static str)],
) -> ProcessBuilder {
    let named = named(databases).join(",");
    common(Process::named("outbox-relay"), topics, settings).env("OUTBOX_RELAY_DATABASES", named)
}

/// `NAME=URL` of each.
fn named(databases: [&TestDatabase; 3]) -> [String; 3] {
    Service::ALL.map(|service| format!("{}={}", service.name(), databases[service as usize].url))
}

fn common(
    builder: ProcessBuilder,
    topics: &TestTopics,
    settings: &[(&'static str, &'static str)],
) -> ProcessBuilder {
    let builder = builder
        .env("KAFKA_BOOTSTRAP_SERVERS", topics.bootstrap.as_str())
        .env("WAYBILL_TOPIC_PREFIX", topics.prefix.as_str());
    settings.iter().fold(builder, |builder, (name, value)| builder.env(name, *value))
}

/// Makes the manifest's topics as an operator would.
pub(crate) async fn topics_apply(topics: &TestTopics) {
    let apply = common(Process::named("waybillctl"), topics, &[]).without_http().arg("topics").arg("apply");
    let mut process = apply.spawn();
    let code = process.wait_exit(READY_TIMEOUT).await;
    assert_eq!(code, Some(0), "waybillctl topics apply: {}", process.output());
    let names = MANIFEST.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    topics.adopt(names);
}

/// Tells what `topics apply` makes, to be deleted at the end.
const MANIFEST: &str = include_str!("../../../schemas/topics.toml");
