//! The command line as operators use it: the built program, against real brokers.

#![expect(clippy::unwrap_used, reason = "a test that can not go on ends there")]

mod topics;
mod usage;

use std::process::{Command, Output};

/// The built program with these arguments and nothing of the caller's environment that it would read.
fn waybillctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waybillctl"))
        .args(arguments)
        .env_remove("KAFKA_BOOTSTRAP_SERVERS")
        .env_remove("WAYBILL_TOPIC_PREFIX")
        .env_remove("WAYBILL_TOPIC_REPLICATION")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
