//! The whole system by `up`, as the README has a stranger type it: its commands in their order, the demo, a kill, the end.
use crate::shell;
use crate::system::{System, alive, eventually, kill9};

/// Orders of the demo's burst: enough for a relay to be killed among them.
const BURST: &str = "50";
/// Only they are no commands for a system that runs: they start it.
const BLOCKS_OF_THE_START: usize = 1;

#[test]
fn the_readmes_commands_work_on_a_system_that_heals_and_leaves_nothing_behind() {
    let system = System::new("up-system").with_programs();
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
    let blocks = shell::blocks("README.md");
    assert!(blocks.len() > BLOCKS_OF_THE_START + 5, "{blocks:#?}");
    assert!(blocks[0].contains("cargo xtask up"), "{}", blocks[0]);
    let blocks = blocks[BLOCKS_OF_THE_START..].iter().map(String::as_str);
    shell::follow(system, [PRELUDE].into_iter().chain(blocks))
}

/// That of an installed Kafka has none of xtask's addresses and never ends by itself: ours, and an end.
const PRELUDE: &str =
    "kafka-console-consumer.sh() { cargo xtask kafka console-consumer --timeout-ms 5000 \"$@\"; }";
