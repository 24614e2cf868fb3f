//! A whole system of its own: databases, prefixed topics, three services and a relay as processes.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use waybill_testkit::process::ProcessBuilder;
use waybill_testkit::{Process, TestDatabase, TestTopics, Tokens, kafka_bootstrap, postgres_url};

use crate::cpu::{self, Watched, Whole};
use crate::topics;
use crate::wire::Meter;

/// Longest wait for a process to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
/// How often the databases are asked whether all orders have ended.
const SETTLE_POLL: Duration = Duration::from_millis(250);
/// Longest wait for that while nothing moves.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A service with its database, and the forwarder that counts its round trips.
pub struct Service {
    /// Its short name.
    pub name: &'static str,
    /// The process; killed before its database goes.
    pub process: Process,
    /// Its database.
    pub database: TestDatabase,
    /// Its way to the database while single orders are measured.
    pub meter: Meter,
}

/// Everything; processes end, databases and topics go with this value.
pub struct System {
    /// The relay, for all three databases.
    pub relay: Process,
    /// orders.
    pub orders: Service,
    /// inventory.
    pub inventory: Service,
    /// payments.
    pub payments: Service,
    /// The topics' prefix.
    pub topics: TestTopics,
    /// A key for access tokens.
    pub tokens: Tokens,
    /// A database for looking at the server, so that looking is not counted.
    pub monitor: TestDatabase,
    variables: Vec<(String, String)>,
}

impl System {
    /// Starts everything, each service's way to Postgres metered, and waits until it is ready.
    ///
    /// # Errors
    /// When a port or a topic can not be had.
    ///
    /// # Panics
    /// As the test kit does: a server is away, a program is not built or does not get ready.
    pub async fn start(log_filter: &str) -> Result<Self> {
        Self::start_with(log_filter, &[]).await
    }

    /// The same with more variables for every process.
    ///
    /// # Errors
    /// As [`Self::start`].
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_with(log_filter: &str, more: &[(&str, &str)]) -> Result<Self> {
        let all = [("RUST_LOG", log_filter)].into_iter().chain(more.iter().copied());
        let variables: Vec<_> = all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let topics = TestTopics::new();
        topics_apply(&topics).await?;
        let tokens = Tokens::new();
        let monitor = TestDatabase::create("bench_monitor").await;
        let orders = Service::start("orders", &topics, &tokens, &variables).await?;
        let inventory = Service::start("inventory", &topics, &tokens, &variables).await?;
        let payments = Service::start("payments", &topics, &tokens, &variables).await?;
        let databases = [&orders, &inventory, &payments];
        let databases = databases.map(|service| format!("{}={}", service.name, service.database.url));
        let relay = common(Process::named("outbox-relay"), &topics.prefix, &variables)
            .env("OUTBOX_RELAY_DATABASES", databases.join(","))
            .spawn();
        let mut system = Self { relay, orders, inventory, payments, topics, tokens, monitor, variables };
        system.wait_ready().await;
        Ok(system)
    }

    /// The services in the order of the flow.
    #[must_use]
    pub fn services(&self) -> [&Service; 3] {
        [&self.orders, &self.inventory, &self.payments]
    }

    /// Starts the services again without meters: forwarding costs time that is not theirs.
    ///
    /// # Errors
    /// When one does not stop cleanly.
    pub async fn unmeter(&mut self) -> Result<()> {
        let (prefix, jwks, variables) = (&self.topics.prefix, jwks(&self.tokens)?, &self.variables);
        for service in [&mut self.orders, &mut self.inventory, &mut self.payments] {
            let code = service.process.terminate().await;
            ensure!(code == Some(0), "{} did not stop cleanly:\n{}", service.name, service.process.output());
            service.process = spawn(service.name, &service.database.url, prefix, &jwks, variables);
        }
        self.wait_ready().await;
        Ok(())
    }

    /// Stops the relay.
    ///
    /// # Errors
    /// When it does not stop cleanly.
    pub async fn relay_stop(&mut self) -> Result<()> {
        let code = self.relay.terminate().await;
        ensure!(code == Some(0), "the relay did not stop cleanly:\n{}", self.relay.output());
        Ok(())
    }

    /// Starts the relay again.
    pub async fn relay_start(&mut self) {
        self.relay.restart();
        self.relay.wait_ready(READY_TIMEOUT).await;
    }

    async fn wait_ready(&mut self) {
        let services = [&mut self.orders, &mut self.inventory, &mut self.payments];
        let processes = services.map(|service| &mut service.process);
        for process in processes.into_iter().chain([&mut self.relay]) {
            process.wait_ready(READY_TIMEOUT).await;
        }
    }

    /// Waits until every order has ended, is paid and shipped.
    ///
    /// # Errors
    /// When nothing moves for a minute.
    pub async fn settle(&self) -> Result<()> {
        let mut moved = Instant::now();
        let mut last = None;
        loop {
            let open = self.unfinished().await?;
            if open == (0, 0, 0) {
                return Ok(());
            }
            if last != Some(open) {
                (last, moved) = (Some(open), Instant::now());
            }
            if moved.elapsed() > SETTLE_TIMEOUT {
                let (orders, pieces, payments) = open;
                bail!(
                    "nothing moved for {SETTLE_TIMEOUT:?}: {orders} orders not ended, {pieces} pieces still reserved, \
                     {payments} payments not captured"
                );
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }

    /// Orders that have not ended, pieces reserved, payments not captured.
    async fn unfinished(&self) -> Result<(i64, i64, i64)> {
        let orders = "select count(*) from orders where status in ('PENDING', 'CANCELLING')";
        let orders = sqlx::query_scalar(orders).fetch_one(&self.orders.database.pool);
        let stock = "select coalesce(sum(reserved), 0)::bigint from stock";
        let stock = sqlx::query_scalar(stock).fetch_one(&self.inventory.database.pool);
        let payments = "select count(*) from payments where state <> 'captured'";
        let payments = sqlx::query_scalar(payments).fetch_one(&self.payments.database.pool);
        let (orders, stock, payments) =
            tokio::try_join!(orders, stock, payments).context("asking who has ended")?;
        Ok((orders, stock, payments))
    }

    /// The processes of this run; servers elsewhere are not seen.
    #[must_use]
    pub fn watched(&self) -> Watched {
        let mut watched = Watched::default();
        for service in self.services() {
            watched.add(service.name, service.process.pid(), Whole::Alone);
        }
        watched.add("relay", self.relay.pid(), Whole::Alone);
        watch_servers(&mut watched);
        watched.add("spine", Some(std::process::id()), Whole::Alone);
        watched
    }
}

/// Postgres and Kafka, where they run on this machine.
pub fn watch_servers(watched: &mut Watched) {
    let postgres = PgConnectOptions::from_str(&postgres_url()).ok();
    let postgres = postgres.and_then(|options| cpu::listener(options.get_port()));
    watched.add("postgres", postgres, Whole::WithChildren);
    let broker = kafka_bootstrap();
    let port = broker.rsplit(':').next().and_then(|port| port.parse().ok());
    watched.add("kafka", port.and_then(cpu::listener), Whole::Alone);
}

impl Service {
    async fn start(
        name: &'static str,
        topics: &TestTopics,
        tokens: &Tokens,
        variables: &[(String, String)],
    ) -> Result<Self> {
        let database = TestDatabase::create(&format!("bench_{name}")).await;
        let options = PgConnectOptions::from_str(&database.url).context("WAYBILL_POSTGRES_URL")?;
        let meter = Meter::before(format!("{}:{}", options.get_host(), options.get_port())).await?;
        let through = options.host(&meter.address.ip().to_string()).port(meter.address.port());
        let url = through.to_url_lossy().to_string();
        let process = spawn(name, &url, &topics.prefix, &jwks(tokens)?, variables);
        Ok(Self { name, process, database, meter })
    }
}

fn spawn(name: &str, database: &str, prefix: &str, jwks: &str, variables: &[(String, String)]) -> Process {
    common(Process::named(&format!("waybill-{name}")), prefix, variables)
        .env("DATABASE_URL", database)
        .env("WAYBILL_JWKS", jwks)
        .spawn()
}

fn common(builder: ProcessBuilder, prefix: &str, variables: &[(String, String)]) -> ProcessBuilder {
    let builder =
        builder.env("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap()).env("WAYBILL_TOPIC_PREFIX", prefix);
    variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value.as_str()))
}

fn jwks(tokens: &Tokens) -> Result<String> {
    Ok(tokens.jwks_path().to_str().context("the folder for temporary files has no readable name")?.to_owned())
}

/// Makes the manifest's topics as an operator would, and sees to it that they go at the end.
///
/// # Errors
/// When they can not be made.
pub async fn topics_apply(topics: &TestTopics) -> Result<()> {
    let waybillctl = common(Process::named("waybillctl"), &topics.prefix, &[]).without_http();
    let mut apply = waybillctl.arg("topics").arg("apply").spawn();
    let code = apply.wait_exit(READY_TIMEOUT).await;
    ensure!(code == Some(0), "waybillctl topics apply:\n{}", apply.output());
    let prefix = topics.prefix.clone();
    let names =
        tokio::task::spawn_blocking(move || topics::names(&prefix)).await.context("asking for topics")??;
    topics.adopt(names.iter().filter_map(|name| name.strip_prefix(&topics.prefix)));
    Ok(())
}
