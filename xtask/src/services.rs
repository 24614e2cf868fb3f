//! Waybill's own processes: their names, binaries, environment, and when they are ready.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::binaries;
use crate::ctl;
use crate::http;
use crate::keys;
use crate::launch::Program;
use crate::ports;
use crate::servers::{Addresses, Context, wire};
use crate::supervisor;
use crate::{run, say};

/// The services that own a database of their name, in the flow's order.
pub(crate) const SERVICES: [&str; 3] = ["orders", "inventory", "payments"];
/// The relay's name.
pub(crate) const RELAY: &str = "outbox-relay";
/// Everything of ours that runs.
pub(crate) const NAMES: [&str; 4] = ["orders", "inventory", "payments", RELAY];

/// How long a service may take to be ready, in seconds: migrations, topics, and a machine that still compiles.
const READY_TIMEOUT_S: u64 = 90;
/// How often readiness is asked for, in milliseconds.
const PROBE_INTERVAL_MS: u64 = 200;
/// How often a wait says that it still waits, in seconds.
const NEWS_INTERVAL_S: u64 = 5;
/// How long a service may take to stop before SIGKILL, in seconds: its own bound is 10.
const STOP_TIMEOUT_S: u64 = 12;

/// The name meant by what somebody typed.
pub(crate) fn canonical(name: &str) -> &str {
    match name {
        "relay" => RELAY,
        "pg" => crate::servers::POSTGRES,
        other => other.strip_prefix("waybill-").unwrap_or(other),
    }
}

/// Starts all of them on free ports; returns their URLs by name.
pub(crate) fn start(
    context: Context<'_>,
    addresses: &Addresses,
    release: bool,
) -> Result<BTreeMap<String, String>> {
    let operators = SERVICES.map(operator);
    let names: Vec<&str> = NAMES.into_iter().chain(operators.iter().map(String::as_str)).collect();
    let ports = ports::choose(context.instance, &names)?;
    let url = |name: &str| format!("http://127.0.0.1:{}", ports[name]);
    let urls: BTreeMap<String, String> = NAMES.iter().map(|name| ((*name).to_owned(), url(name))).collect();
    let listeners: BTreeMap<String, String> =
        SERVICES.iter().map(|name| ((*name).to_owned(), url(&operator(name)))).collect();
    // Every service has the same: each passes over itself.
    let peers = ctl::listed(&listeners);
    context.board.change(|state| {
        state.services.clone_from(&urls);
        state.operators = listeners;
        state.programs = Some(binaries::dir_to_run(context.layout, release));
    })?;
    for name in NAMES {
        let mut env = common_env(addresses, ports[name]);
        if name == RELAY {
            env.push(("OUTBOX_RELAY_DATABASES".to_owned(), relay_databases(&addresses.postgres)?));
        } else {
            let operator = format!("127.0.0.1:{}", ports[&operator(name)]);
            env.push(("WAYBILL_OPERATOR_ADDR".to_owned(), operator));
            env.push(("WAYBILL_OPERATOR_PEERS".to_owned(), peers.clone()));
            env.push(("DATABASE_URL".to_owned(), wire::with_database(&addresses.postgres, name)?));
            env.push(("WAYBILL_JWKS".to_owned(), keys::jwks_file(context.instance).display().to_string()));
        }
        let path = binaries::dir_to_run(context.layout, release).join(binary(name));
        let program =
            Program { path, args: Vec::new(), env, cwd: context.layout.root.clone(), account: None };
        let log = context.instance.log(name);
        context.supervisor.start(supervisor::spec(
            name,
            program,
            &log,
            Duration::from_secs(STOP_TIMEOUT_S),
        ))?;
    }
    Ok(urls)
}

/// The name under which a service's operator port is remembered.
fn operator(name: &str) -> String {
    format!("{name}-operator")
}

/// The program of a service.
fn binary(name: &str) -> String {
    if name == RELAY { RELAY.to_owned() } else { format!("waybill-{name}") }
}

fn common_env(addresses: &Addresses, port: u16) -> Vec<(String, String)> {
    let format = std::env::var("WAYBILL_LOG_FORMAT").unwrap_or_else(|_| "pretty".to_owned());
    [
        ("WAYBILL_HTTP_ADDR", format!("127.0.0.1:{port}")),
        ("KAFKA_BOOTSTRAP_SERVERS", addresses.kafka.clone()),
        ("WAYBILL_LOG_FORMAT", format),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn relay_databases(postgres: &str) -> Result<String> {
    let each = SERVICES.iter().map(|name| Ok(format!("{name}={}", wire::with_database(postgres, name)?)));
    Ok(each.collect::<Result<Vec<String>>>()?.join(","))
}

/// Waits until each is ready; says every few seconds which are not, and why.
pub(crate) fn wait_ready(context: Context<'_>, urls: &BTreeMap<String, String>) -> Result<()> {
    let began = Instant::now();
    let mut waiting: BTreeMap<&String, &String> = urls.iter().collect();
    let mut news = Duration::from_secs(NEWS_INTERVAL_S);
    while !waiting.is_empty() {
        let mut reasons = Vec::new();
        for (name, url) in waiting.clone() {
            context.supervisor.check_early_deaths(name)?;
            match readiness(url) {
                Ok(()) => {
                    say::progress(&format!(
                        "  {name:<13} ready ({:.1} s)  {url}",
                        began.elapsed().as_secs_f64()
                    ));
                    waiting.remove(name);
                }
                Err(why) => reasons.push(format!("  {name:<13} not ready yet: {why:#}")),
            }
        }
        if began.elapsed() > Duration::from_secs(READY_TIMEOUT_S) {
            bail!(give_up(context, waiting.keys().map(|name| name.as_str()), &reasons));
        }
        if began.elapsed() > news {
            reasons.iter().for_each(|reason| say::progress(reason));
            news += Duration::from_secs(NEWS_INTERVAL_S);
        }
        context.stop.pause(Duration::from_millis(PROBE_INTERVAL_MS))?;
    }
    Ok(())
}

/// Whether a service says that it is ready; the error is its own reason.
pub(crate) fn readiness(url: &str) -> Result<()> {
    let answer = http::get(&format!("{url}/ready"), None).context("no answer")?;
    if answer.status != 200 {
        bail!("{} {}", answer.status, answer.text.trim());
    }
    Ok(())
}

fn give_up<'a>(context: Context<'_>, names: impl Iterator<Item = &'a str>, reasons: &[String]) -> String {
    let logs: Vec<String> = names
        .map(|name| context.instance.log(name))
        .map(|log| format!("{} ends with:\n{}", log.display(), run::tail(&log)))
        .collect();
    format!(
        "not everything was ready within {READY_TIMEOUT_S} s:\n{}\n{}",
        reasons.join("\n"),
        logs.join("\n")
    )
}

/// Makes the topics of the manifest; harmless when they are there.
pub(crate) fn apply_topics(context: Context<'_>, addresses: &Addresses, release: bool) -> Result<()> {
    let path = binaries::dir_to_run(context.layout, release).join("waybillctl");
    run_topics_apply(&path, addresses, context)
}

fn run_topics_apply(waybillctl: &Path, addresses: &Addresses, context: Context<'_>) -> Result<()> {
    let mut command = std::process::Command::new(waybillctl);
    command.args(["topics", "apply"]).env("KAFKA_BOOTSTRAP_SERVERS", &addresses.kafka);
    run::logged(&mut command, &context.instance.log("topics"), context.stop)
        .context("could not make the topics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_reads_each_service_s_database() {
        let databases = relay_databases("postgres://p@h:1/postgres").unwrap();
        assert_eq!(
            databases,
            "orders=postgres://p@h:1/orders,inventory=postgres://p@h:1/inventory,payments=postgres://p@h:1/payments"
        );
    }

    #[test]
    fn short_names_are_understood() {
        assert_eq!(canonical("relay"), RELAY);
        assert_eq!(canonical("waybill-orders"), "orders");
        assert_eq!(canonical("orders"), "orders");
    }
}
