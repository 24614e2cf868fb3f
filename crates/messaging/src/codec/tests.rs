//! What the codec promises: values survive, hostile bytes are refused without panic, waste or endless work.

use apache_avro::error::Details;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CodecError, Contract, FRAME_BYTES_MAX, decode, encode, frame_schema_id};

/// Every shape our messages use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Shapes {
    id: Uuid,
    text: String,
    number: i64,
    small: i32,
    maybe: Option<String>,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    sku: String,
    quantity: i32,
}

impl Contract for Shapes {
    const NAME: &'static str = "waybill.test.Shapes";
    const TYPE: &'static str = "Shapes";
    const SCHEMA_ID: u32 = 0x0102_0304;
    const SCHEMA: &'static str = r#"{"type": "record", "name": "Shapes", "namespace": "waybill.test", "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "text", "type": "string"},
        {"name": "number", "type": "long"},
        {"name": "small", "type": "int"},
        {"name": "maybe", "type": ["null", "string"], "default": null},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
            {"name": "sku", "type": "string"}, {"name": "quantity", "type": "int"}]}}}]}"#;
}

/// A contract whose type is anything that serde can read; only its schema matters.
macro_rules! contract_with_schema {
    ($name:ident, $schema:literal) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $name {
            items: Vec<Vec<()>>,
        }
        impl Contract for $name {
            const NAME: &'static str = concat!("waybill.test.", stringify!($name));
            const TYPE: &'static str = stringify!($name);
            const SCHEMA_ID: u32 = 1;
            const SCHEMA: &'static str = $schema;
        }
    };
}

contract_with_schema!(
    Bomb,
    r#"{"type": "record", "name": "Bomb", "namespace": "waybill.test", "fields": [
        {"name": "items", "type": {"type": "array", "items": {"type": "array", "items": "null"}}}]}"#
);
contract_with_schema!(
    EmptyRecords,
    r#"{"type": "record", "name": "EmptyRecords", "namespace": "waybill.test", "fields": [
        {"name": "items", "type": {"type": "map", "values": {"type": "record", "name": "Nothing", "fields": []}}}]}"#
);
contract_with_schema!(
    Nested,
    r#"{"type": "record", "name": "Nested", "namespace": "waybill.test", "fields": [
        {"name": "next", "type": ["null", "Nested"], "default": null}]}"#
);
contract_with_schema!(
    Misnamed,
    r#"{"type": "record", "name": "Other", "namespace": "waybill.test", "fields": [{"name": "items", "type": "int"}]}"#
);

fn shapes() -> impl Strategy<Value = Shapes> {
    let line = (".{0,12}", any::<i32>()).prop_map(|(sku, quantity)| Line { sku, quantity });
    let fields = (
        any::<u128>(),
        ".{0,40}",
        any::<i64>(),
        any::<i32>(),
        proptest::option::of(".{0,8}"),
        proptest::collection::vec(line, 0..6),
    );
    fields.prop_map(|(id, text, number, small, maybe, lines)| Shapes {
        id: Uuid::from_u128(id),
        text,
        number,
        small,
        maybe,
        lines,
    })
}

fn sample() -> Shapes {
    Shapes {
        id: Uuid::from_u128(7),
        text: "Grüße".to_owned(),
        number: i64::MIN,
        small: -1,
        maybe: Some("x".to_owned()),
        lines: vec![
            Line { sku: "A-1".to_owned(), quantity: 3 },
            Line { sku: "B-2".to_owned(), quantity: i32::MAX },
        ],
    }
}

/// A frame of `Shapes` with this datum.
fn frame(datum: &[u8]) -> Vec<u8> {
    [&[0, 1, 2, 3, 4], datum].concat()
}

proptest! {
    #[test]
    fn every_value_survives(value in shapes()) {
        let bytes = encode(&value).unwrap();
        prop_assert_eq!(frame_schema_id(&bytes).unwrap(), Shapes::SCHEMA_ID);
        prop_assert_eq!(decode::<Shapes>(&bytes).unwrap(), value);
    }

    #[test]
    fn a_cut_frame_is_refused_at_every_length(value in shapes()) {
        let bytes = encode(&value).unwrap();
        for length in 0..bytes.len() {
            prop_assert!(decode::<Shapes>(&bytes[..length]).is_err(), "cut to {length} of {}", bytes.len());
        }
    }

    #[test]
    fn any_bytes_are_an_answer_never_a_panic(datum in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode::<Shapes>(&datum);
        let _ = decode::<Shapes>(&frame(&datum));
    }

    #[test]
    fn a_changed_byte_never_panics(value in shapes(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encode(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(read) = decode::<Shapes>(&bytes) {
            prop_assert!(encode(&read).is_ok());
        }
    }
}

#[test]
fn the_frame_is_confluents() {
    let bytes = encode(&sample()).unwrap();
    assert_eq!(&bytes[..5], &[0, 1, 2, 3, 4]);
    // The datum starts with the id as text: length 36, zigzag 72.
    assert_eq!(bytes[5], 72);
    assert_eq!(&bytes[6..42], b"00000000-0000-0000-0000-000000000007");
}

#[test]
fn what_is_no_frame_is_said_to_be_none() {
    for bytes in [&[][..], &[0, 0, 0, 1], &[1, 1, 2, 3, 4], b"{\"order_id\":1}"] {
        assert!(matches!(decode::<Shapes>(bytes), Err(CodecError::NotAFrame { .. })), "{bytes:?}");
    }
}

#[test]
fn another_schema_id_is_refused_before_the_datum_is_read() {
    let mut bytes = encode(&sample()).unwrap();
    bytes[4] = 5;
    let error = decode::<Shapes>(&bytes).unwrap_err();
    assert!(
        matches!(error, CodecError::UnknownSchema { found: 0x0102_0305, expected: 0x0102_0304, .. }),
        "{error:?}"
    );
}

#[test]
fn bytes_after_the_datum_are_refused() {
    let mut bytes = encode(&sample()).unwrap();
    bytes.extend_from_slice(&[0, 0]);
    assert!(matches!(decode::<Shapes>(&bytes), Err(CodecError::TrailingBytes { bytes: 2, .. })));
}

#[test]
fn a_frame_over_the_limit_is_neither_made_nor_read() {
    let huge = Shapes { text: "x".repeat(FRAME_BYTES_MAX), ..sample() };
    assert!(matches!(encode(&huge), Err(CodecError::TooLong { .. })));
    assert!(matches!(decode::<Shapes>(&frame(&vec![0; FRAME_BYTES_MAX])), Err(CodecError::TooLong { .. })));
}

#[test]
fn a_schema_that_could_explode_is_never_used() {
    // 22 bytes that made a decoder without these checks allocate 2 GB.
    let bomb = [
        &[0, 0, 0, 0, 1][..],
        &[
            0x04, 0xfe, 0xff, 0xff, 0xff, 0x07, 0x00, 0xfe, 0xff, 0xff, 0xff, 0x07, 0x00, 0x00, 0x00, 0x00,
            0x00,
        ],
    ]
    .concat();
    assert!(matches!(decode::<Bomb>(&bomb), Err(CodecError::Unfit { .. })));
    assert!(matches!(decode::<EmptyRecords>(&bomb), Err(CodecError::Unfit { .. })));
    assert!(matches!(decode::<Nested>(&bomb), Err(CodecError::Unfit { .. })));
    assert!(matches!(decode::<Misnamed>(&bomb), Err(CodecError::Unfit { .. })));
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
    // The length of the id says half a gigabyte, which the decoder's own limit would allow.
    let refused = decode::<Shapes>(&frame(&[0x80, 0x80, 0x80, 0x80, 0x04])).unwrap_err();
    let CodecError::Decode { source, .. } = refused else { panic!("{refused:?}") };
    assert!(
        matches!(source.details(), Details::MemoryAllocation { maximum: FRAME_BYTES_MAX, .. }),
        "{source:?}"
    );
}

/// Lengths and counts that promise far more than the frame holds.
#[cfg(target_os = "linux")]
#[test]
fn hostile_lengths_use_little_memory() {
    /// What decoding may add to the process's peak: far under what any of these bytes ask for.
    const PEAK_GROWTH_KIB_MAX: u64 = 48 * 1024;
    let id = [&[72][..], b"00000000-0000-0000-0000-000000000007"].concat();
    let length_huge = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    let length_over_limit = [0x82, 0x80, 0x80, 0x01];
    let length_half_gigabyte = [0x80, 0x80, 0x80, 0x80, 0x04];
    let count_endless = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let before_lines = [&id[..], &[0, 0, 0, 0]].concat();
    let hostile = [
        length_huge.to_vec(),
        length_over_limit.to_vec(),
        [&id[..], &length_huge].concat(),
        [&id[..], &length_half_gigabyte].concat(),
        [&before_lines[..], &length_huge].concat(),
        [&before_lines[..], &count_endless].concat(),
        [&before_lines[..], &count_endless, &[0; 4096]].concat(),
    ];
    decode::<Shapes>(&encode(&sample()).unwrap()).unwrap();
    let before = peak_memory_kib();
    for datum in &hostile {
        for _ in 0..100 {
            let refused = decode::<Shapes>(&frame(datum));
            assert!(matches!(refused, Err(CodecError::Decode { .. })), "{datum:?}: {refused:?}");
        }
    }
    // The kernel's count is a little behind, so that it may even seem to go down.
    let grown = peak_memory_kib().saturating_sub(before);
    assert!(grown < PEAK_GROWTH_KIB_MAX, "decoding hostile bytes took {grown} KiB");
}

/// The largest resident size this process ever had.
#[cfg(target_os = "linux")]
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
