//! The command line as operators use it: the built program, against real brokers.

#![expect(clippy::unwrap_used, reason = "a test that can not go on ends there")]

mod changes;
mod double;
mod events;
mod every_verb;
mod explain;
mod forms;
mod looks;
mod real;
mod registry;
mod replays;
mod schemas;
mod terminal;
mod topics;
mod usage;
mod verify;

use std::path::PathBuf;
use std::process::{Command, Output};

/// The built program with these arguments and nothing of the caller's environment that it would read.
fn waybillctl(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waybillctl"));
    command
        .args(arguments)
        .env_remove("KAFKA_BOOTSTRAP_SERVERS")
        .env_remove("WAYBILL_TOPIC_PREFIX")
        .env_remove("WAYBILL_TOPIC_REPLICATION")
        .env_remove("WAYBILL_OPERATOR_URLS")
        .env_remove("WAYBILL_TOKEN")
        .env_remove("SCHEMA_REGISTRY_URL");
    command
}

/// The folder of the message contract.
fn schemas_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

/// The first golden frame of a message, e.g. `orders/OrderPlaced.1`.
fn golden_frame(file: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(schemas_folder().join(format!("golden/{file}.json"))).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let hex = golden["cases"][0]["frame"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
