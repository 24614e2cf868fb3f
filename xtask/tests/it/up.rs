//! The whole system by `up`, as the README has a stranger type it: its commands in their order, the demo, a kill, the end.
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::system::{System, alive, eventually, kill9};

/// Orders of the demo's burst: enough for a relay to be killed among them.
const BURST: &str = "50";
/// Only they are no commands for a system that runs: they start it.
const BLOCKS_OF_THE_START: usize = 1;

#[test]
fn the_readmes_commands_work_on_a_system_that_heals_and_leaves_nothing_behind() {
    let Some(programs) = std::env::var_os("WAYBILL_BIN_DIR") else {
        panic!("WAYBILL_BIN_DIR is not set: run `cargo xtask test -p xtask`, which builds the programs")
    };
    let system = System::new("up-system").with_programs(programs);
    system.must(&["up", "--detach"]);
    let state = system.status();
    for service in ["orders", "inventory", "payments", "outbox-relay"] {
        assert_eq!(state["services"][service]["ready"], true, "{state}");
    }

    let said = follow_readme(&system);
    for told in [
        "HTTP/1.1 202 Accepted",
        "\"status\":\"PENDING\"",
        "ce_type:OrderPlaced",
        "ce_type=OrderPlaced",
        "\"customer_id\"",
    ] {
        assert!(said.contains(told), "{told} is missing:\n{said}");
    }

    let demo = system.must(&["demo", "--burst", BURST]);
    assert!(demo.contains("All four stories ended as they must"), "{demo}");

    let before = system.service_pid("orders").unwrap();
    kill9(before);
    eventually("orders to be back and ready", || {
        let orders = &system.status()["services"]["orders"];
        (orders["pid"].as_u64() != Some(before) && orders["ready"] == true).then_some(())
    });

    let mut pids: Vec<u64> = ["kafka", "postgres"].iter().filter_map(|server| system.pid(server)).collect();
    let services = ["orders", "inventory", "payments", "outbox-relay"];
    pids.extend(services.iter().filter_map(|service| system.service_pid(service)));
    pids.push(system.owner());
    assert_eq!(pids.len(), 7);
    system.must(&["down"]);
    assert!(pids.iter().all(|pid| !alive(*pid)), "{pids:?}");
    assert_eq!(system.xtask(&["status"]).status.code(), Some(1));
}

/// Runs the README's blocks of commands in one shell and returns what they said.
fn follow_readme(system: &System) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = commands(&readme);
    assert!(blocks.len() > BLOCKS_OF_THE_START + 5, "{blocks:#?}");
    assert!(blocks[0].contains("cargo xtask up"), "{}", blocks[0]);
    let mut script = PRELUDE.to_owned();
    for (number, block) in blocks.iter().enumerate().skip(BLOCKS_OF_THE_START) {
        script += &format!("echo '=== block {}'\n{block}\n", number + 1);
    }
    let tools = shim(system.dir());
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(root()).env("PATH", path);
    let output = system.of(&mut shell).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "the last block failed ({}):\n{text}", output.status);
    text
}

/// Those of an installed Kafka, which has none of xtask's addresses and never ends by itself: ours, and an end.
const PRELUDE: &str = r#"set -eu
exec 2>&1
kafka-console-consumer.sh() { cargo xtask kafka console-consumer --timeout-ms 5000 "$@"; }
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The blocks fenced as `sh`.
fn commands(markdown: &str) -> Vec<String> {
    let fenced = markdown.split("```sh\n").skip(1);
    fenced.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// A folder with a `cargo` whose `xtask` is the program of this test: the README's words, and nothing built.
fn shim(dir: &Path) -> PathBuf {
    let folder = dir.join("shim");
    std::fs::create_dir_all(&folder).unwrap();
    let cargo = folder.join("cargo");
    let xtask = env!("CARGO_BIN_EXE_xtask");
    std::fs::write(
        &cargo,
        format!("#!/bin/sh\n[ \"$1\" = xtask ] && shift && exec '{xtask}' \"$@\"\nexit 1\n"),
    )
    .unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}
