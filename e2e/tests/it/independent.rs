//! Our topics, read by an Avro implementation that is not ours.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::invariants;
use crate::shop::Shop;
use crate::system::System;

const READ_TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_avro_implementation_reads_our_topics() {
    let system = System::start("e2e_avro").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 5).await;
    let id = shop.order(&[("tea", 2)], "tok_approve").await;
    shop.becomes(&id, "CONFIRMED").await;
    shop.payment_becomes(&id, "captured").await;
    let mut frames = String::new();
    let mut kinds = Vec::new();
    for (topic, count) in
        [("orders.events", 2), ("inventory.commands", 2), ("inventory.events", 4), ("payments.events", 2)]
    {
        let records = system.topics.read_all(topic, |records| records.len() >= count, READ_TIMEOUT).await;
        for record in records {
            kinds.push(record.header("ce_type").unwrap().to_owned());
            assert_eq!(record.header("content-type"), Some("application/avro"));
            for byte in record.payload.expect("a value") {
                write!(frames, "{byte:02x}").unwrap();
            }
            frames.push('\n');
        }
    }
    let values = decoded(&frames);
    assert_eq!(values.len(), kinds.len());
    for (value, kind) in values.iter().zip(&kinds) {
        assert!(
            value["name"].as_str().unwrap().ends_with(&format!(".{kind}")),
            "{value} is said to be {kind}"
        );
    }
    let placed = &values[kinds.iter().position(|kind| kind == "OrderPlaced").unwrap()]["value"];
    assert_eq!(placed["order_id"], id.as_str());
    assert_eq!(placed["total_minor"], 1_400);
    invariants::hold(&system, &shop.accepted()).await;
}

/// Frames in hexadecimal, one a line, to one JSON value each.
fn decoded(frames: &str) -> Vec<Value> {
    use std::io::Write as _;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/verify.py");
    let mut python = Command::new("python3")
        .arg(script)
        .arg("decode")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs schemas/verify.py: install python3 and python3-venv");
    python.stdin.take().unwrap().write_all(frames.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "schemas/verify.py: {}", output.status);
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
