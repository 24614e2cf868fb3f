//! The hops of an order, in its order, and a system of which only one process runs at a time.
//!
//! Processes that wait for their turn are frozen (SIGSTOP), not stopped: so none has its start within the measured time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sqlx::PgPool;
use waybill_bench::system::System;
use waybill_testkit::Process;

/// How often is looked whether a hop is through.
const POLL: Duration = Duration::from_millis(200);
/// Longest time without anything new before a hop is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(90);

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Orders,
    Inventory,
    Payments,
    Relay,
}

/// What one process does for every order of a turn, without any other.
#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) name: &'static str,
    pub(crate) who: Who,
    /// Messages it appends to its outbox by order; the relay: messages it publishes by order. 0: it only ends sagas.
    pub(crate) messages: i64,
    /// Whether the order is not CONFIRMED, and its event not published, before it.
    pub(crate) until_confirmed: bool,
}

const fn hop(name: &'static str, who: Who, messages: i64, until_confirmed: bool) -> Hop {
    Hop { name, who, messages, until_confirmed }
}

/// After `place`, the way of an order that ends well.
pub(crate) const PLACED: [Hop; 16] = [
    hop("relay: OrderPlaced, ReserveStock", Who::Relay, 2, true),
    hop("inventory: reserve", Who::Inventory, 1, true),
    hop("relay: StockReserved", Who::Relay, 1, true),
    hop("orders: authorize next", Who::Orders, 1, true),
    hop("relay: AuthorizePayment", Who::Relay, 1, true),
    hop("payments: authorize, worker too", Who::Payments, 1, true),
    hop("relay: PaymentAuthorized", Who::Relay, 1, true),
    hop("orders: confirm", Who::Orders, 2, true),
    hop("relay: OrderConfirmed, CapturePayment", Who::Relay, 2, true),
    hop("payments: capture, worker too", Who::Payments, 1, false),
    hop("relay: PaymentCaptured", Who::Relay, 1, false),
    hop("orders: commit stock next", Who::Orders, 1, false),
    hop("relay: CommitStock", Who::Relay, 1, false),
    hop("inventory: commit", Who::Inventory, 1, false),
    hop("relay: StockCommitted", Who::Relay, 1, false),
    hop("orders: end", Who::Orders, 0, false),
];

/// The processes of a system by whose turn it is.
pub(crate) struct Stages<'a> {
    system: &'a System,
    client: reqwest::Client,
}

/// How far everybody is: messages appended by each service, messages published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Far {
    orders: i64,
    inventory: i64,
    payments: i64,
    published: i64,
}

impl<'a> Stages<'a> {
    pub(crate) fn of(system: &'a System) -> Self {
        Self { system, client: reqwest::Client::new() }
    }

    pub(crate) async fn freeze(&self, who: Who) {
        self.process(who).sigstop().await;
    }

    pub(crate) async fn thaw(&self, who: Who) {
        self.process(who).sigcont().await;
    }

    /// Waits until nothing is left to do, with everybody awake: sagas ended, messages published.
    pub(crate) async fn quiet(&self) -> Result<Far> {
        self.system.settle().await?;
        self.until("sagas to end", async || Ok((self.running().await?, 0))).await?;
        self.until("everything to be published", async || {
            let far = self.far().await?;
            Ok((far.orders + far.inventory + far.payments, far.published))
        })
        .await?;
        self.far().await
    }

    /// Waits until this hop is through for so many orders, counted from `from`.
    pub(crate) async fn through(&self, hop: &Hop, orders: i64, from: &mut Far) -> Result<()> {
        let more = hop.messages * orders;
        if hop.messages == 0 {
            return self.until(hop.name, async || Ok((self.running().await?, 0))).await;
        }
        *from.of(hop.who) += more;
        let aim = *from.of(hop.who);
        self.until(hop.name, async || Ok((aim, self.far_of(hop.who, aim).await?))).await
    }

    /// Waits until the second number has come to the first.
    async fn until(&self, what: &str, mut look: impl AsyncFnMut() -> Result<(i64, i64)>) -> Result<()> {
        let (mut moved, mut last) = (Instant::now(), (i64::MIN, i64::MIN));
        loop {
            let now = look().await?;
            if now.0 <= now.1 {
                return Ok(());
            }
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            ensure!(
                moved.elapsed() < STALL_TIMEOUT,
                "{what}: {} of {} and nothing new for {STALL_TIMEOUT:?}",
                now.1,
                now.0
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn far(&self) -> Result<Far> {
        Ok(Far {
            orders: self.far_of(Who::Orders, 0).await?,
            inventory: self.far_of(Who::Inventory, 0).await?,
            payments: self.far_of(Who::Payments, 0).await?,
            published: self.far_of(Who::Relay, 0).await?,
        })
    }

    /// Of one alone: the others may be frozen and not answer. Exact from `aim` on.
    async fn far_of(&self, who: Who, aim: i64) -> Result<i64> {
        match who {
            Who::Relay => self.published().await,
            Who::Orders => appended(&self.system.orders.database.pool, aim).await,
            Who::Inventory => appended(&self.system.inventory.database.pool, aim).await,
            Who::Payments => appended(&self.system.payments.database.pool, aim).await,
        }
    }

    /// Messages that the relay has had acknowledged since it was started.
    async fn published(&self) -> Result<i64> {
        let url = format!("{}/metrics", self.system.relay.url);
        let text = self.client.get(url).send().await.context("asking the relay")?.text().await;
        let text = text.context("reading the relay's metrics")?;
        let lines = text.lines().filter(|line| line.starts_with("outbox_relay_published_rows_total"));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum())
    }

    async fn running(&self) -> Result<i64> {
        sqlx::query_scalar("select count(*) from saga_instances where status <> 'completed'")
            .fetch_one(&self.system.orders.database.pool)
            .await
            .context("asking for sagas")
    }

    fn process(&self, who: Who) -> &Process {
        match who {
            Who::Orders => &self.system.orders.process,
            Who::Inventory => &self.system.inventory.process,
            Who::Payments => &self.system.payments.process,
            Who::Relay => &self.system.relay,
        }
    }
}

impl Far {
    /// So many messages more stand in the outbox of orders.
    pub(crate) fn placed(&mut self, messages: i64) {
        self.orders += messages;
    }

    fn of(&mut self, who: Who) -> &mut i64 {
        match who {
            Who::Orders => &mut self.orders,
            Who::Inventory => &mut self.inventory,
            Who::Payments => &mut self.payments,
            Who::Relay => &mut self.published,
        }
    }
}

/// Rows of an outbox. While the last number drawn is below `aim` it stands for them: counting costs what is measured.
async fn appended(pool: &PgPool, aim: i64) -> Result<i64> {
    let drawn: i64 = sqlx::query_scalar(
        "select coalesce(pg_sequence_last_value(pg_get_serial_sequence('outbox', 'id')::regclass), 0)",
    )
    .fetch_one(pool)
    .await
    .context("asking an outbox for its last number")?;
    if drawn < aim {
        return Ok(drawn);
    }
    sqlx::query_scalar("select count(*) from outbox").fetch_one(pool).await.context("counting an outbox")
}
