//! What a retried record carries besides its own headers: text, so that console tools show why it is there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, SecondsFormat, Utc};
use waybill_messaging::headers::object_to_json;
use waybill_messaging::record::Record;

use super::policy::DELAY_MAX;
use crate::append::{CARRIED_PAYLOAD_BYTES_MAX, HEADERS_BYTES_MAX, KEY_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::dead_letters::plain_text;

/// Which appearance of the message this is.
pub const RETRY_HOP: &str = "retry_hop";
/// The tier of its topic, from 1.
pub const RETRY_TIER: &str = "retry_tier";
/// Not handled before this time of the group's database (RFC 3339), which writes it.
pub const RETRY_DUE_AT: &str = "retry_due_at";
/// How often it was tried so far.
pub const RETRY_ATTEMPTS: &str = "retry_attempts";
/// When it failed first (RFC 3339).
pub const RETRY_FIRST_FAILED_AT: &str = "retry_first_failed_at";
/// When it failed last (RFC 3339).
pub const RETRY_LAST_FAILED_AT: &str = "retry_last_failed_at";
/// The class it asked to be retried with.
pub const RETRY_ERROR_CLASS: &str = "retry_error_class";
/// The details.
pub const RETRY_ERROR_MESSAGE: &str = "retry_error_message";
/// The group that retries it; nobody else reads it.
pub const RETRY_GROUP: &str = "retry_group";
/// Where it first lay: topic (with prefix), partition, offset and Kafka's timestamp in milliseconds.
pub const RETRY_TOPIC: &str = "retry_topic";
/// See [`RETRY_TOPIC`].
pub const RETRY_PARTITION: &str = "retry_partition";
/// See [`RETRY_TOPIC`].
pub const RETRY_OFFSET: &str = "retry_offset";
/// See [`RETRY_TOPIC`].
pub const RETRY_RECORD_TIME_MS: &str = "retry_record_time_ms";
/// Put before the name of an original header that is no text, or whose name would be taken for one of ours.
const BASE64_PREFIX: &str = "retry_base64_";
/// Every header of ours begins so.
const PREFIX: &str = "retry_";
/// Room for our own headers: the message has at most 1,000 characters of up to 6 bytes in JSON.
const OWN_BYTES_MAX: usize = 8_192;

/// Why and how a record is on a retry topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Travel {
    pub(crate) hop: i16,
    pub(crate) tier: u8,
    pub(crate) attempts: u16,
    pub(crate) first_failed_at: DateTime<Utc>,
    pub(crate) last_failed_at: DateTime<Utc>,
    pub(crate) error_class: String,
    pub(crate) error_message: String,
}

/// Whether the record fits through the outbox, with our headers and the retry topic's name.
pub(crate) fn can_travel(record: &Record, retry_topic: &str) -> bool {
    let headers: usize =
        original(record).iter().map(|(n, v)| object_to_json([(n.as_str(), v.as_str())]).len()).sum();
    record.key.as_ref().is_none_or(|key| key.len() <= KEY_BYTES_MAX)
        && record.payload.as_ref().is_none_or(|payload| payload.len() <= CARRIED_PAYLOAD_BYTES_MAX)
        && retry_topic.len() <= TOPIC_BYTES_MAX
        && headers + OWN_BYTES_MAX <= HEADERS_BYTES_MAX
}

/// The headers of a record on its way to a retry topic, as the outbox keeps them: its own, then ours. All but
/// [`RETRY_DUE_AT`], which the database adds.
pub(crate) fn write(record: &Record, group: &str, travel: &Travel) -> String {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut all = original(record);
    let mut own = |name: &str, value: String| all.push((name.to_owned(), value));
    own(RETRY_HOP, travel.hop.to_string());
    own(RETRY_TIER, travel.tier.to_string());
    own(RETRY_ATTEMPTS, travel.attempts.to_string());
    own(RETRY_FIRST_FAILED_AT, time(travel.first_failed_at));
    own(RETRY_LAST_FAILED_AT, time(travel.last_failed_at));
    own(RETRY_ERROR_CLASS, travel.error_class.clone());
    own(RETRY_ERROR_MESSAGE, travel.error_message.clone());
    own(RETRY_GROUP, group.to_owned());
    own(RETRY_TOPIC, record.topic.clone());
    own(RETRY_PARTITION, record.partition.to_string());
    own(RETRY_OFFSET, record.offset.to_string());
    if let Some(time_ms) = record.timestamp_ms {
        own(RETRY_RECORD_TIME_MS, time_ms.to_string());
    }
    object_to_json(all.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The record as it first lay, and its travel; `None` when it does not carry our headers.
pub(crate) fn read(record: &Record) -> Option<(Record, Travel)> {
    let time = |name| Some(DateTime::parse_from_rfc3339(record.header(name)?).ok()?.to_utc());
    let text = |name| record.header(name).map(str::to_owned);
    let travel = Travel {
        hop: record.header(RETRY_HOP)?.parse().ok().filter(|hop| *hop >= 1)?,
        tier: record.header(RETRY_TIER)?.parse().ok()?,
        attempts: record.header(RETRY_ATTEMPTS)?.parse().ok()?,
        first_failed_at: time(RETRY_FIRST_FAILED_AT)?,
        last_failed_at: time(RETRY_LAST_FAILED_AT)?,
        error_class: text(RETRY_ERROR_CLASS)?,
        error_message: text(RETRY_ERROR_MESSAGE)?,
    };
    let first = Record {
        topic: text(RETRY_TOPIC)?,
        partition: record.header(RETRY_PARTITION)?.parse().ok()?,
        offset: record.header(RETRY_OFFSET)?.parse().ok()?,
        timestamp_ms: record.header(RETRY_RECORD_TIME_MS).and_then(|ms| ms.parse().ok()),
        key: record.key.clone(),
        headers: record.headers.iter().filter_map(restored).collect(),
        payload: record.payload.clone(),
    };
    Some((first, travel))
}

/// Whether a record of a retry topic may be handled, when it is this time at the group's database; at once when it does not
/// say. A time that is further away than the longest delay there can be is none of ours, or that clock was put back.
pub(crate) fn is_due(record: &Record, now: Option<DateTime<Utc>>) -> bool {
    let said = record.header(RETRY_DUE_AT).and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    let Some(due) = said else { return true };
    // Nobody has asked the database yet; the drainer is about to.
    now.is_some_and(|now| (due.to_utc() - now).to_std().is_ok_and(|wait| wait > DELAY_MAX) || due <= now)
}

/// The record's own headers as text.
fn original(record: &Record) -> Vec<(String, String)> {
    let as_text = |(name, value): &(String, Vec<u8>)| match plain_text(value) {
        Some(text) if !name.starts_with(PREFIX) => (name.clone(), text.to_owned()),
        _ => (format!("{BASE64_PREFIX}{name}"), BASE64.encode(value)),
    };
    record.headers.iter().map(as_text).collect()
}

/// The original header again; `None` for one of ours.
fn restored((name, value): &(String, Vec<u8>)) -> Option<(String, Vec<u8>)> {
    match name.strip_prefix(BASE64_PREFIX) {
        Some(name) => Some((name.to_owned(), BASE64.decode(value).ok()?)),
        None if name.starts_with(PREFIX) => None,
        None => Some((name.clone(), value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn record() -> Record {
        Record {
            topic: "t1.a.events".to_owned(),
            partition: 3,
            offset: 7,
            timestamp_ms: Some(1_700_000_000_123),
            key: Some(b"k".to_vec().into()),
            headers: vec![
                ("ce_type".to_owned(), b"A".to_vec()),
                ("raw".to_owned(), vec![0xff, 0]),
                ("retry_hop".to_owned(), b"not ours".to_vec()),
            ],
            payload: Some(vec![1, 2, 3].into()),
        }
    }

    fn travel() -> Travel {
        Travel {
            hop: 2,
            tier: 1,
            attempts: 2,
            first_failed_at: DateTime::UNIX_EPOCH,
            last_failed_at: DateTime::UNIX_EPOCH,
            error_class: "down".to_owned(),
            error_message: "line one\nline two".to_owned(),
        }
    }

    #[test]
    fn the_record_comes_back_as_it_was() {
        let sent = write(&record(), "g", &travel());
        let headers: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&sent).unwrap();
        assert_eq!(headers["retry_topic"], "t1.a.events");
        assert_eq!(headers["retry_base64_raw"], "/wA=");
        let headers =
            headers.into_iter().map(|(n, v)| (n, v.as_str().unwrap().as_bytes().to_vec())).collect();
        let arrived = Record { topic: "t1.a.events.g.retry.1".to_owned(), headers, ..record() };
        let (first, told) = read(&arrived).unwrap();
        assert_eq!(told, travel());
        assert_eq!((first.topic.as_str(), first.partition, first.offset), ("t1.a.events", 3, 7));
        assert_eq!(first.timestamp_ms, record().timestamp_ms);
        let (mut back, mut was) = (first.headers, record().headers);
        back.sort();
        was.sort();
        assert_eq!(back, was);
    }

    #[test]
    fn it_is_due_by_the_databases_clock_and_no_other() {
        let mut arrived = record();
        // Ours, Kafka's and the database's clock are hours apart.
        arrived.timestamp_ms = Some((Utc::now() - TimeDelta::hours(2)).timestamp_millis());
        let database = Utc::now() + TimeDelta::hours(2);
        assert!(is_due(&arrived, Some(database)), "it does not say when");
        for (said, due) in [
            (database - TimeDelta::hours(5), true),
            (database, true),
            (database + TimeDelta::seconds(5), false),
            (database + TimeDelta::hours(1), false),
            // No delay is so long.
            (database + TimeDelta::seconds(3601), true),
        ] {
            arrived.headers.push((RETRY_DUE_AT.to_owned(), said.to_rfc3339().into_bytes()));
            assert_eq!(is_due(&arrived, Some(database)), due, "{said}, and it is {database}");
            assert!(!is_due(&arrived, None), "nobody knows yet what time it is");
        }
        arrived.headers.push((RETRY_DUE_AT.to_owned(), b"soon".to_vec()));
        assert!(is_due(&arrived, None));
    }

    #[test]
    fn a_record_that_is_too_large_does_not_travel() {
        assert!(can_travel(&record(), "t1.a.events.g.retry.1"));
        let mut large = record();
        large.payload = Some(vec![0; CARRIED_PAYLOAD_BYTES_MAX + 1].into());
        assert!(!can_travel(&large, "t"));
        let mut many = record();
        many.headers.push(("x".to_owned(), vec![b'x'; HEADERS_BYTES_MAX - OWN_BYTES_MAX]));
        assert!(!can_travel(&many, "t"));
        assert!(read(&record()).is_none());
    }
}
