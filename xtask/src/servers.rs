//! Kafka and Postgres for an instance: our own on free ports, containers, or those the environment names.
use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::account::Account;
use crate::instance::Instance;
use crate::layout::Layout;
use crate::prerequisites::{self, Need};
use crate::state::Board;
use crate::stop::Stop;
use crate::supervisor::Supervisor;
use crate::{ports, say};

mod compose;
mod fetch;
pub(crate) mod kafka;
pub(crate) mod postgres;
mod sasl;
pub(crate) mod wire;

pub(crate) use fetch::{Fetched, kafka_jars};

/// The broker's name in logs, state and messages.
pub(crate) const KAFKA: &str = "kafka";
/// The database server's name in logs, state and messages.
pub(crate) const POSTGRES: &str = "postgres";
/// Environment variable that names brokers to use instead of our own.
pub(crate) const KAFKA_VARIABLE: &str = "KAFKA_BOOTSTRAP_SERVERS";
/// Environment variable by which `cargo xtask env` tells its own brokers from others: those are no servers to use instead.
pub(crate) const OWN_KAFKA_VARIABLE: &str = "WAYBILL_OWN_KAFKA";
/// Environment variable that names a Postgres server to use instead of our own.
pub(crate) const POSTGRES_VARIABLE: &str = "WAYBILL_POSTGRES_URL";
/// Environment variables that say to tests with servers of their own where the programs are.
const POSTGRES_BIN_VARIABLE: &str = "WAYBILL_POSTGRES_BIN";
const KAFKA_CLASS_PATH_VARIABLE: &str = "WAYBILL_KAFKA_CLASSPATH";

/// How long a server may take to answer, in seconds: Kafka takes 5 on a quiet machine, 40 on one that compiles.
const READY_TIMEOUT_S: u64 = 120;
/// How often a server is asked whether it is ready, in milliseconds.
const PROBE_INTERVAL_MS: u64 = 100;
/// How often a wait says that it still waits, in seconds.
const NEWS_INTERVAL_S: u64 = 5;

/// Where the servers answer.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// `host:port[,host:port]`.
    pub(crate) kafka: String,
    /// `postgres://user@host:port/database`.
    pub(crate) postgres: String,
}

/// Who provides each server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// We start it.
    Own,
    /// It is there already, at this address.
    Given(String),
    /// docker-compose.kafka.yml.
    Compose,
}

/// The choice for both servers.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) kafka: Source,
    pub(crate) postgres: Source,
}

impl Sources {
    /// From the environment and the `--docker` flag.
    pub(crate) fn choose(docker: bool) -> Self {
        let own = env::var(OWN_KAFKA_VARIABLE).ok();
        let choose = |variable: &str| match env::var(variable) {
            Ok(address) if !address.trim().is_empty() && Some(&address) != own.as_ref() => {
                say::progress(&format!(
                    "using the server of {variable}: {}",
                    wire::without_password(&address)
                ));
                Source::Given(address)
            }
            _ if docker => Source::Compose,
            _ => Source::Own,
        };
        Self { kafka: choose(KAFKA_VARIABLE), postgres: choose(POSTGRES_VARIABLE) }
    }

    pub(crate) fn own() -> Self {
        Self { kafka: Source::Own, postgres: Source::Own }
    }

    /// What the machine must offer for these; what is in the cache already needs no Maven.
    pub(crate) fn needs(&self, layout: &Layout) -> Vec<Need> {
        let fetched = Fetched::find(layout).is_some();
        let mut needs = vec![Need::Java];
        if !fetched {
            needs.extend([Need::Maven, Need::Xz]);
        }
        needs
    }

    /// The containers that are wanted.
    fn containers(&self) -> Vec<&'static str> {
        let each = [(KAFKA, &self.kafka), (POSTGRES, &self.postgres)];
        each.into_iter().filter(|(_, source)| **source == Source::Compose).map(|(name, _)| name).collect()
    }
}

/// What starting servers takes.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) instance: &'a Instance,
    pub(crate) supervisor: &'a Supervisor,
    pub(crate) board: &'a Board,
    pub(crate) stop: &'a Stop,
}

/// Starts what is ours, side by side, and waits until both answer.
pub(crate) fn start(context: Context<'_>, sources: &Sources, tuning: postgres::Tuning) -> Result<Addresses> {
    let containers = sources.containers();
    if !containers.is_empty() {
        let ours = compose::absent(context.layout, &containers)?;
        // Noted first: a start that fails half-way has containers to stop too. Those that run already are not ours.
        context.board.change(|state| state.containers = ours)?;
        compose::up(context.layout, &containers, context.stop)?;
    }
    // The Java tools are wanted with foreign servers too: they show what is in the topics.
    let fetched = fetch::ensure(context.layout, context.stop)?;
    let ports = ports::choose(context.instance, &[KAFKA, "kafka-controller", POSTGRES])?;
    let addresses = Addresses {
        kafka: match &sources.kafka {
            Source::Own => format!("127.0.0.1:{}", ports[KAFKA]),
            Source::Given(address) => address.clone(),
            Source::Compose => compose::kafka(context.layout)?,
        },
        postgres: match &sources.postgres {
            Source::Own => format!("postgres://postgres@127.0.0.1:{}/postgres", ports[POSTGRES]),
            Source::Given(url) => url.clone(),
            Source::Compose => compose::postgres(context.layout)?,
        },
    };
    std::thread::scope(|scope| {
        let broker = scope.spawn(|| {
            if sources.kafka == Source::Own {
                kafka::start(context, &fetched, [ports[KAFKA], ports["kafka-controller"]], tuning)?;
            }
            kafka::wait_ready(context, &addresses.kafka)
        });
        if sources.postgres == Source::Own {
            postgres::start(context, &fetched, ports[POSTGRES], tuning)?;
        }
        let database = postgres::wait_ready(context, &addresses.postgres);
        let broker = broker.join().unwrap_or_else(|_| anyhow::bail!("the thread that starts Kafka failed"));
        database.and(broker)
    })?;
    context.board.change(|state| {
        state.kafka = Some(addresses.kafka.clone());
        state.postgres = Some(addresses.postgres.clone());
    })?;
    Ok(addresses)
}

/// What tests need that start servers of their own: variables and where the programs are, once [`start`] has run.
pub(crate) fn programs(context: Context<'_>) -> Result<[(&'static str, OsString); 2]> {
    let fetched = fetch::kafka_jars(context.layout)?;
    let postgres = postgres::bin(context, &fetched)?;
    Ok([
        (POSTGRES_BIN_VARIABLE, postgres.into()),
        (KAFKA_CLASS_PATH_VARIABLE, kafka::class_path(&fetched).into()),
    ])
}

/// Stops containers that `start` started, if it did.
pub(crate) fn stop_containers(layout: &Layout, containers: &[String]) -> Result<()> {
    if containers.is_empty() { Ok(()) } else { compose::down(layout, containers) }
}

/// Removes containers of an earlier `--docker` with their data.
pub(crate) fn wipe_containers(layout: &Layout, stop: &Stop) -> Result<()> {
    compose::wipe(layout, stop)
}

/// The account for Postgres, with the prerequisite check that it exists.
fn account() -> Result<Option<Account>> {
    Account::for_servers().context("PostgreSQL needs an account other than root")
}

/// Asks `probe` until it answers; says every few seconds what it still waits for.
fn wait_for(context: Context<'_>, name: &str, probe: impl Fn() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    let mut news = Duration::from_secs(NEWS_INTERVAL_S);
    loop {
        let Err(error) = probe() else {
            say::progress(&format!("  {name:<13} ready ({:.1} s)", began.elapsed().as_secs_f64()));
            return Ok(());
        };
        context.supervisor.check_early_deaths(name)?;
        if began.elapsed() > Duration::from_secs(READY_TIMEOUT_S) {
            let log = context.instance.log(name);
            return Err(error).with_context(|| {
                format!("{name} did not answer within {READY_TIMEOUT_S} s; look into {}", log.display())
            });
        }
        if began.elapsed() > news {
            say::progress(&format!("  {name:<13} not ready yet ({} s): {error:#}", news.as_secs()));
            news += Duration::from_secs(NEWS_INTERVAL_S);
        }
        context.stop.pause(Duration::from_millis(PROBE_INTERVAL_MS))?;
    }
}

/// Makes sure the machine offers what these sources need.
pub(crate) fn ensure_prerequisites(
    layout: &Layout,
    sources: &Sources,
    more: &[Need],
    stop: &Stop,
) -> Result<()> {
    let mut needs = sources.needs(layout);
    needs.extend_from_slice(more);
    prerequisites::ensure(&needs, stop)?;
    if sources.containers().is_empty() { Ok(()) } else { compose::check() }
}

/// A folder that did not exist before is made with all above it.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("could not make the folder {}", dir.display()))
}
