//! The place-order endpoint against pgbench that places the same orders one by one over as many connections, in turns; on the disk
//! and with Postgres' data in memory. The relay and the other services are stopped in both.

mod endpoint;
mod ground;
mod sample;
mod statement;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use waybill_bench::costs::real;
use waybill_bench::cpu::Spent;
use waybill_bench::findings::{Aim, Finding, quantile};
use waybill_bench::{pgbench, progress};
use waybill_testkit::{OwnPostgres, postgres_url};

use crate::arguments::Arguments;
use ground::{Ground, Kafka};

/// A folder whose files are in memory.
const MEMORY: &str = "/dev/shm";
/// Percent of pgbench's rate that the endpoint is to reach where a commit waits for the disk.
const DISK_AIM_PERCENT: f64 = 80.0;
/// As [`DISK_AIM_PERCENT`] where it waits for nothing.
const MEMORY_AIM_PERCENT: f64 = 35.0;
/// Seconds of both before each measured time: connections, plans, pages.
const WARM_UP_S: u64 = 1;

/// Measures both on both.
///
/// # Errors
/// When a server or pgbench is missing, or an audit fails.
pub(crate) async fn run(arguments: &Arguments) -> Result<Vec<Finding>> {
    let kafka = Kafka::with_topics().await?;
    let mut findings = compared("disk", DISK_AIM_PERCENT, &postgres_url(), &kafka, arguments).await?;
    progress("starting a PostgreSQL whose data are in memory");
    let memory = OwnPostgres::start_in(Path::new(MEMORY)).await;
    let url = memory.url("postgres");
    findings.extend(compared("memory", MEMORY_AIM_PERCENT, &url, &kafka, arguments).await?);
    Ok(findings)
}

/// The measured time of one side.
struct Turn {
    /// Orders per second.
    per_second: f64,
    /// Processor time per order in milliseconds, by process.
    cpu_ms: BTreeMap<&'static str, f64>,
}

/// Processor time per order in milliseconds, by process.
fn spent_ms(spent: &Spent, orders: f64) -> BTreeMap<&'static str, f64> {
    spent.processes.iter().map(|(name, used)| (*name, 1_000.0 * used.cpu_s / orders)).collect()
}

/// One side's turns.
#[derive(Default)]
struct Side(Vec<Turn>);

impl Side {
    fn per_second(&self) -> f64 {
        quantile(&mut self.0.iter().map(|turn| turn.per_second).collect::<Vec<_>>(), 0.5)
    }

    /// The medians of each process, and of their sums.
    fn cpu(&self, side: &str) -> Vec<Finding> {
        let names = self.0.first().into_iter().flat_map(|turn| turn.cpu_ms.keys().copied());
        let of =
            |name| self.0.iter().map(|turn| turn.cpu_ms.get(name).copied().unwrap_or_default()).collect();
        let mut parts: Vec<(&str, Vec<f64>)> = names.map(|name| (name, of(name))).collect();
        parts.push(("all", self.0.iter().map(|turn| turn.cpu_ms.values().sum()).collect()));
        let told = |(name, mut times): (&str, Vec<f64>)| {
            Finding::told(
                format!("{side}: processor time per order, {name}"),
                quantile(&mut times, 0.5),
                "ms",
            )
        };
        parts.into_iter().map(told).collect()
    }
}

async fn compared(
    place: &str,
    aim_percent: f64,
    server: &str,
    kafka: &Kafka,
    arguments: &Arguments,
) -> Result<Vec<Finding>> {
    let (mut endpoint, mut peer) = (Side::default(), Side::default());
    for run in 1..=arguments.runs {
        let (orders, transactions) =
            (by_endpoint(server, kafka, arguments).await?, by_pgbench(server, kafka, arguments).await?);
        let (rate, peer_rate) = (orders.per_second, transactions.per_second);
        progress(&format!("{place}, run {run}: endpoint {rate:.0} orders/s, pgbench {peer_rate:.0}"));
        endpoint.0.push(orders);
        peer.0.push(transactions);
    }
    let clients = arguments.clients;
    let mut findings = vec![
        Finding::told(
            format!("{place}: orders placed over HTTP, {clients} clients and connections"),
            endpoint.per_second(),
            "/s",
        ),
        Finding::told(
            format!("{place}: pgbench with one order in a statement, {clients} connections"),
            peer.per_second(),
            "/s",
        ),
        Finding::aimed(
            format!("{place}: the endpoint of pgbench"),
            100.0 * endpoint.per_second() / peer.per_second(),
            "%",
            Aim::AtLeast(aim_percent),
        ),
    ];
    findings.extend(endpoint.cpu(&format!("{place}, endpoint")));
    findings.extend(peer.cpu(&format!("{place}, pgbench")));
    Ok(findings)
}

/// One turn of the endpoint, audited.
async fn by_endpoint(server: &str, kafka: &Kafka, arguments: &Arguments) -> Result<Turn> {
    let ground = Ground::prepare(server, kafka, arguments).await?;
    let placed = endpoint::load(&ground, arguments).await?;
    ground.audit(placed.all).await?;
    Ok(placed.turn)
}

/// One turn of pgbench, audited.
async fn by_pgbench(server: &str, kafka: &Kafka, arguments: &Arguments) -> Result<Turn> {
    let pgbench = pgbench::installed()
        .context("pgbench is not installed (Debian: postgresql-client and postgresql)")?;
    let mut ground = Ground::prepare(server, kafka, arguments).await?;
    let sample = sample::take(&ground, arguments).await?;
    ground.stop().await?;
    let script = statement::script()?;
    let variables = sample.variables(sample::HEAD);
    let (clients, session) = (arguments.clients, pgbench::SERVICE_SESSION);
    let turn =
        pgbench::Turn { clients, seconds: WARM_UP_S + arguments.place_s, session, variables: &variables };
    let watched = ground.watched(&[])?;
    // Its sessions and plans are made in the warm-up, as the service's are.
    let (ran, spent) = std::thread::scope(|scope| {
        let spent = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(WARM_UP_S));
            let look = watched.look();
            std::thread::sleep(Duration::from_secs(arguments.place_s));
            watched.look().since(&look)
        });
        let ran = pgbench::run(&pgbench, &ground.database.url, &script, &turn);
        (ran, spent.join())
    });
    let ran = ran?;
    let spent = spent.map_err(|_| anyhow::anyhow!("the processor time could not be read"))?;
    let warm_up = usize::try_from(WARM_UP_S).context("seconds")?;
    let rates = ran.by_second.get(warm_up..).unwrap_or_default();
    anyhow::ensure!(!rates.is_empty(), "pgbench told no rates");
    let per_second = rates.iter().sum::<f64>() / real(i64::try_from(rates.len()).context("seconds")?);
    let mut cpu_ms = spent_ms(&spent, per_second * Duration::from_secs(arguments.place_s).as_secs_f64());
    cpu_ms.insert("pgbench", 1_000.0 * ran.cpu_s / real(ran.transactions));
    ground.audit(1 + ran.transactions).await?;
    Ok(Turn { per_second, cpu_ms })
}
