//! Header JSON of a row -> Kafka headers, in order, borrowed from the row.

use std::borrow::Cow;
use std::fmt;

use rdkafka::message::{Header, OwnedHeaders};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Enough for an envelope of this project without growing; more are taken too.
const HEADERS_USUAL: usize = 12;

/// The headers of a row; `None` when the object is empty. A text becomes its UTF-8 bytes, `null` a header without a
/// value, anything else its JSON text: a row is never refused for its headers.
///
/// # Errors
/// When the text is no JSON object, which the table's check does not let in.
pub fn headers(json: &[u8]) -> Result<Option<OwnedHeaders>, serde_json::Error> {
    if json == b"{}" {
        return Ok(None);
    }
    let Headers(headers) = serde_json::from_slice(json)?;
    Ok(headers)
}

struct Headers(Option<OwnedHeaders>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadersVisitor).map(Headers)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Option<OwnedHeaders>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of header names and texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut headers: Option<OwnedHeaders> = None;
        while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            let (name, text) = (text(name), text(value));
            let header = Header { key: name.as_deref().unwrap_or_default(), value: text.as_deref() };
            let before = headers.take().unwrap_or_else(|| OwnedHeaders::new_with_capacity(HEADERS_USUAL));
            headers = Some(before.insert(header));
        }
        Ok(headers)
    }
}

/// A name or a value: most texts have no escapes and are taken as they lie there; so are those whose escapes mean nothing
/// (half of a surrogate pair), which the table's check lets in.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => {
            let inner = json.get(1..json.len() - 1).unwrap_or_default();
            if inner.contains('\\') {
                let text = serde_json::from_str::<String>(json).unwrap_or_else(|_| inner.to_owned());
                Some(Cow::Owned(text))
            } else {
                Some(Cow::Borrowed(inner))
            }
        }
        _ => Some(Cow::Borrowed(json)),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;

    fn read(json: &str) -> Vec<(String, Option<String>)> {
        let headers = headers(json.as_bytes()).unwrap();
        let headers = headers.iter().flat_map(|all| {
            all.iter().map(|header| {
                (header.key.to_owned(), header.value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
            })
        });
        headers.collect()
    }

    #[test]
    fn order_repeats_and_escapes_are_kept() {
        let json = r#"{ "ce_id" : "1", "b":"zwei \"Worte\" \u00e4", "a":"", "ce_id":"2", "x\n":"\\" }"#;
        let expected = [("ce_id", "1"), ("b", "zwei \"Worte\" ä"), ("a", ""), ("ce_id", "2"), ("x\n", "\\")];
        let expected = expected.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
        assert_eq!(read(json), expected);
    }

    #[test]
    fn what_is_no_text_is_carried_as_its_json() {
        let read = read(r#"{"n":null,"i":7,"o":{"a":[1, 2]},"t":true}"#);
        let expected = [("n", None), ("i", Some("7")), ("o", Some(r#"{"a":[1, 2]}"#)), ("t", Some("true"))];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
    }

    #[test]
    fn escapes_that_mean_nothing_are_taken_as_they_are_in_names_too() {
        let json = r#"{"\ud800":"x","a":"\udc00!","\u00e4":"y"}"#;
        let expected = [(r"\ud800", "x"), ("a", r"\udc00!"), ("ä", "y")];
        assert_eq!(read(json), expected.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
    }

    #[test]
    fn an_empty_object_has_no_headers() {
        assert!(headers(b"{}").unwrap().is_none());
        assert!(headers(b" { } ").unwrap().is_none());
        assert!(headers(b"[]").is_err());
    }
}
