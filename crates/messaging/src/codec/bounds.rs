//! Which schemas may be read at all: those in which more work needs more bytes.
//!
//! Two shapes break that rule. An array (or map) of items that take no bytes lets a ten-byte count stand for 2^62
//! items; a record that contains itself lets a megabyte of bytes recurse a million deep. Contracts need neither.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::Name;

/// Checks that the schema is the record `name` and that its size in memory is bounded by its size on the wire.
/// The error says what is wrong with it.
pub(super) fn schema_check(schema: &Schema, name: &str) -> Result<(), String> {
    let Schema::Record(record) = schema else {
        return Err("it is not a record".to_owned());
    };
    let full_name = record.name.to_string();
    if full_name != name {
        return Err(format!("it is the schema of {full_name}"));
    }
    takes_bytes(schema, &mut HashMap::new()).map(|_| ())
}

/// Whether every datum of this schema takes at least one byte. `seen` holds the answer for each named type that was
/// defined before, and `None` while its definition is still open.
fn takes_bytes(schema: &Schema, seen: &mut HashMap<Name, Option<bool>>) -> Result<bool, String> {
    match schema {
        Schema::Null => Ok(false),
        Schema::Fixed(fixed) => {
            seen.insert(fixed.name.clone(), Some(fixed.size > 0));
            Ok(fixed.size > 0)
        }
        Schema::Enum(symbols) => {
            seen.insert(symbols.name.clone(), Some(true));
            Ok(true)
        }
        Schema::Array(array) => items_check(&array.items, seen),
        Schema::Map(map) => items_check(&map.types, seen),
        Schema::Union(union) => {
            for variant in union.variants() {
                takes_bytes(variant, seen)?;
            }
            Ok(true)
        }
        Schema::Record(record) => {
            seen.insert(record.name.clone(), None);
            let mut any = false;
            for field in &record.fields {
                any |= takes_bytes(&field.schema, seen)?;
            }
            seen.insert(record.name.clone(), Some(any));
            Ok(any)
        }
        Schema::Ref { name } => match seen.get(name) {
            Some(Some(answer)) => Ok(*answer),
            Some(None) => Err(format!("{name} contains itself, so that few bytes could nest without end")),
            None => Err(format!("{name} is used before it is defined")),
        },
        _ => Ok(true),
    }
}

fn items_check(items: &Schema, seen: &mut HashMap<Name, Option<bool>>) -> Result<bool, String> {
    if takes_bytes(items, seen)? {
        Ok(true)
    } else {
        Err("it has an array or a map whose items take no bytes, so that a count alone could stand for endless work".to_owned())
    }
}
