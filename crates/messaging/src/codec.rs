//! The bytes of a message: Confluent frame and Avro datum, made once by the command and read by every consumer.
//!
//! A frame is byte `00`, the schema's id as four bytes big-endian, and one Avro datum. (Newer Confluent clients can name
//! the schema by a GUID in the header `__value_schema_id` instead; that form is neither written nor read here.)
//!
//! Readers expect hostile bytes: a frame is bounded, so is every allocation made for it, bytes after the datum are
//! refused, and a contract whose schema would let few bytes stand for endless work is refused before its first use.

mod bounds;
#[cfg(test)]
mod tests;
pub mod untyped;

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The `content-type` header of every message: the media type of the datum, as in CloudEvents' Kafka binding.
pub const CONTENT_TYPE: &str = "application/avro";

/// Longest frame made or read. A broker takes 1,048,588 bytes for a record with its key and headers
/// (`max.message.bytes` in schemas/topics.toml; the retry topics' larger one is for more headers); a longer value can only
/// come from a topic that is set up differently.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Length of what comes before the datum: the zero byte and the schema id.
pub const FRAME_HEADER_BYTES: usize = 5;

/// First guess at a frame's length: most messages are two ids and a few numbers, longer ones grow.
const FRAME_BYTES_USUAL: usize = 160;

/// Largest single allocation the Avro decoder may make: no string can be longer than the frame that holds it.
/// Its own default, 512 MiB, lets 7 bytes ask for half a gigabyte.
const ALLOCATION_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// A message that services agreed on: a Rust type and the Avro schema it is written and read with.
///
/// The serde names must be the schema's: fields by name, and each struct named like its record.
pub trait Contract: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Full name of the record, e.g. `waybill.orders.OrderPlaced`.
    const NAME: &'static str;
    /// What `ce_type` says, e.g. `OrderPlaced`.
    const TYPE: &'static str;
    /// The pinned id of [`Self::SCHEMA`], from schemas/ids.json.
    const SCHEMA_ID: u32;
    /// The Avro schema, as JSON.
    const SCHEMA: &'static str;
}

/// Why bytes could not be made or read. None of these goes away by trying again: the message or the program is wrong.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not start like a Confluent frame.
    #[error("no Confluent frame: {what}; a value starts with 00 and a schema id of four bytes")]
    NotAFrame {
        /// What is wrong with the first bytes.
        what: &'static str,
    },
    /// The frame is longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLong {
        /// Length of the frame in bytes.
        bytes: usize,
    },
    /// The frame was written with a schema that this type does not know.
    #[error(
        "schema id {found} is not a version of {name} (id {expected}); \
         either ce_type names another message, or the writer is newer than this program"
    )]
    UnknownSchema {
        /// Full name of the record that was expected.
        name: &'static str,
        /// The id in the frame.
        found: u32,
        /// The id of the version this program writes.
        expected: u32,
    },
    /// The datum does not fit its schema, or is cut off.
    #[error("the bytes do not decode as {name}")]
    Decode {
        /// Full name of the record.
        name: &'static str,
        /// What the decoder met.
        #[source]
        source: apache_avro::Error,
    },
    /// The datum ends before the frame does.
    #[error("{bytes} bytes follow the end of {name}")]
    TrailingBytes {
        /// Full name of the record.
        name: &'static str,
        /// How many bytes were left.
        bytes: usize,
    },
    /// The value does not fit its schema: a fault of this program.
    #[error("the value does not encode as {name}; its type and its schema disagree")]
    Encode {
        /// Full name of the record.
        name: &'static str,
        /// What the encoder met.
        #[source]
        source: apache_avro::Error,
    },
    /// The contract's schema is not valid Avro: a fault of this program.
    #[error("the schema of {name} is not valid")]
    Schema {
        /// Full name of the record.
        name: &'static str,
        /// What the parser met.
        #[source]
        source: apache_avro::Error,
    },
    /// The contract's schema can not be read safely or is another record's: a fault of this program.
    #[error("the schema of {name} can not be used: {what}")]
    Unfit {
        /// Full name of the record.
        name: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Something in this process decoded Avro before with a larger allocation limit, which can be set only once.
    #[error(
        "the Avro decoder of this process may allocate {bytes} bytes at once, more than {ALLOCATION_BYTES_MAX}; \
         decode through waybill_messaging::codec only"
    )]
    AllocationLimit {
        /// The limit in force, in bytes.
        bytes: usize,
    },
}

/// The whole value of a record: frame header and datum. The schema is parsed once per type and process.
///
/// # Errors
/// [`CodecError::TooLong`] for a value that is too big to send; else only what is a fault of this program
/// ([`CodecError::Encode`], [`CodecError::Schema`], [`CodecError::Unfit`]).
pub fn encode<T: Contract>(value: &T) -> Result<Vec<u8>, CodecError> {
    let codec = codec_of::<T>()?;
    let mut frame = Vec::with_capacity(FRAME_BYTES_USUAL);
    frame.push(0);
    frame.extend_from_slice(&T::SCHEMA_ID.to_be_bytes());
    codec
        .writer
        .write_ser(&mut frame, value)
        .map_err(|source| CodecError::Encode { name: T::NAME, source })?;
    if frame.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong { bytes: frame.len() });
    }
    Ok(frame)
}

/// Reads a value back from a frame that was written with the schema of `T`.
///
/// Memory used is bounded by [`FRAME_BYTES_MAX`] and the size of `T`, whatever the bytes say.
///
/// # Errors
/// Any [`CodecError`]; the same bytes fail again, so that the record belongs into the dead letters.
pub fn decode<T: Contract>(bytes: &[u8]) -> Result<T, CodecError> {
    let found = frame_schema_id(bytes)?;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong { bytes: bytes.len() });
    }
    let codec = codec_of::<T>()?;
    let reader = codec.reader_of::<T>(found)?;
    let mut datum = &bytes[FRAME_HEADER_BYTES..];
    let value =
        reader.read_deser(&mut datum).map_err(|source| CodecError::Decode { name: T::NAME, source })?;
    if !datum.is_empty() {
        return Err(CodecError::TrailingBytes { name: T::NAME, bytes: datum.len() });
    }
    Ok(value)
}

/// The schema id a frame names, without reading its datum.
///
/// # Errors
/// [`CodecError::NotAFrame`] when the bytes are too short or do not start with `00`.
pub fn frame_schema_id(bytes: &[u8]) -> Result<u32, CodecError> {
    let Some((&[magic, a, b, c, d], _)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(CodecError::NotAFrame { what: "it is shorter than five bytes" });
    };
    if magic != 0 {
        return Err(CodecError::NotAFrame { what: "its first byte is not 00" });
    }
    Ok(u32::from_be_bytes([a, b, c, d]))
}

/// What is prepared once for a contract. Lives as long as the process: contracts are types, so their number is bounded.
struct Codec {
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
}

impl Codec {
    /// The reader for a frame written with the schema of this id.
    ///
    /// Today a message has one version, and writer and reader schema are the same, which `read_deser` needs.
    /// This is the place where further versions are looked up and resolved.
    fn reader_of<T: Contract>(&self, found: u32) -> Result<&GenericDatumReader<'static>, CodecError> {
        if found == T::SCHEMA_ID {
            Ok(&self.reader)
        } else {
            Err(CodecError::UnknownSchema { name: T::NAME, found, expected: T::SCHEMA_ID })
        }
    }
}

/// Keyed by type, not by name or id: two types that claim the same id must not read with each other's schema.
static CODECS: LazyLock<RwLock<HashMap<TypeId, &'static Codec>>> = LazyLock::new(RwLock::default);

fn codec_of<T: Contract>() -> Result<&'static Codec, CodecError> {
    let of = TypeId::of::<T>();
    if let Some(codec) = CODECS.read().unwrap_or_else(PoisonError::into_inner).get(&of) {
        return Ok(codec);
    }
    let mut codecs = CODECS.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(codec) = codecs.get(&of) {
        return Ok(codec);
    }
    let codec: &'static Codec = Box::leak(Box::new(codec_new::<T>()?));
    codecs.insert(of, codec);
    Ok(codec)
}

/// Limits what the decoder of this process may allocate at once.
fn allocation_limit() -> Result<(), CodecError> {
    let limit = apache_avro::util::max_allocation_bytes(ALLOCATION_BYTES_MAX);
    if limit > ALLOCATION_BYTES_MAX {
        return Err(CodecError::AllocationLimit { bytes: limit });
    }
    Ok(())
}

fn codec_new<T: Contract>() -> Result<Codec, CodecError> {
    allocation_limit()?;
    let invalid = |source| CodecError::Schema { name: T::NAME, source };
    let schema = Schema::parse_str(T::SCHEMA).map_err(invalid)?;
    bounds::schema_check(&schema, T::NAME).map_err(|what| CodecError::Unfit { name: T::NAME, what })?;
    let schema: &'static Schema = Box::leak(Box::new(schema));
    Ok(Codec {
        // Ids are written as text, so that other languages read them without knowing how serde packs a UUID.
        writer: GenericDatumWriter::builder(schema).human_readable(true).build().map_err(invalid)?,
        reader: GenericDatumReader::builder(schema).human_readable(true).build().map_err(invalid)?,
    })
}
