//! Frames to JSON and back without a Rust type: for tools that meet any message.
//!
//! A value is shown as it lies on the wire: ids as text, times as numbers, bytes as Avro's own JSON form writes them (one
//! character a byte), a union as the value it holds. So that what is shown can be edited and written again, and so that a
//! value that is wrong in meaning (an id that is no UUID) can still be looked at, logical types are left out of account.

mod fit;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::{Serialize, Serializer};

use super::{CodecError, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, allocation_limit, bounds, frame_schema_id};

/// Why a frame could not be shown, or JSON not be written as a frame.
#[derive(Debug, thiserror::Error)]
pub enum UntypedError {
    /// It is no frame, or too long.
    #[error(transparent)]
    Frame(#[from] CodecError),
    /// No schema of this id is known.
    #[error("schema id {id} is not known here: the writer may be newer than this program")]
    UnknownId {
        /// The id in the frame.
        id: u32,
    },
    /// The datum does not fit its schema, or is cut off.
    #[error("the bytes do not decode as {name}")]
    Decode {
        /// Full name of the record.
        name: String,
        /// What the decoder met.
        source: apache_avro::Error,
    },
    /// The frame ends inside the datum.
    #[error("the bytes end inside {name}: it was cut off")]
    CutOff {
        /// Full name of the record.
        name: String,
    },
    /// The datum ends before the frame does.
    #[error("{bytes} bytes follow the end of {name}")]
    TrailingBytes {
        /// Full name of the record.
        name: String,
        /// How many bytes were left.
        bytes: usize,
    },
    /// The JSON is no value of this schema.
    #[error("no {name}: {place} {what}")]
    Misfit {
        /// Full name of the record.
        name: String,
        /// Where in the value, e.g. `lines[0].quantity`.
        place: String,
        /// What is wrong there, and what would be right.
        what: String,
    },
    /// The schema can not be used.
    #[error("the schema of {name} can not be used: {what}")]
    Schema {
        /// Full name of the record, as it was given.
        name: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Schemas by their ids.
pub struct Schemas {
    by_id: BTreeMap<u32, Known>,
}

struct Known {
    name: String,
    /// Lives as long as the process: a tool knows a bounded number of schemas, and reads them once.
    schema: &'static Schema,
    reader: GenericDatumReader<'static>,
    writer: GenericDatumWriter<'static>,
}

impl Schemas {
    /// From id, full name and schema text of each.
    ///
    /// # Errors
    /// [`UntypedError::Schema`] for the first that is not valid, of another name, or could not be read safely.
    pub fn new<'a>(all: impl IntoIterator<Item = (u32, &'a str, &'a str)>) -> Result<Self, UntypedError> {
        allocation_limit()?;
        let known = all.into_iter().map(|(id, name, text)| Ok((id, Known::new(name, text)?)));
        Ok(Self { by_id: known.collect::<Result<_, UntypedError>>()? })
    }

    /// Full name of the record that this id stands for.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<&str> {
        Some(&self.by_id.get(&id)?.name)
    }

    /// Reads a frame. Memory used is bounded as in [`super::decode`].
    ///
    /// # Errors
    /// Any [`UntypedError`] but [`UntypedError::Misfit`].
    pub fn decode(&self, frame: &[u8]) -> Result<Datum, UntypedError> {
        let id = frame_schema_id(frame)?;
        if frame.len() > FRAME_BYTES_MAX {
            return Err(CodecError::TooLong { bytes: frame.len() }.into());
        }
        let known = self.by_id.get(&id).ok_or(UntypedError::UnknownId { id })?;
        let mut rest = &frame[FRAME_HEADER_BYTES..];
        let value = known
            .reader
            .read_value(&mut rest)
            .map_err(|source| UntypedError::Decode { name: known.name.clone(), source })?;
        // The reader takes the end of the bytes inside a text for a null.
        if !value.validate(known.schema) {
            return Err(UntypedError::CutOff { name: known.name.clone() });
        }
        if !rest.is_empty() {
            return Err(UntypedError::TrailingBytes { name: known.name.clone(), bytes: rest.len() });
        }
        Ok(Datum { schema_id: id, name: known.name.clone(), value })
    }

    /// Writes a frame of this schema. Every field must be there (or have a default in the schema), and none besides.
    ///
    /// # Errors
    /// [`UntypedError::Misfit`] says where; [`UntypedError::UnknownId`]; a value that is too long.
    pub fn encode(&self, id: u32, json: &serde_json::Value) -> Result<Vec<u8>, UntypedError> {
        let known = self.by_id.get(&id).ok_or(UntypedError::UnknownId { id })?;
        let value = fit::value(known.schema, json).map_err(|misfit| UntypedError::Misfit {
            name: known.name.clone(),
            place: misfit.place,
            what: misfit.what,
        })?;
        let mut frame = vec![0];
        frame.extend_from_slice(&id.to_be_bytes());
        let written = known.writer.write_value_ref(&mut frame, &value);
        written.map_err(|source| UntypedError::Schema {
            name: known.name.clone(),
            what: format!("it does not write a value that fits it: {source}"),
        })?;
        if frame.len() > FRAME_BYTES_MAX {
            return Err(CodecError::TooLong { bytes: frame.len() }.into());
        }
        Ok(frame)
    }
}

impl Known {
    fn new(name: &str, text: &str) -> Result<Self, UntypedError> {
        let unfit = |what: String| UntypedError::Schema { name: name.to_owned(), what };
        let mut json: serde_json::Value =
            serde_json::from_str(text).map_err(|error| unfit(error.to_string()))?;
        without_logical_types(&mut json);
        let schema = Schema::parse(&json).map_err(|error| unfit(error.to_string()))?;
        bounds::schema_check(&schema, name).map_err(unfit)?;
        let schema: &'static Schema = Box::leak(Box::new(schema));
        let invalid = |error: apache_avro::Error| unfit(error.to_string());
        Ok(Self {
            name: name.to_owned(),
            schema,
            reader: GenericDatumReader::builder(schema).build().map_err(invalid)?,
            writer: GenericDatumWriter::builder(schema).build().map_err(invalid)?,
        })
    }
}

/// They change nothing on the wire.
fn without_logical_types(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(object) => {
            if object.contains_key("type") {
                object.remove("logicalType");
            }
            object.values_mut().for_each(without_logical_types);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_logical_types),
        _ => {}
    }
}

/// A value that was read. Serializes as its JSON, fields in the schema's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    /// The id in its frame.
    pub schema_id: u32,
    /// Full name of the record.
    pub name: String,
    value: Value,
}

impl Serialize for Datum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        shown::Shown(&self.value).serialize(serializer)
    }
}
