//! The servers as containers of docker-compose.kafka.yml, for `cargo xtask up --docker`.
use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use crate::layout::Layout;
use crate::run;
use crate::say;
use crate::stop::Stop;

/// Fails with what to do when there is no docker with its compose plugin.
pub(super) fn check() -> Result<()> {
    let version = Command::new("docker").args(["compose", "version"]).output();
    if !version.is_ok_and(|output| output.status.success()) {
        bail!(
            "--docker needs docker with its compose plugin (`docker compose version` fails): install docker-compose-plugin, or leave --docker out and `cargo xtask up` starts its own servers"
        );
    }
    Ok(())
}

/// Starts the containers and waits for their health checks.
pub(super) fn up(layout: &Layout, stop: &Stop) -> Result<()> {
    say::progress("starting Kafka and Postgres with docker compose ...");
    run::tool(compose(layout).args(["up", "--detach", "--wait", "kafka", "postgres"]), stop)
}

/// Stops the containers; their volumes stay.
pub(super) fn down(layout: &Layout) -> Result<()> {
    run::tool(compose(layout).args(["down"]), &Stop::default())
}

/// Removes the containers with their data.
pub(super) fn wipe(layout: &Layout, stop: &Stop) -> Result<()> {
    run::tool(compose(layout).args(["down", "--volumes"]), stop)
}

/// Where the file publishes the broker.
pub(super) fn kafka() -> String {
    format!("127.0.0.1:{}", variable("WAYBILL_KAFKA_PORT", "9092"))
}

/// Where the file publishes the database server, with its development password.
pub(super) fn postgres() -> String {
    let password = variable("POSTGRES_PASSWORD", "waybill-development");
    format!("postgres://postgres:{password}@127.0.0.1:{}/postgres", variable("WAYBILL_POSTGRES_PORT", "5432"))
}

fn compose(layout: &Layout) -> Command {
    let mut command = Command::new("docker");
    command.arg("compose").arg("-f").arg(layout.root.join("docker-compose.kafka.yml"));
    command
}

fn variable(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}
