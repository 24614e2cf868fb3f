//! The servers as containers of docker-compose.kafka.yml, for `cargo xtask up --docker`.
use std::env;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::layout::Layout;
use crate::run;
use crate::say;
use crate::stop::Stop;

/// The port that each server listens on inside its container.
const KAFKA_PORT: u16 = 9092;
const POSTGRES_PORT: u16 = 5432;

/// Fails with what to do when there is no docker with its compose plugin, or no daemon answers it.
pub(super) fn check() -> Result<()> {
    let succeeds = |args: &[&str]| {
        Command::new("docker").args(args).output().is_ok_and(|output| output.status.success())
    };
    if !succeeds(&["compose", "version"]) {
        bail!(
            "--docker needs docker with its compose plugin (`docker compose version` fails): install docker-compose-plugin, or leave --docker out and `cargo xtask up` starts its own servers"
        );
    }
    if !succeeds(&["version", "--format", "{{.Server.Version}}"]) {
        bail!(
            "--docker needs docker's daemon, and none answers (`docker version` tells why): start it, or leave --docker out and `cargo xtask up` starts its own servers"
        );
    }
    Ok(())
}

/// Those of `servers` that do not run yet: what a start starts, and its end has to stop.
pub(super) fn absent(layout: &Layout, servers: &[&str]) -> Result<Vec<String>> {
    let running = asked(compose(layout).args(["ps", "--services", "--status", "running"]))?;
    let absent = |server: &&&str| !running.lines().any(|running| running == **server);
    Ok(servers.iter().filter(absent).map(|server| (*server).to_owned()).collect())
}

/// Starts the containers and waits for their health checks.
pub(super) fn up(layout: &Layout, servers: &[&str], stop: &Stop) -> Result<()> {
    say::progress(&format!("starting {} with docker compose ...", servers.join(" and ")));
    run::tool(compose(layout).args(["up", "--detach", "--wait"]).args(servers), stop).with_context(|| {
        format!(
            "the containers did not start; they want the ports {KAFKA_PORT} and {POSTGRES_PORT} of 127.0.0.1, unless WAYBILL_KAFKA_PORT and WAYBILL_POSTGRES_PORT name others; `docker compose -f docker-compose.kafka.yml logs` tells more"
        )
    })
}

/// Stops and removes containers, and the network with the last of them; their volumes stay.
pub(super) fn down(layout: &Layout, servers: &[String]) -> Result<()> {
    let stop = Stop::default();
    run::tool(compose(layout).args(["rm", "--stop", "--force"]).args(servers), &stop)?;
    if asked(compose(layout).args(["ps", "--all", "--quiet"]))?.trim().is_empty() {
        run::tool(compose(layout).arg("down"), &stop)?;
    }
    Ok(())
}

/// Removes the containers with their data.
pub(super) fn wipe(layout: &Layout, stop: &Stop) -> Result<()> {
    run::tool(compose(layout).args(["down", "--volumes"]), stop)
}

/// Where the broker is published.
pub(super) fn kafka(layout: &Layout) -> Result<String> {
    published(layout, super::KAFKA, KAFKA_PORT)
}

/// Where the database server is published, with its development password.
pub(super) fn postgres(layout: &Layout) -> Result<String> {
    let password = env::var("POSTGRES_PASSWORD").unwrap_or_else(|_| "waybill-development".to_owned());
    let address = published(layout, super::POSTGRES, POSTGRES_PORT)?;
    Ok(format!("postgres://postgres:{password}@{address}/postgres"))
}

/// As docker tells it: a container may have been started with other variables than are set now.
fn published(layout: &Layout, server: &str, port: u16) -> Result<String> {
    let address = asked(compose(layout).args(["port", server, &port.to_string()]))?;
    Ok(address.trim().to_owned())
}

fn asked(command: &mut Command) -> Result<String> {
    let output = command.output().context("could not run docker compose")?;
    if !output.status.success() {
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        bail!("`docker {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("docker compose answered with what is no text")
}

fn compose(layout: &Layout) -> Command {
    let mut command = Command::new("docker");
    command.arg("compose").arg("-f").arg(layout.root.join("docker-compose.kafka.yml"));
    command
}
