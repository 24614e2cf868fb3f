//! The servers as containers of docker-compose.kafka.yml, for `cargo xtask up --docker`.
use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use crate::layout::Layout;
use crate::run::{self, on_path};
use crate::say;
use crate::stop::Stop;

/// Starts the containers and waits for their health checks.
pub(super) fn up(layout: &Layout, stop: &Stop) -> Result<()> {
    if !on_path("docker") {
        bail!(
            "--docker needs the docker client with its compose plugin; without it, `cargo xtask up` starts its own servers"
        );
    }
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
