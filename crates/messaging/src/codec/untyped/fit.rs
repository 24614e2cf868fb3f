//! JSON into the Avro value of a schema, strictly, with the place of what does not fit.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordSchema};
use apache_avro::types::Value;
use serde_json::Value as Json;

/// What does not fit, and where.
pub(super) struct Misfit {
    pub(super) place: String,
    pub(super) what: String,
}

/// Reads `json` as a value of `schema`.
pub(super) fn value(schema: &Schema, json: &Json) -> Result<Value, Misfit> {
    let mut named = HashMap::new();
    names(schema, &mut named);
    Fit { named }.value(schema, json, "").map_err(|mut misfit| {
        if misfit.place.is_empty() {
            "the value".clone_into(&mut misfit.place);
        }
        misfit
    })
}

/// Every named type, where it is defined.
fn names<'s>(schema: &'s Schema, named: &mut HashMap<&'s Name, &'s Schema>) {
    match schema {
        Schema::Record(record) => {
            named.insert(&record.name, schema);
            record.fields.iter().for_each(|field| names(&field.schema, named));
        }
        Schema::Enum(symbols) => {
            named.insert(&symbols.name, schema);
        }
        Schema::Fixed(fixed) => {
            named.insert(&fixed.name, schema);
        }
        Schema::Array(array) => names(&array.items, named),
        Schema::Map(map) => names(&map.types, named),
        Schema::Union(union) => union.variants().iter().for_each(|variant| names(variant, named)),
        _ => {}
    }
}

struct Fit<'s> {
    named: HashMap<&'s Name, &'s Schema>,
}

impl Fit<'_> {
    fn value(&self, schema: &Schema, json: &Json, place: &str) -> Result<Value, Misfit> {
        let wrong = |expected: &str| misfit(place, format!("is {}, and should be {expected}", shown(json)));
        Ok(match (schema, json) {
            (Schema::Null, Json::Null) => Value::Null,
            (Schema::Null, _) => return Err(wrong("null")),
            (Schema::Boolean, _) => Value::Boolean(json.as_bool().ok_or_else(|| wrong("true or false"))?),
            (Schema::Int, _) => {
                let int = json.as_i64().and_then(|long| i32::try_from(long).ok());
                Value::Int(int.ok_or_else(|| wrong("a whole number from -2147483648 to 2147483647"))?)
            }
            (Schema::Long, _) => {
                Value::Long(json.as_i64().ok_or_else(|| wrong("a whole number of at most 64 bits"))?)
            }
            #[expect(clippy::cast_possible_truncation, reason = "a float is what the schema asks for")]
            (Schema::Float, _) => Value::Float(json.as_f64().ok_or_else(|| wrong("a number"))? as f32),
            (Schema::Double, _) => Value::Double(json.as_f64().ok_or_else(|| wrong("a number"))?),
            (Schema::String, _) => Value::String(json.as_str().ok_or_else(|| wrong("a text"))?.to_owned()),
            (Schema::Bytes, _) => Value::Bytes(bytes(json).ok_or_else(|| wrong(BYTES))?),
            (Schema::Fixed(fixed), _) => {
                let found = bytes(json).filter(|bytes| bytes.len() == fixed.size);
                let found = found.ok_or_else(|| wrong(&format!("{BYTES}, {} of them", fixed.size)))?;
                Value::Fixed(fixed.size, found)
            }
            (Schema::Enum(symbols), _) => {
                let at = symbols.symbols.iter().position(|symbol| Some(symbol.as_str()) == json.as_str());
                let at = at.ok_or_else(|| wrong(&format!("one of {}", symbols.symbols.join(", "))))?;
                let index = u32::try_from(at).map_err(|_| wrong("one of fewer symbols"))?;
                Value::Enum(index, symbols.symbols[at].clone())
            }
            (Schema::Array(array), Json::Array(items)) => {
                let items = items.iter().enumerate();
                let items = items.map(|(n, item)| self.value(&array.items, item, &format!("{place}[{n}]")));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            (Schema::Array(_), _) => return Err(wrong("an array")),
            (Schema::Map(map), Json::Object(entries)) => {
                let entries = entries.iter().map(|(name, entry)| {
                    Ok((name.clone(), self.value(&map.types, entry, &under(place, name))?))
                });
                Value::Map(entries.collect::<Result<_, Misfit>>()?)
            }
            (Schema::Union(union), _) => self.union(union.variants(), json, place)?,
            (Schema::Record(record), Json::Object(fields)) => self.record(record, fields, place)?,
            (Schema::Map(_) | Schema::Record(_), _) => return Err(wrong("an object")),
            (Schema::Ref { name }, _) => match self.named.get(name) {
                Some(schema) => self.value(schema, json, place)?,
                None => return Err(misfit(place, format!("is of type {name}, which is nowhere defined"))),
            },
            (other, _) => return Err(misfit(place, format!("is of type {other}, which is not supported"))),
        })
    }

    fn record(
        &self,
        record: &RecordSchema,
        given: &serde_json::Map<String, Json>,
        place: &str,
    ) -> Result<Value, Misfit> {
        if let Some(unknown) = given.keys().find(|name| record.fields.iter().all(|f| f.name != **name)) {
            let known: Vec<&str> = record.fields.iter().map(|field| field.name.as_str()).collect();
            let what = format!("is no field of {}; its fields are {}", record.name, known.join(", "));
            return Err(misfit(&under(place, unknown), what));
        }
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let place = under(place, &field.name);
            let json = given.get(&field.name).or(field.default.as_ref());
            let json = json.ok_or_else(|| misfit(&place, "is missing".to_owned()))?;
            fields.push((field.name.clone(), self.value(&field.schema, json, &place)?));
        }
        Ok(Value::Record(fields))
    }

    /// The first variant that the value fits. With one variant beside null, its own complaint is told.
    fn union(&self, variants: &[Schema], json: &Json, place: &str) -> Result<Value, Misfit> {
        let mut complaints = Vec::new();
        for (index, variant) in variants.iter().enumerate() {
            match self.value(variant, json, place) {
                Ok(value) => {
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    return Ok(Value::Union(index, Box::new(value)));
                }
                Err(_) if matches!(variant, Schema::Null) => {}
                Err(complaint) => complaints.push(complaint),
            }
        }
        match complaints.len() {
            1 => Err(complaints.remove(0)),
            _ => Err(misfit(place, format!("is {}, which fits no variant of its union", shown(json)))),
        }
    }
}

const BYTES: &str = "a text with one character for each byte (\\u0000 to \\u00ff)";

fn bytes(json: &Json) -> Option<Vec<u8>> {
    json.as_str()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

fn under(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

fn misfit(place: &str, what: String) -> Misfit {
    Misfit { place: place.to_owned(), what }
}

/// The value in an error: short, since it stands in one line.
fn shown(json: &Json) -> String {
    match json {
        Json::Object(_) => "an object".to_owned(),
        Json::Array(_) => "an array".to_owned(),
        Json::String(text) if text.chars().count() > 64 => "a long text".to_owned(),
        other => other.to_string(),
    }
}
