//! A dead letter's value as JSON, and JSON as the value of one.

use anyhow::{Context as _, bail};
use serde_json::Value;
use waybill_events::KNOWN;
use waybill_messaging::codec::frame_schema_id;
use waybill_messaging::codec::untyped::Schemas;

use crate::contract::{ShownValue, from_base64};
use crate::operator::answers::DeadLetterDetail;
use crate::table::or_dash;

/// The value as it is shown, in the schema's order when it is written.
pub(super) fn shown(schemas: &Schemas, payload_base64: Option<&str>) -> anyhow::Result<ShownValue> {
    let payload = payload_base64.map(from_base64).transpose()?;
    Ok(ShownValue::new(schemas, payload.as_deref()))
}

/// For people: the decoded value, or why there is none.
pub(super) fn pretty(shown: &ShownValue) -> anyhow::Result<String> {
    let text = match (&shown.value, &shown.error, &shown.value_base64) {
        (Some(value), ..) => serde_json::to_string_pretty(value)?,
        (None, Some(error), bytes) => format!("not decoded: {error}\nbase64: {}", or_dash(bytes)),
        (None, None, _) => "null".to_owned(),
    };
    Ok(indented(&text))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// What a replay would send: the patch, else the original.
pub(super) fn current(detail: &DeadLetterDetail) -> anyhow::Result<Option<Vec<u8>>> {
    let patched = detail.patch.as_ref().and_then(|patch| patch.payload_base64.as_deref());
    patched.or(detail.payload_base64.as_deref()).map(from_base64).transpose()
}

/// The schema a new value is written with: that of the frame when it is known, else the one of the message's type.
pub(super) fn schema_id(id: &str, kind: Option<&str>, frame: Option<&[u8]>) -> anyhow::Result<u32> {
    let named = frame.and_then(|frame| frame_schema_id(frame).ok());
    if let Some(id) = named.filter(|id| KNOWN.iter().any(|known| known.schema_id == *id)) {
        return Ok(id);
    }
    match KNOWN.iter().find(|known| Some(known.kind) == kind) {
        Some(known) => Ok(known.schema_id),
        None => bail!(
            "dead letter {id} has no schema that is known here (type {}): it can be discarded, not edited",
            kind.unwrap_or("not told")
        ),
    }
}

/// JSON as a frame that a consumer can read.
pub(super) fn frame(schemas: &Schemas, schema_id: u32, json: &Value) -> anyhow::Result<Vec<u8>> {
    let frame = schemas.encode(schema_id, json)?;
    waybill_events::check(schema_id, &frame)
        .with_context(|| format!("schema id {schema_id} is not known here"))?
        .context("it fits the schema, and the consumer would refuse it all the same")?;
    Ok(frame)
}
