//! Hostile and broken records put into the topics by hand: they become dead letters as they were, and hold nobody up.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use uuid::Uuid;
use waybill_testkit::OwnedRecord;
use waybill_testkit::process::peak_memory_kib;

use crate::invariants;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::{Service, System};

/// What these records say they come from: nothing of ours, so that nobody looks for their outbox rows.
const FOREIGN_SOURCE: &str = "/elsewhere";
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Most memory that a service had, at any time, under load with these records in its topics: what is promised.
const MEMORY_KIB_MAX: u64 = 128 * 1024;
/// How many large values come one after the other.
const LARGE_VALUES: usize = 6;

/// A topic, who reads it, and a message of it that is to be maltreated.
const TARGETS: [(&str, Service, &str); 3] = [
    ("inventory.commands", Service::Inventory, "ReserveStock"),
    ("payments.commands", Service::Payments, "AuthorizePayment"),
    ("inventory.events", Service::Orders, "StockReserved"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_records_become_dead_letters_unchanged_and_hold_nobody_up() {
    let system = System::start("e2e_broken").await;
    let shop = Shop::new(&system);
    load::stock_up(&shop).await;
    let id = shop.order(&[("tea", 1)], "tok_approve").await;
    shop.becomes(&id, "CONFIRMED").await;
    let seed = load::seed();
    let mut dice = StdRng::seed_from_u64(seed);
    let load = Load::start(&system, seed);
    let mut all = Vec::new();
    for (topic, service, kind) in TARGETS {
        let real = real(&system, topic, kind).await;
        for broken in broken(&real, kind, &mut dice) {
            let headers: Vec<(&str, &[u8])> =
                broken.headers.iter().map(|(n, v)| (*n, v.as_slice())).collect();
            let at =
                system.topics.produce(topic, Some(&broken.key), &headers, broken.payload.as_deref()).await;
            all.push((topic, service, at, broken));
        }
    }
    // Keys of every partition are ordered after the broken records, and must come to their end.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut accepted = load.stop().await;
    accepted.extend(shop.accepted());
    invariants::hold_beside(&system, &accepted, i64::try_from(all.len()).unwrap()).await;
    for (topic, service, _) in TARGETS {
        let name = format!("{topic}.{}.dlq", service.name());
        let letters = system.topics.read_to_end(&name, READ_TIMEOUT).await;
        for (_, _, at, broken) in all.iter().filter(|(planted, ..)| *planted == topic) {
            mirrored(&letters, *at, broken);
            kept(&system, service, &system.topics.full(topic), *at, broken).await;
        }
    }
    for service in Service::ALL {
        memory_is_bounded(&system, service);
    }
}

struct Broken {
    what: &'static str,
    key: Vec<u8>,
    headers: Vec<(&'static str, Vec<u8>)>,
    payload: Option<Vec<u8>>,
    class: &'static str,
}

/// A record of this kind as the system made it.
async fn real(system: &System, topic: &str, kind: &str) -> OwnedRecord {
    let is_there = |records: &[OwnedRecord]| records.iter().any(|r| r.header("ce_type") == Some(kind));
    let records = system.topics.read_all(topic, is_there, READ_TIMEOUT).await;
    records.into_iter().find(|r| r.header("ce_type") == Some(kind)).unwrap()
}

fn broken(real: &OwnedRecord, kind: &'static str, dice: &mut StdRng) -> Vec<Broken> {
    let frame = real.payload.clone().unwrap();
    let (header, datum) = frame.split_at(5);
    let bomb = |datum: &[u8]| [header, datum].concat();
    let truncated = frame[..frame.len() - 3].to_vec();
    let unknown = [&[0, 0, 0, 0x27, 0x0f], datum].concat();
    let mut all = vec![
        of("no headers, random bytes", Vec::new(), Some(random(dice, 300)), "headers"),
        payload("random bytes", kind, random(dice, 300)),
        payload("empty", kind, Vec::new()),
        payload("a zero byte alone", kind, vec![0]),
        payload("unknown schema id", kind, unknown),
        payload("cut off", kind, truncated),
        payload("bytes after the end", kind, [frame.as_slice(), b"more"].concat()),
        // 22 bytes or fewer that ask for gigabytes: a string, a negative length, an array after a good first field.
        payload("a string of 2^40 bytes", kind, bomb(&long(1 << 40))),
        payload("a string of a negative length", kind, bomb(&long(-5))),
        payload("an array of 2^62 items", kind, bomb(&[&datum[..37], &long(1 << 62)].concat())),
        payload(
            "an array block of 2^40 bytes",
            kind,
            bomb(&[&datum[..37], &long(-1), &long(1 << 40)].concat()),
        ),
        Broken { payload: None, ..payload("a tombstone", kind, Vec::new()) },
        without("ce_id", kind, &frame),
        without("ce_type", kind, &frame),
        without("ce_sequence", kind, &frame),
        Broken {
            key: b"another key".to_vec(),
            class: "headers",
            ..payload("subject is not key", kind, frame.clone())
        },
    ];
    let mut strange = payload("headers that are no text", kind, b"\0\0\0\0\x01".to_vec());
    strange.headers.extend([
        ("raw", vec![0xff, 0, 0xfe]),
        ("zero", b"a\0b".to_vec()),
        ("", b"no name".to_vec()),
    ]);
    all.push(strange);
    let mut large_headers = payload("40 kB of headers", kind, b"\0\0\0\0\x01".to_vec());
    large_headers.headers.push(("large", vec![b'x'; 40_000]));
    all.push(large_headers);
    all.extend((0..LARGE_VALUES).map(|_| payload("900 kB", kind, random(dice, 900_000))));
    // About the most that a topic of the default size takes.
    all.extend((0..LARGE_VALUES).map(|_| payload("1 MB", kind, random(dice, 1_000_000))));
    all.push(payload("the largest", kind, random(dice, 1_048_000)));
    all
}

fn of(
    what: &'static str,
    headers: Vec<(&'static str, Vec<u8>)>,
    payload: Option<Vec<u8>>,
    class: &'static str,
) -> Broken {
    let key = Uuid::now_v7().to_string().into_bytes();
    Broken { what, key, headers, payload, class }
}

/// Good headers, broken value.
fn payload(what: &'static str, kind: &'static str, payload: Vec<u8>) -> Broken {
    let mut broken = of(what, Vec::new(), Some(payload), "payload");
    let id = Uuid::now_v7().to_string();
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_source", FOREIGN_SOURCE),
        ("ce_type", kind),
        ("ce_time", "2026-01-01T00:00:00.000000Z"),
        ("ce_correlationid", &id),
        ("ce_sequence", "1"),
        ("content-type", "application/avro"),
    ];
    broken.headers = headers.map(|(name, value)| (name, value.as_bytes().to_vec())).to_vec();
    broken.headers.push(("ce_subject", broken.key.clone()));
    broken
}

/// A good value, and one header missing.
fn without(header: &'static str, kind: &'static str, frame: &[u8]) -> Broken {
    let mut broken = payload(header, kind, frame.to_vec());
    broken.headers.retain(|(name, _)| *name != header);
    Broken { class: "headers", ..broken }
}

fn random(dice: &mut StdRng, bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    dice.fill_bytes(&mut random);
    // Never by chance the start of a frame.
    random[0] = dice.random_range(1..=255);
    random
}

/// Avro's long: zigzag, seven bits a byte.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// The record on the dead letter topic: the same key and bytes, its headers and the dead letter's own as text.
fn mirrored(letters: &[OwnedRecord], (partition, offset): (i32, i64), broken: &Broken) {
    let what = broken.what;
    let place = (partition.to_string(), offset.to_string());
    let mut found = letters.iter().filter(|letter| {
        letter.header("dlq_partition") == Some(&place.0) && letter.header("dlq_offset") == Some(&place.1)
    });
    let letter = found.next().unwrap_or_else(|| panic!("{what} is on its dead letter topic"));
    assert!(found.next().is_none(), "{what} is there once");
    assert_eq!(letter.key.as_deref(), Some(broken.key.as_slice()), "{what}: its key");
    assert!(letter.payload == broken.payload, "{what}: its bytes are unchanged");
    assert_eq!(
        letter.header("dlq_error_class"),
        Some(broken.class),
        "{what}: {:?}",
        letter.header("dlq_error_message")
    );
    for (name, value) in &letter.headers {
        assert!(std::str::from_utf8(value).is_ok(), "{what}: header {name} is text");
    }
    for (name, value) in &broken.headers {
        // A zero character is no text to Postgres: such a value travels as bytes do.
        match std::str::from_utf8(value) {
            Ok(text) if text.contains('\0') => {
                assert_eq!(
                    letter.header(&format!("dlq_base64_{name}")),
                    Some("YQBi"),
                    "{what}: header {name}"
                );
            }
            Ok(text) if text.len() < 20_000 => {
                assert_eq!(letter.header(name), Some(text), "{what}: header {name}")
            }
            Ok(_) => assert_eq!(letter.header("dlq_headers_omitted"), Some("1"), "{what}: header {name}"),
            Err(_) => {
                assert!(letter.header(&format!("dlq_base64_{name}")).is_some(), "{what}: header {name}")
            }
        }
    }
}

/// The row: every byte, however many.
async fn kept(
    system: &System,
    service: Service,
    topic: &str,
    (partition, offset): (i32, i64),
    broken: &Broken,
) {
    let (payload, state): (Option<Vec<u8>>, String) = sqlx::query_as(
        "select payload, state from dead_letters where topic = $1 and partition = $2 and \"offset\" = $3",
    )
    .bind(topic)
    .bind(partition)
    .bind(offset)
    .fetch_one(&system.database(service).pool)
    .await
    .unwrap();
    assert!(payload == broken.payload, "{}: the row has its bytes", broken.what);
    assert_eq!(state, "open");
}

/// The peak, as the kernel counts it: what a record took while it was handled, and not what is left after it.
fn memory_is_bounded(system: &System, service: Service) {
    let pid = system.process_of(service).pid().expect("it runs");
    let peak_kib = peak_memory_kib(pid).expect("it runs");
    println!("{service:?}: {} MiB at most", peak_kib / 1024);
    assert!(peak_kib < MEMORY_KIB_MAX, "{service:?} had {peak_kib} KiB resident");
}
