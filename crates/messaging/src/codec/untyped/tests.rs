//! Frames of any schema, shown and written again.

use serde_json::json;

use super::*;

const SCHEMA: &str = r#"{
  "type": "record", "name": "All", "namespace": "t", "fields": [
    {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "count", "type": "int"},
    {"name": "yes", "type": "boolean"},
    {"name": "raw", "type": "bytes"},
    {"name": "four", "type": {"type": "fixed", "name": "Four", "size": 4}},
    {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}},
    {"name": "note", "type": ["null", "string"], "default": null},
    {"name": "more", "type": {"type": "map", "values": "double"}},
    {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
      {"name": "other", "type": "Four"}, {"name": "n", "type": "long"}]}}}
  ]}"#;

fn schemas() -> Schemas {
    Schemas::new([(7, "t.All", SCHEMA)]).unwrap()
}

fn value() -> serde_json::Value {
    json!({
        "id": "not a uuid", "at": 1_767_225_600_123_456_i64, "count": -5, "yes": true, "raw": "\u{0}\u{ff}a",
        "four": "abcd", "colour": "BLUE", "note": "n", "more": {"a": 1.5},
        "lines": [{"other": "wxyz", "n": i64::MAX}]
    })
}

#[test]
fn what_is_written_is_read_and_shown_the_same() {
    let frame = schemas().encode(7, &value()).unwrap();
    assert_eq!(frame[..5], [0, 0, 0, 0, 7]);
    let datum = schemas().decode(&frame).unwrap();
    assert_eq!((datum.schema_id, datum.name.as_str()), (7, "t.All"));
    assert_eq!(serde_json::to_value(&datum).unwrap(), value());
    assert!(
        serde_json::to_string(&datum).unwrap().starts_with("{\"id\":\"not a uuid\",\"at\":"),
        "schema's order"
    );
}

#[test]
fn a_default_stands_in_for_what_is_left_out() {
    let mut given = value();
    given.as_object_mut().unwrap().remove("note");
    let frame = schemas().encode(7, &given).unwrap();
    let shown = serde_json::to_value(schemas().decode(&frame).unwrap()).unwrap();
    assert_eq!(shown["note"], serde_json::Value::Null);
}

#[test]
fn a_misfit_is_named_with_its_place() {
    for (place, wrong, what) in [
        ("/count", json!(3_000_000_000_i64), "count is 3000000000, and should be a whole number from"),
        ("/lines/0/n", json!("x"), "lines[0].n is \"x\", and should be a whole number"),
        ("/lines/0", json!({"n": 1}), "lines[0].other is missing"),
        ("/four", json!("abc"), "four is \"abc\", and should be a text with one character for each byte"),
        ("/colour", json!("GREEN"), "colour is \"GREEN\", and should be one of RED, BLUE"),
        ("/note", json!(1), "note is 1, and should be a text"),
        ("/raw", json!("\u{100}"), "raw is"),
        ("", json!([]), "the value is an array, and should be an object"),
    ] {
        let mut given = value();
        *given.pointer_mut(place).unwrap() = wrong;
        let said = schemas().encode(7, &given).unwrap_err().to_string();
        assert!(said.starts_with("no t.All: ") && said.contains(what), "{said}");
    }
    let mut given = value();
    given["lines"][0]["colour"] = json!(1);
    let said = schemas().encode(7, &given).unwrap_err().to_string();
    assert!(said.contains("lines[0].colour is no field of t.Line; its fields are other, n"), "{said}");
}

#[test]
fn hostile_frames_are_errors() {
    let frame = schemas().encode(7, &value()).unwrap();
    for length in 0..frame.len() {
        assert!(schemas().decode(&frame[..length]).is_err(), "cut to {length}");
    }
    let longer = [frame.as_slice(), &[0]].concat();
    assert!(matches!(schemas().decode(&longer), Err(UntypedError::TrailingBytes { bytes: 1, .. })));
    assert!(matches!(schemas().decode(&[0, 0, 0, 0, 8]), Err(UntypedError::UnknownId { id: 8 })));
    // A text of half a gigabyte, said in few bytes.
    assert!(schemas().decode(&[0, 0, 0, 0, 7, 0x80, 0x80, 0x80, 0x80, 0x04]).is_err());
    let endless =
        r#"{"type":"record","name":"E","fields":[{"name":"a","type":{"type":"array","items":"null"}}]}"#;
    assert!(matches!(Schemas::new([(1, "E", endless)]), Err(UntypedError::Schema { .. })));
}
