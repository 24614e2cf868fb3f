//! The message contract as this program knows it: built in, and each frame shown by it.

use anyhow::Context as _;
use serde::{Serialize, Serializer};
use waybill_events::KNOWN;
use waybill_messaging::codec::untyped::{Datum, Schemas};

/// Every schema this program was built with.
pub(crate) fn schemas() -> anyhow::Result<Schemas> {
    Schemas::new(KNOWN.iter().map(|known| (known.schema_id, known.name, known.schema)))
        .context("this program was built with a schema it can not use")
}

/// A value as it is shown: decoded, or its bytes and why they could not be decoded.
#[derive(Debug, Serialize)]
pub(crate) struct ShownValue {
    /// What the frame names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<ShownSchema>,
    /// `null` for a tombstone, and where it could not be decoded.
    pub(crate) value: Option<Datum>,
    /// Why it could not be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The whole value, where it could not be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value_base64: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ShownSchema {
    pub(crate) id: u32,
    pub(crate) name: String,
}

impl ShownValue {
    /// Decodes a value; never fails, but says so.
    pub(crate) fn new(schemas: &Schemas, value: Option<&[u8]>) -> Self {
        let Some(frame) = value else {
            return Self { schema: None, value: None, error: None, value_base64: None };
        };
        match schemas.decode(frame) {
            Ok(datum) => Self {
                schema: Some(ShownSchema { id: datum.schema_id, name: datum.name.clone() }),
                value: Some(datum),
                error: None,
                value_base64: None,
            },
            Err(error) => Self {
                schema: None,
                value: None,
                error: Some(format!("{:#}", anyhow::Error::new(error))),
                value_base64: Some(base64(frame)),
            },
        }
    }

    /// Whether the bytes were what the contract says.
    pub(crate) fn is_decoded(&self) -> bool {
        self.error.is_none()
    }
}

/// Bytes that are text most of the time: a text, or `{"base64": ...}`.
#[derive(Debug)]
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_map([("base64", base64(self.0))]),
        }
    }
}

/// In the standard alphabet, padded.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Reads what [`base64`] writes.
pub(crate) fn from_base64(text: &str) -> anyhow::Result<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).context("not base64 in the standard alphabet")
}
