//! `waybillctl events`: from real topics, and from what the real kcat writes.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use waybill_testkit::{TestTopics, kafka_bootstrap};

use crate::{command, golden_frame, text, waybillctl};

const ORDER: &str = "018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e0f";

async fn topics() -> TestTopics {
    let topics = TestTopics::create(&[("orders.events", 3), ("payments.events", 1)]).await;
    for (id, kind, file) in
        [("e1", "OrderPlaced", "orders/OrderPlaced.1"), ("e2", "OrderConfirmed", "orders/OrderConfirmed.2")]
    {
        let headers =
            [("ce_id", id.as_bytes()), ("ce_type", kind.as_bytes()), ("ce_correlationid", ORDER.as_bytes())];
        topics.produce("orders.events", Some(ORDER.as_bytes()), &headers, Some(&golden_frame(file))).await;
    }
    topics
}

fn events(topics: &TestTopics, verb: &str, more: &[&str]) -> Output {
    let here = ["events", verb, "--prefix", &topics.prefix, "--bootstrap-servers", &kafka_bootstrap()];
    waybillctl(&[&here, more].concat())
}

fn lines(run: &Output) -> Vec<Value> {
    text(&run.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_each_message_with_its_place_headers_and_value() {
    let topics = topics().await;
    let run = events(&topics, "get", &["orders.events"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let lines = lines(&run);
    assert_eq!(lines.len(), 2);
    let placed = &lines[0];
    assert_eq!(placed["topic"], topics.full("orders.events"));
    assert_eq!((&placed["offset"], &placed["key"]), (&Value::from(0), &Value::from(ORDER)));
    assert_eq!(placed["headers"]["ce_type"], "OrderPlaced");
    assert_eq!(placed["schema"], serde_json::json!({"id": 1, "name": "waybill.orders.OrderPlaced"}));
    assert_eq!(placed["value"]["lines"][0]["sku"], "TEA-GREEN-100");
    assert_eq!(placed["value"]["placed_at"], 1_767_225_600_123_456_i64);
    let first = text(&run.stdout).lines().next().unwrap();
    assert!(first.contains("\"value\":{\"order_id\":"), "fields in the schema's order: {first}");
    assert_eq!(lines[1]["value"]["total_minor"], 2999);
    assert!(text(&run.stderr).contains("2 shown of 2 read in 3 partitions"), "{}", text(&run.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_and_places_are_found() {
    let topics = topics().await;
    let count = |more: &[&str]| {
        let run = events(&topics, "get", &[&["orders.events"], more].concat());
        assert_eq!(run.status.code(), Some(0), "{more:?}: {}", text(&run.stderr));
        lines(&run).len()
    };
    assert_eq!(count(&["--type", "OrderConfirmed"]), 1);
    assert_eq!(count(&["--type", "OrderConfirmed", "--type", "OrderPlaced", "--key", ORDER]), 2);
    assert_eq!(count(&["--id", "e2", "--correlation-id", ORDER]), 1);
    assert_eq!(count(&["--key", "nobody"]), 0);
    assert_eq!(count(&["--since", "1h"]), 2);
    assert_eq!(count(&["--until", "1h"]), 0);
    assert_eq!(count(&["--limit", "1"]), 1);

    let partition = lines(&events(&topics, "get", &["orders.events"]))[0]["partition"].to_string();
    let at = ["orders.events", "--partition", &partition, "--offset", "1", "--limit", "1"];
    assert_eq!(lines(&events(&topics, "get", &at))[0]["headers"]["ce_id"], "e2");
    let beyond = ["orders.events", "--partition", &partition, "--offset", "7"];
    let run = events(&topics, "get", &beyond);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("has no offset 7: it holds 0 to 2"), "{}", text(&run.stderr));

    topics.produce("orders.events", Some(b"\xfb\xff"), &[], None).await;
    assert_eq!((count(&["--key", "base64:+/8="]), count(&["--key", "base64:-_8"])), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_looked_at_is_an_error_and_what_is_wrong_is_shown() {
    let topics = topics().await;
    let run = events(&topics, "get", &["orders.rumours"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("orders.rumours is not on the brokers"), "{}", text(&run.stderr));
    assert!(run.stdout.is_empty());
    let run = events(&topics, "tail", &["orders.events", "--partition", "9"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("has no partition 9: it has 3"), "{}", text(&run.stderr));

    topics.produce("payments.events", Some(b"k"), &[], Some(b"no frame")).await;
    topics.produce("payments.events", Some(b"k"), &[], None).await;
    let run = events(&topics, "get", &["payments.events"]);
    assert_eq!(run.status.code(), Some(3), "looked at, and not as declared");
    let lines = lines(&run);
    assert_eq!(lines[0]["value_base64"], "bm8gZnJhbWU=");
    assert!(lines[0]["error"].as_str().unwrap().contains("first byte is not 00"));
    assert_eq!((&lines[1]["value"], lines[1].get("error")), (&Value::Null, None), "a tombstone is no fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_shows_the_last_and_follows() {
    let topics = topics().await;
    let run = events(&topics, "tail", &["orders.events", "-n", "1", "--text"]);
    let line = text(&run.stdout);
    assert!(line.contains(" OrderConfirmed {\"order_id\":") && line.lines().count() == 1, "{line}");

    let bootstrap = kafka_bootstrap();
    let mut following = command(&[
        "events",
        "tail",
        "-n",
        "1",
        "--follow",
        "orders.events",
        "--prefix",
        &topics.prefix,
        "--bootstrap-servers",
        &bootstrap,
    ]);
    let mut following = following.stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(following.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&shown.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["headers"]["ce_id"], "e2");
    let frame = golden_frame("orders/OrderPlaced.1");
    topics.produce("orders.events", Some(b"other"), &[("ce_id", b"e3")], Some(&frame)).await;
    let next: Value = serde_json::from_str(&shown.next().unwrap().unwrap()).unwrap();
    assert_eq!(next["headers"]["ce_id"], "e3");
    following.kill().unwrap();
    following.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn decode_reads_what_kcat_writes() {
    let topics = topics().await;
    let topic = topics.full("orders.events");
    let kcat = |form: &str| {
        let bootstrap = kafka_bootstrap();
        let run = Command::new("kcat")
            .args(["-b", &bootstrap, "-C", "-t", &topic, "-o", "beginning", "-e", "-q", "-f", form])
            .output();
        run.unwrap_or_else(|error| panic!("kcat can not be run ({error}): `apt-get install kcat`")).stdout
    };
    let run = decode(&[], &kcat("%R%s"));
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let kinds: Vec<Value> = lines(&run).iter().map(|line| line["schema"]["name"].clone()).collect();
    assert_eq!(kinds, ["waybill.orders.OrderPlaced", "waybill.orders.OrderConfirmed"]);
    let run = decode(&["--input", "keys-and-lengths"], &kcat("%K %k%R%s"));
    assert_eq!(lines(&run)[1]["key"], ORDER, "{}", text(&run.stderr));
}

#[test]
fn decode_of_other_input_says_what_it_wants() {
    let run = decode(&[], b"{\"not\": \"frames\"}");
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("kcat -C ... -f '%R%s'"), "{}", text(&run.stderr));
    let hex: String = golden_frame("orders/OrderPlaced.1").iter().map(|byte| format!("{byte:02x}")).collect();
    let run = decode(&["--input", "hex"], format!("{hex}\n{}\n", &hex[..60]).as_bytes());
    assert_eq!(run.status.code(), Some(3));
    insta::assert_snapshot!("events_decode", text(&run.stdout));
    let lines = lines(&run);
    assert_eq!(lines[0]["value"]["currency"], "EUR");
    assert!(
        lines[1]["error"]
            .as_str()
            .unwrap()
            .starts_with("the bytes do not decode as waybill.orders.OrderPlaced")
    );
}

fn decode(more: &[&str], input: &[u8]) -> Output {
    let mut run = command(&[&["events", "decode"], more].concat());
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    run.stdin.take().unwrap().write_all(input).unwrap();
    run.wait_with_output().unwrap()
}
