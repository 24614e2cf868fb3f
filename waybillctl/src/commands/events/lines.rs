//! One record as a line, and whether it fits a filter.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use waybill_messaging::codec::untyped::Schemas;
use waybill_messaging::headers::{CE_CORRELATIONID, CE_ID, CE_TYPE};
use waybill_messaging::record::Record;

use crate::cli::{EventFilter, key_word};
use crate::contract::{ShownValue, Text};
use crate::when;

/// Whether all that is given fits.
pub(crate) fn fits(filter: &EventFilter, record: &Record) -> bool {
    let header = |wanted: &Option<String>, name: &str| match wanted {
        Some(wanted) => record.header(name) == Some(wanted),
        None => true,
    };
    filter.key.as_ref().is_none_or(|key| record.key.as_deref() == Some(key.bytes()))
        && (filter.kinds.is_empty() || filter.kinds.iter().any(|kind| record.header(CE_TYPE) == Some(kind)))
        && header(&filter.id, CE_ID)
        && header(&filter.correlation_id, CE_CORRELATIONID)
        && filter.partition.is_none_or(|partition| record.partition == partition)
        && record.timestamp_ms.is_none_or(|ms| {
            filter.since.is_none_or(|since| ms >= since.timestamp_millis())
                && filter.until.is_none_or(|until| ms < until.timestamp_millis())
        })
}

/// One line of JSON: a contract, fields are added and never changed.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// When it was sent, RFC 3339.
    time: Option<String>,
    key: Option<Text<'a>>,
    headers: Headers<'a>,
    #[serde(flatten)]
    value: ShownValue,
}

impl<'a> Line<'a> {
    pub(crate) fn new(schemas: &Schemas, record: &'a Record) -> Self {
        Self {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            time: record.timestamp_ms.and_then(when::of_ms),
            key: record.key.as_deref().map(Text),
            headers: Headers(&record.headers),
            value: ShownValue::new(schemas, record.payload.as_deref()),
        }
    }

    pub(crate) fn is_decoded(&self) -> bool {
        self.value.is_decoded()
    }

    /// For people: time, place, key, type, value.
    pub(crate) fn text(&self) -> String {
        let kind = self.headers.0.iter().rev().find(|(name, _)| name == CE_TYPE);
        let kind = kind.map_or("-".into(), |(_, kind)| String::from_utf8_lossy(kind));
        let key = self.key.as_ref().map_or("-".into(), |key| key_word(key.0));
        let value = match (&self.value.value, &self.value.error) {
            (Some(value), _) => serde_json::to_string(value).unwrap_or_else(|error| error.to_string()),
            (None, Some(error)) => format!("({error})"),
            (None, None) => "(null)".to_owned(),
        };
        let time = self.time.as_deref().unwrap_or("-");
        format!("{time} {}[{}]@{} {key} {kind} {value}", self.topic, self.partition, self.offset)
    }
}

/// In their order. A name that comes twice has an array of its values.
struct Headers<'a>(&'a [(String, Vec<u8>)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for (at, (name, value)) in self.0.iter().enumerate() {
            if self.0[..at].iter().any(|(before, _)| before == name) {
                continue;
            }
            let more: Vec<Text<'_>> =
                self.0[at..].iter().filter(|(n, _)| n == name).map(|(_, v)| Text(v)).collect();
            if more.len() == 1 {
                object.serialize_entry(name, &Text(value))?;
            } else {
                object.serialize_entry(name, &more)?;
            }
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RecordKey;
    use crate::contract;

    fn record() -> Record {
        let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        Record {
            topic: "t.orders.events".to_owned(),
            partition: 2,
            offset: 7,
            timestamp_ms: Some(1_767_225_600_123),
            key: Some("k1".into()),
            headers: vec![
                header("ce_type", b"OrderPlaced"),
                header("x", b"1"),
                header("bin", &[0xff]),
                header("x", b"2"),
            ],
            payload: Some(vec![1, 2, 3].into()),
        }
    }

    #[test]
    fn what_is_no_frame_is_shown_with_its_bytes() {
        let schemas = contract::schemas().unwrap();
        let record = record();
        let line = Line::new(&schemas, &record);
        assert!(!line.is_decoded());
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"topic":"t.orders.events","partition":2,"offset":7,"time":"2026-01-01T00:00:00.123Z","key":"k1","headers":{"ce_type":"OrderPlaced","x":["1","2"],"bin":{"base64":"/w=="}},"value":null,"error":"no Confluent frame: it is shorter than five bytes; a value starts with 00 and a schema id of four bytes","value_base64":"AQID"}"#
        );
        assert!(
            line.text().starts_with("2026-01-01T00:00:00.123Z t.orders.events[2]@7 k1 OrderPlaced (no Confl")
        );
    }

    #[test]
    fn a_filter_wants_all_it_names() {
        let record = record();
        let of_key = |word| EventFilter { key: RecordKey::parse(word).ok(), ..EventFilter::default() };
        let mut filter = of_key("k1");
        assert!(fits(&filter, &record));
        assert!(fits(&of_key("base64:azE"), &record) && !fits(&of_key("base64:/w=="), &record));
        let unreadable = Record { key: Some(vec![0xff].into()), ..self::record() };
        assert!(fits(&of_key("base64:/w=="), &unreadable));
        let shown = Line::new(&contract::schemas().unwrap(), &unreadable).text();
        assert!(shown.contains("@7 base64:/w== OrderPlaced "), "{shown}");
        filter.kinds = vec!["OrderConfirmed".to_owned(), "OrderPlaced".to_owned()];
        assert!(fits(&filter, &record));
        filter.id = Some("none".to_owned());
        assert!(!fits(&filter, &record), "it has no id");
        let later = EventFilter { since: Some(chrono::Utc::now()), ..EventFilter::default() };
        assert_eq!(
            fits(&later, &record),
            record.timestamp_ms > Some(later.since.unwrap().timestamp_millis())
        );
    }
}
