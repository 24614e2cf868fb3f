//! What both begin with: a new database with its tables and a catalogue, and an orders process on it.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sqlx::postgres::PgConnectOptions;
use waybill_bench::cpu::{self, Watched, Whole};
use waybill_bench::system::topics_apply;
use waybill_testkit::{Process, TestDatabase, TestTopics, Tokens, kafka_bootstrap};

use crate::arguments::Arguments;

/// Longest wait for the process to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
/// Products in the catalogue, as in the spine.
const SKUS: i32 = 200;
/// Rows that may wait: the relay is stopped, and that is not what is measured.
const UNPUBLISHED_MAX: &str = "1000000";

/// Topics, for a process that is not ready without them; nothing is sent there.
pub(super) struct Kafka {
    topics: TestTopics,
}

impl Kafka {
    pub(super) async fn with_topics() -> Result<Self> {
        let topics = TestTopics::new();
        topics_apply(&topics).await?;
        Ok(Self { topics })
    }
}

pub(super) struct Ground {
    // Killed before its database goes.
    pub(super) orders: Process,
    pub(super) database: TestDatabase,
    pub(super) tokens: Tokens,
}

impl Ground {
    pub(super) async fn prepare(server: &str, kafka: &Kafka, arguments: &Arguments) -> Result<Self> {
        let database = TestDatabase::create_on(server, "bench_place").await;
        let tokens = Tokens::new();
        let jwks =
            tokens.jwks_path().to_str().context("the folder for temporary files has no readable name")?;
        let mut orders = Process::named("waybill-orders")
            .env("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap())
            .env("WAYBILL_TOPIC_PREFIX", kafka.topics.prefix.as_str())
            .env("RUST_LOG", arguments.log_filter.as_str())
            .env("DATABASE_URL", database.url.as_str())
            .env("WAYBILL_JWKS", jwks)
            .env("WAYBILL_DATABASE_WRITES_MAX", arguments.clients.to_string())
            .env("WAYBILL_OUTBOX_UNPUBLISHED_MAX", UNPUBLISHED_MAX)
            .spawn();
        orders.wait_ready(READY_TIMEOUT).await;
        sqlx::query(
            "insert into catalogue (sku, unit_price_minor, currency, version)
             select 'SKU-' || lpad(n::text, 5, '0'), 100 + n, 'EUR', 1 from generate_series(0, $1 - 1) n",
        )
        .bind(SKUS)
        .execute(&database.pool)
        .await
        .context("filling the catalogue")?;
        Ok(Self { orders, database, tokens })
    }

    /// The products that can be ordered.
    pub(super) fn skus() -> Vec<String> {
        (0..SKUS).map(|number| format!("SKU-{number:05}")).collect()
    }

    /// The database's server and these processes.
    pub(super) fn watched(&self, processes: &[(&'static str, Option<u32>)]) -> Result<Watched> {
        let server = PgConnectOptions::from_str(&self.database.url).context("the database's address")?;
        let mut watched = Watched::default();
        watched.add("postgres", cpu::listener(server.get_port()), Whole::WithChildren);
        processes.iter().for_each(|(name, pid)| watched.add(name, *pid, Whole::Alone));
        Ok(watched)
    }

    /// Ends the process; the database stays.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let code = self.orders.terminate().await;
        ensure!(code == Some(0), "orders did not stop cleanly:\n{}", self.orders.output());
        Ok(())
    }

    /// Each order has all its rows, and there is none beyond.
    pub(super) async fn audit(&self, orders: i64) -> Result<()> {
        let rows: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(
            "select (select count(*) from orders where status = 'PENDING'), (select count(*) from idempotency_keys),
                    (select count(*) from order_lines) / 2, (select count(*) from saga_instances),
                    (select count(*) from saga_log), (select count(*) from outbox) / 2",
        )
        .fetch_one(&self.database.pool)
        .await
        .context("counting what was written")?;
        let wanted = (orders, orders, orders, orders, orders, orders);
        ensure!(
            rows == wanted,
            "orders, keys, pairs of lines, sagas, log entries, pairs of messages: {rows:?} for {orders} orders: no figure"
        );
        Ok(())
    }
}
