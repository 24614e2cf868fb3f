//! Each Rust type against its schema: names, order and types of fields; each schema against the rules of the contract.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use waybill_events::{KNOWN, Published};
use waybill_messaging::codec::{decode, encode};

use crate::samples::{Visit, visit_all};
use crate::shapes::{Shape, shape_of};
use crate::{pinned_ids, schemas, schemas_text};

#[test]
fn each_type_has_the_fields_of_its_schema() {
    struct Check(Vec<&'static str>);
    impl Visit for Check {
        fn visit<T: Published + Serialize + DeserializeOwned + Debug + PartialEq>(
            &mut self,
            cases: &[(&str, T)],
        ) {
            let schema: Value = serde_json::from_str(T::SCHEMA).unwrap();
            for (name, value) in cases {
                let shape = shape_of(value);
                assert!(
                    matches(&shape, &schema),
                    "{} {name}: the type is {shape:#?}, the schema {schema:#}",
                    T::NAME
                );
                let frame = encode(value).unwrap();
                assert_eq!(decode::<T>(&frame).unwrap(), *value, "{} {name}", T::NAME);
            }
            self.0.push(T::NAME);
        }
    }
    let mut seen = Check(Vec::new());
    visit_all(&mut seen);
    assert_eq!(
        seen.0,
        KNOWN.iter().map(|known| known.name).collect::<Vec<_>>(),
        "every message has samples, by id"
    );
}

/// Whether a value of this shape is exactly what the schema says: no name, order or width differs.
fn matches(shape: &Shape, schema: &Value) -> bool {
    match (shape, schema) {
        (Shape::Record(name, fields), Value::Object(record)) if record["type"] == "record" => {
            let declared = record["fields"].as_array().unwrap();
            record["name"] == *name
                && declared.len() == fields.len()
                && declared.iter().zip(fields).all(|(declared, (field, shape))| {
                    declared["name"] == *field && matches(shape, &declared["type"])
                })
        }
        (Shape::Array(items), Value::Object(array)) if array["type"] == "array" => {
            items.iter().all(|item| matches(item, &array["items"]))
        }
        (Shape::Null, Value::Array(union)) => union.len() == 2 && union[0] == "null",
        (Shape::Some(inner), Value::Array(union)) => {
            union.len() == 2 && union[0] == "null" && matches(inner, &union[1])
        }
        (Shape::Int, Value::String(kind)) => kind == "int",
        (Shape::Long, Value::String(kind)) => kind == "long",
        (Shape::Text, Value::String(kind)) => kind == "string",
        (Shape::Text, Value::Object(logical)) => {
            logical["type"] == "string" && logical["logicalType"] == "uuid"
        }
        (Shape::Long, Value::Object(logical)) => {
            logical["type"] == "long" && logical["logicalType"] == "timestamp-micros"
        }
        _ => false,
    }
}

#[test]
fn ids_are_the_pinned_ones_and_never_shared() {
    let pinned = pinned_ids();
    assert_eq!(pinned.len(), KNOWN.len());
    for (at, known) in KNOWN.iter().enumerate() {
        assert_eq!(pinned[known.name], known.schema_id, "{}", known.name);
        assert_eq!(known.schema_id as usize, at + 1, "{}: ids go up from 1 without gaps", known.name);
    }
}

#[test]
fn every_schema_file_is_a_message_named_like_its_file() {
    let mut files = BTreeSet::new();
    for service in ["orders", "inventory", "payments"] {
        for entry in std::fs::read_dir(schemas().join(service)).unwrap() {
            files.insert(schema_name(service, &entry.unwrap().path()));
        }
    }
    let pinned: BTreeSet<String> = pinned_ids().keys().cloned().collect();
    assert_eq!(files, pinned);
}

/// Full name of the record in this file, after checking that the file is where the name says.
fn schema_name(service: &str, path: &Path) -> String {
    let file = path.file_name().unwrap().to_str().unwrap();
    let schema: Value = serde_json::from_str(&schemas_text(&format!("{service}/{file}"))).unwrap();
    assert_eq!(schema["namespace"], format!("waybill.{service}"), "{file}");
    let name = schema["name"].as_str().unwrap();
    assert_eq!(file, format!("{name}.avsc"));
    documented(&schema, name);
    format!("waybill.{service}.{name}")
}

/// Every record and every field says what it is, in a sentence.
fn documented(record: &Value, place: &str) {
    let said = |value: &Value| value["doc"].as_str().is_some_and(|doc| doc.len() > 10 && doc.ends_with('.'));
    assert!(said(record), "{place} has no doc");
    for field in record["fields"].as_array().unwrap() {
        let place = format!("{place}.{}", field["name"]);
        assert!(said(field), "{place} has no doc");
        if field["type"]["type"] == "array" {
            documented(&field["type"]["items"], &place);
        }
    }
}
