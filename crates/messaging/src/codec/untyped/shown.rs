//! An Avro value as JSON, fields in the schema's order.

use apache_avro::types::Value;
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};

pub(super) struct Shown<'a>(pub(super) &'a Value);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Boolean(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i32(*value),
            Value::Long(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f32(*value),
            Value::Double(value) => serializer.serialize_f64(*value),
            Value::String(text) | Value::Enum(_, text) => serializer.serialize_str(text),
            Value::Bytes(bytes) | Value::Fixed(_, bytes) => {
                serializer.serialize_str(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>())
            }
            Value::Union(_, value) => Shown(value).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Shown)),
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(name, _)| *name);
                serializer.collect_map(entries.into_iter().map(|(name, value)| (name, Shown(value))))
            }
            Value::Record(fields) => {
                let mut object = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    object.serialize_entry(name, &Shown(value))?;
                }
                object.end()
            }
            other => {
                Err(S::Error::custom(format!("{other:?} is of a logical type, which is never read here")))
            }
        }
    }
}
