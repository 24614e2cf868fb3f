//! `cargo xtask status`: what runs, where, and whether it is ready.
use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::arguments::flag;
use crate::layout::Layout;
use crate::servers::{KAFKA, POSTGRES, wire};
use crate::state::{Phase, State};
use crate::{say, services};

/// Arguments of `status`.
#[derive(Debug)]
pub(crate) struct StatusArgs {
    json: bool,
}

impl StatusArgs {
    pub(crate) fn describe(command: Command) -> Command {
        command.arg(flag("json", "One JSON object on stdout"))
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        Self { json: matches.get_flag("json") }
    }
}

/// Exit code 0 when the system is up, 1 when it is not.
pub(crate) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let state = State::read(&Layout::find()?.dev())?;
    let up = state.as_ref().is_some_and(|state| state.owner.alive());
    if args.json {
        say::answer(&state.as_ref().map_or_else(nothing, describe).to_string());
    } else {
        match &state {
            Some(state) => print(state),
            None => say::answer("Nothing runs. Start it with: cargo xtask up"),
        }
    }
    Ok(if up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn nothing() -> Value {
    json!({"kafka": null, "postgres": null, "services": {}})
}

/// The documented shape; a pid is null for a server that is not ours or a process that is dead just now.
fn describe(state: &State) -> Value {
    let services: Map<String, Value> = state
        .services
        .iter()
        .map(|(name, url)| {
            let pid = state.pid(name);
            let ready = pid.is_some() && services::readiness(url).is_ok();
            let mut service = json!({"url": url, "pid": pid, "ready": ready});
            if let Some(operator) = state.operators.get(name) {
                service["operator_url"] = json!(operator);
            }
            (name.clone(), service)
        })
        .collect();
    json!({
        "kafka": state.kafka.as_ref().map(|bootstrap| json!({"bootstrap": bootstrap, "pid": state.pid(KAFKA)})),
        "postgres": state.postgres.as_ref().map(|url| json!({"url": url, "pid": state.pid(POSTGRES)})),
        "services": services,
    })
}

fn print(state: &State) {
    let phase = match (state.owner.alive(), state.phase) {
        (false, _) => "crashed: `cargo xtask down` tidies up, `cargo xtask up` starts it again",
        (true, Phase::Starting) => "starting",
        (true, Phase::Ready) => "up",
        (true, Phase::Stopping) => "stopping",
    };
    say::answer(&format!("Waybill is {phase} (pid {})", state.owner.pid));
    let place = |name: &str| match state.pid(name) {
        Some(pid) => format!("pid {pid}"),
        None if state.containers.iter().any(|container| container == name) => "container".to_owned(),
        None => "no process of ours".to_owned(),
    };
    for (name, address) in [(KAFKA, &state.kafka), (POSTGRES, &state.postgres)] {
        if let Some(address) = address.as_deref().map(wire::without_password) {
            say::answer(&format!("  {name:<13} {address:<48} {}", place(name)));
        }
    }
    for (name, url) in &state.services {
        let (pid, ready) = match state.pid(name) {
            Some(pid) => (format!("pid {pid}"), services::readiness(url)),
            None => ("dead".to_owned(), Err(anyhow::anyhow!("no process"))),
        };
        let ready = ready.map_or_else(|why| format!("not ready: {why:#}"), |()| "ready".to_owned());
        say::answer(&format!("  {name:<13} {url:<48} {pid:<12} {ready}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::scratch;
    use crate::state::Board;

    #[test]
    fn the_json_has_the_documented_shape() {
        let instance = scratch("status");
        let _owned = instance.own().unwrap();
        let board = Board::open(&instance).unwrap();
        board
            .change(|state| {
                state.kafka = Some("127.0.0.1:1".to_owned());
                state.services.insert("orders".to_owned(), "http://127.0.0.1:9".to_owned());
                state.operators.insert("orders".to_owned(), "http://127.0.0.1:8".to_owned());
                state.services.insert("outbox-relay".to_owned(), "http://127.0.0.1:7".to_owned());
            })
            .unwrap();
        let read = State::read(&instance).unwrap().unwrap();
        let expected = json!({
            "kafka": {"bootstrap": "127.0.0.1:1", "pid": null},
            "postgres": null,
            "services": {
                "orders": {
                    "url": "http://127.0.0.1:9", "pid": null, "ready": false, "operator_url": "http://127.0.0.1:8",
                },
                "outbox-relay": {"url": "http://127.0.0.1:7", "pid": null, "ready": false},
            },
        });
        assert_eq!(describe(&read), expected);
        std::fs::remove_dir_all(instance.dir()).unwrap();
    }
}
