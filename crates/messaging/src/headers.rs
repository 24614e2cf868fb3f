//! Text headers: the envelope as CloudEvents 1.0 in Kafka's binary mode, readable in every console.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use uuid::Uuid;
use waybill_telemetry::trace::TraceContext;

use crate::codec::CONTENT_TYPE;
use crate::envelope::{Cause, Envelope};
use crate::record::Record;

/// The version of the CloudEvents specification that the headers follow.
pub const SPECVERSION: &str = "1.0";

/// `ce_specversion`, always [`SPECVERSION`].
pub const CE_SPECVERSION: &str = "ce_specversion";
/// `ce_id`, see [`Envelope::id`].
pub const CE_ID: &str = "ce_id";
/// `ce_source`, see [`Envelope::source`].
pub const CE_SOURCE: &str = "ce_source";
/// `ce_type`, see [`Envelope::kind`].
pub const CE_TYPE: &str = "ce_type";
/// `ce_time`, RFC 3339 in UTC to the microsecond, see [`Envelope::time`].
pub const CE_TIME: &str = "ce_time";
/// `ce_subject`, see [`Envelope::subject`].
pub const CE_SUBJECT: &str = "ce_subject";
/// `ce_correlationid`, see [`Cause::correlation_id`].
pub const CE_CORRELATIONID: &str = "ce_correlationid";
/// `ce_causationid`, see [`Cause::causation_id`]; left out when an HTTP command was the cause.
pub const CE_CAUSATIONID: &str = "ce_causationid";
/// `ce_sequence`, see [`Envelope::sequence`].
pub const CE_SEQUENCE: &str = "ce_sequence";
/// `content-type`, always [`CONTENT_TYPE`]; its name has no prefix in the CloudEvents binding.
pub const CONTENT_TYPE_HEADER: &str = "content-type";
/// `traceparent`, see [`Cause::trace`].
pub const TRACEPARENT: &str = "traceparent";

/// Characters of a wrong value that an error shows: enough to recognise it, too few to fill a log.
const VALUE_SHOWN_CHARS_MAX: usize = 64;

/// Why a record's headers are no envelope. Trying again does not help: the record belongs into the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A header that every message carries is not there.
    #[error(
        "header {name} is missing; every message carries ce_specversion, ce_id, ce_source, ce_type, ce_time, ce_subject, ce_correlationid and ce_sequence"
    )]
    Missing {
        /// The header's name.
        name: &'static str,
    },
    /// A header's value is not UTF-8.
    #[error("header {name} is not UTF-8 text")]
    NotText {
        /// The header's name.
        name: &'static str,
    },
    /// A header's value can not be read.
    #[error("header {name} is {value:?}, and should be {expected}")]
    Invalid {
        /// The header's name.
        name: &'static str,
        /// Its value, shortened.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// `ce_subject` and the record's key differ, so that order by key would not be order by subject.
    #[error(
        "ce_subject is {subject:?}, but the record's key is another; they are the same text in every message"
    )]
    SubjectIsNotKey {
        /// The subject, shortened.
        subject: String,
    },
}

/// The headers of a message, in the order they are written.
#[must_use]
pub fn encode(envelope: &Envelope) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        (CE_SPECVERSION, SPECVERSION.to_owned()),
        (CE_ID, envelope.id.to_string()),
        (CE_SOURCE, envelope.source.clone()),
        (CE_TYPE, envelope.kind.clone()),
        (CE_TIME, envelope.time.to_rfc3339_opts(SecondsFormat::Micros, true)),
        (CE_SUBJECT, envelope.subject.clone()),
        (CE_CORRELATIONID, envelope.cause.correlation_id.to_string()),
    ];
    if let Some(cause) = envelope.cause.causation_id {
        headers.push((CE_CAUSATIONID, cause.to_string()));
    }
    headers.push((CE_SEQUENCE, envelope.sequence.to_string()));
    headers.push((CONTENT_TYPE_HEADER, CONTENT_TYPE.to_owned()));
    if let Some(trace) = &envelope.cause.trace {
        headers.push((TRACEPARENT, trace.traceparent()));
    }
    headers
}

/// The headers as the outbox keeps them: one JSON object of strings, in the order of [`encode`].
#[must_use]
pub fn to_json(envelope: &Envelope) -> String {
    let headers = encode(envelope);
    object_to_json(headers.iter().map(|(name, value)| (*name, value.as_str())))
}

/// Any names and values as one JSON object of strings, in the given order. A name may come twice: Kafka allows that,
/// and the outbox keeps the text as it is.
#[must_use]
pub fn object_to_json<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut json = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::new(&mut json);
    let written = serializer.serialize_map(None).and_then(|mut object| {
        for (name, value) in headers {
            object.serialize_entry(name, value)?;
        }
        object.end()
    });
    written.expect("strings are always JSON, and a Vec takes every byte");
    String::from_utf8(json).expect("serde_json writes UTF-8")
}

/// Reads the envelope back from a record.
///
/// A `traceparent` that can not be read is no error, as W3C Trace Context asks: the message then has no trace.
/// Headers beside the envelope's are ignored.
///
/// # Errors
/// [`HeaderError`] for the first header that is missing or wrong.
pub fn decode(record: &Record) -> Result<Envelope, HeaderError> {
    let version = required(record, CE_SPECVERSION)?;
    if version != SPECVERSION {
        return Err(invalid(CE_SPECVERSION, version, SPECVERSION));
    }
    let subject = required(record, CE_SUBJECT)?;
    if record.key.as_deref() != Some(subject.as_bytes()) {
        return Err(HeaderError::SubjectIsNotKey { subject: shortened(subject) });
    }
    let causation_id =
        optional(record, CE_CAUSATIONID)?.map(|value| uuid(CE_CAUSATIONID, value)).transpose()?;
    let cause = Cause {
        correlation_id: uuid(CE_CORRELATIONID, required(record, CE_CORRELATIONID)?)?,
        causation_id,
        trace: record.header(TRACEPARENT).and_then(TraceContext::parse),
    };
    Ok(Envelope {
        id: uuid(CE_ID, required(record, CE_ID)?)?,
        source: required(record, CE_SOURCE)?.to_owned(),
        kind: required(record, CE_TYPE)?.to_owned(),
        time: time(required(record, CE_TIME)?)?,
        subject: subject.to_owned(),
        cause,
        sequence: sequence(required(record, CE_SEQUENCE)?)?,
    })
}

/// The trace and correlation ids of a record whose headers may be broken: for the log line that says so.
#[must_use]
pub fn ids_for_logs(record: &Record) -> (String, String) {
    let trace = record.header(TRACEPARENT).and_then(TraceContext::parse);
    let correlation = record.header(CE_CORRELATIONID).map(shortened).unwrap_or_default();
    (trace.map(|t| t.trace_id_hex()).unwrap_or_default(), correlation)
}

fn required<'a>(record: &'a Record, name: &'static str) -> Result<&'a str, HeaderError> {
    match optional(record, name)? {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(HeaderError::Missing { name }),
    }
}

/// The last header of this name counts, as Kafka's own `lastHeader` has it.
fn optional<'a>(record: &'a Record, name: &'static str) -> Result<Option<&'a str>, HeaderError> {
    let found = record.headers.iter().rev().find(|(known, _)| known == name);
    found.map(|(_, value)| std::str::from_utf8(value).map_err(|_| HeaderError::NotText { name })).transpose()
}

fn uuid(name: &'static str, value: &str) -> Result<Uuid, HeaderError> {
    Uuid::try_parse(value).map_err(|_| invalid(name, value, "a UUID"))
}

fn time(value: &str) -> Result<DateTime<Utc>, HeaderError> {
    let time = DateTime::parse_from_rfc3339(value)
        .map_err(|_| invalid(CE_TIME, value, "a time as in RFC 3339, like 2026-01-31T09:30:00Z"))?;
    Ok(time.to_utc())
}

fn sequence(value: &str) -> Result<i64, HeaderError> {
    let sequence = value.parse().ok().filter(|sequence| *sequence >= 1);
    sequence.ok_or_else(|| invalid(CE_SEQUENCE, value, "a whole number from 1"))
}

fn invalid(name: &'static str, value: &str, expected: &'static str) -> HeaderError {
    HeaderError::Invalid { name, value: shortened(value), expected }
}

fn shortened(value: &str) -> String {
    value.chars().take(VALUE_SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record_of(envelope: &Envelope) -> Record {
        Record {
            topic: "orders.events".to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: Some(envelope.subject.clone().into()),
            headers: encode(envelope).into_iter().map(|(n, v)| (n.to_owned(), v.into_bytes())).collect(),
            payload: None,
        }
    }

    fn any_envelope() -> impl Strategy<Value = Envelope> {
        let cause = (any::<u128>(), any::<Option<u128>>(), any::<bool>());
        let time_us = 0..4_000_000_000_000_000_i64;
        ("[a-z/]{1,20}", "\\PC{1,40}", any::<u128>(), time_us, 1..i64::MAX, cause).prop_map(
            |(source, text, id, time_us, sequence, (correlation, causation, traced))| Envelope {
                id: Uuid::from_u128(id),
                source,
                kind: text.clone(),
                time: DateTime::from_timestamp_micros(time_us).unwrap(),
                subject: text,
                cause: Cause {
                    correlation_id: Uuid::from_u128(correlation),
                    causation_id: causation.map(Uuid::from_u128),
                    trace: traced.then(TraceContext::new_root),
                },
                sequence,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(envelope in any_envelope()) {
            prop_assert_eq!(decode(&record_of(&envelope)), Ok(envelope));
        }

        #[test]
        fn the_outbox_json_says_the_same_in_the_same_order(envelope in any_envelope()) {
            let json = to_json(&envelope);
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            let mut last = 0;
            for (name, value) in encode(&envelope) {
                prop_assert_eq!(read[name].as_str(), Some(value.as_str()));
                let place = json.find(&format!("\"{name}\":")).unwrap();
                prop_assert!(place >= last);
                last = place;
            }
        }

        #[test]
        fn hostile_headers_never_panic(headers in prop::collection::vec(
            (prop::sample::select(vec![CE_ID, CE_TIME, CE_SEQUENCE, CE_SUBJECT, TRACEPARENT]), any::<Vec<u8>>()), 0..8)) {
            let mut record = record_of(&example());
            record.headers.extend(headers.into_iter().map(|(n, v)| (n.to_owned(), v)));
            let _ = decode(&record);
            let _ = ids_for_logs(&record);
        }
    }

    fn example() -> Envelope {
        Envelope {
            id: Uuid::from_u128(1),
            source: "/waybill/orders".to_owned(),
            kind: "OrderPlaced".to_owned(),
            time: DateTime::UNIX_EPOCH,
            subject: "order-1".to_owned(),
            cause: Cause { correlation_id: Uuid::from_u128(2), causation_id: None, trace: None },
            sequence: 1,
        }
    }

    #[test]
    fn the_text_is_what_the_conventions_say() {
        let mut envelope = example();
        envelope.cause.causation_id = Some(Uuid::from_u128(3));
        assert_eq!(
            to_json(&envelope),
            concat!(
                r#"{"ce_specversion":"1.0","ce_id":"00000000-0000-0000-0000-000000000001","#,
                r#""ce_source":"/waybill/orders","ce_type":"OrderPlaced","ce_time":"1970-01-01T00:00:00.000000Z","#,
                r#""ce_subject":"order-1","ce_correlationid":"00000000-0000-0000-0000-000000000002","#,
                r#""ce_causationid":"00000000-0000-0000-0000-000000000003","ce_sequence":"1","#,
                r#""content-type":"application/avro"}"#
            )
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for name in
            [CE_SPECVERSION, CE_ID, CE_SOURCE, CE_TYPE, CE_TIME, CE_SUBJECT, CE_CORRELATIONID, CE_SEQUENCE]
        {
            let mut record = record_of(&example());
            record.headers.retain(|(n, _)| n != name);
            assert_eq!(decode(&record), Err(HeaderError::Missing { name }));
        }
        for (name, value) in [(CE_SPECVERSION, "0.3"), (CE_ID, "one"), (CE_TIME, "now"), (CE_SEQUENCE, "0")] {
            let mut record = record_of(&example());
            record.headers.push((name.to_owned(), value.into()));
            let error = decode(&record).unwrap_err();
            assert!(error.to_string().contains(name) && error.to_string().contains(value), "{error}");
        }
        let mut record = record_of(&example());
        record.headers.push((CE_TYPE.to_owned(), vec![0xff]));
        assert_eq!(decode(&record), Err(HeaderError::NotText { name: CE_TYPE }));
        let mut record = record_of(&example());
        record.key = None;
        assert!(matches!(decode(&record), Err(HeaderError::SubjectIsNotKey { .. })));
    }

    #[test]
    fn a_broken_trace_is_no_error() {
        let mut record = record_of(&example());
        record.headers.push((TRACEPARENT.to_owned(), b"nonsense".to_vec()));
        assert_eq!(decode(&record).unwrap().cause.trace, None);
    }
}
