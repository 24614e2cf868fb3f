//! The place-order endpoint against pgbench that sends the same statement over as many connections, in turns; on the disk
//! and with Postgres' data in memory. The relay and the other services are stopped in both.

mod endpoint;
mod ground;
mod sample;
mod statement;

use std::path::Path;

use anyhow::{Context as _, Result};
use waybill_bench::findings::{Aim, Finding, quantile};
use waybill_bench::pgbench::{self, Turn};
use waybill_bench::progress;
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
const WARM_UP_S: u64 = 3;

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

async fn compared(
    place: &str,
    aim_percent: f64,
    server: &str,
    kafka: &Kafka,
    arguments: &Arguments,
) -> Result<Vec<Finding>> {
    let (mut endpoint, mut peer) = (Vec::new(), Vec::new());
    for run in 1..=arguments.runs {
        let (orders, transactions) =
            (by_endpoint(server, kafka, arguments).await?, by_pgbench(server, kafka, arguments).await?);
        progress(&format!("{place}, run {run}: endpoint {orders:.0} orders/s, pgbench {transactions:.0}"));
        endpoint.push(orders);
        peer.push(transactions);
    }
    let (endpoint, peer) = (quantile(&mut endpoint, 0.5), quantile(&mut peer, 0.5));
    let clients = arguments.clients;
    Ok(vec![
        Finding::told(
            format!("{place}: orders placed over HTTP, {clients} clients and connections"),
            endpoint,
            "/s",
        ),
        Finding::told(format!("{place}: pgbench with the same statement, {clients} connections"), peer, "/s"),
        Finding::aimed(
            format!("{place}: the endpoint of pgbench"),
            100.0 * endpoint / peer,
            "%",
            Aim::AtLeast(aim_percent),
        ),
    ])
}

/// Orders per second of one turn of the endpoint, audited.
async fn by_endpoint(server: &str, kafka: &Kafka, arguments: &Arguments) -> Result<f64> {
    let ground = Ground::prepare(server, kafka, arguments).await?;
    let placed = endpoint::load(&ground, arguments, WARM_UP_S).await?;
    ground.audit(placed.all).await?;
    Ok(placed.per_second)
}

/// Transactions per second of one turn of pgbench, audited.
async fn by_pgbench(server: &str, kafka: &Kafka, arguments: &Arguments) -> Result<f64> {
    let pgbench = pgbench::installed()
        .context("pgbench is not installed (Debian: postgresql-client and postgresql)")?;
    let mut ground = Ground::prepare(server, kafka, arguments).await?;
    let sample = sample::take(&ground, arguments).await?;
    ground.stop().await?;
    let script = statement::script()?;
    let mut all = 1;
    let mut turn = async |head: &str, seconds| {
        let variables = sample.variables(head);
        let (clients, session) = (arguments.clients, pgbench::SERVICE_SESSION);
        let turn = Turn { clients, seconds, session, variables: &variables };
        let ran = pgbench::run(&pgbench, &ground.database.url, &script, &turn)?;
        all += ran.transactions;
        anyhow::Ok(ran.per_second)
    };
    turn(sample::HEADS[0], WARM_UP_S).await?;
    let per_second = turn(sample::HEADS[1], arguments.measure_s).await?;
    ground.audit(all).await?;
    Ok(per_second)
}
