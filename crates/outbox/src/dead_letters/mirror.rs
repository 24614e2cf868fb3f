//! A dead letter on its topic, for console tools: the record as it was, with text headers that say what happened.
//!
//! The row in `dead_letters` is complete whatever the record; the mirror must fit into the outbox (a payload of up to
//! 1 MiB does), and says what it left out. A header value that is no text is mirrored as `dlq_base64_<name>`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::SecondsFormat;
use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::headers::object_to_json;

use super::{DeadLetter, Row, plain_text, stored_text};
use crate::append::{CARRIED_PAYLOAD_BYTES_MAX, HEADERS_BYTES_MAX, KEY_BYTES_MAX};
use crate::retry::policy::main_topic;

/// Characters of the key that the header `dlq_key` shows; the key itself is the mirror's key.
const KEY_SHOWN_CHARS_MAX: usize = 200;

/// Each letter with its row, which is another than its own when it was replayed and failed again: then the bytes of the
/// mirror are the row's, whatever was replayed.
pub(super) async fn append(
    conn: &mut PgConnection,
    prefix: &str,
    letters: &[(&DeadLetter<'_>, &Row)],
) -> Result<(), sqlx::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query("select outbox_append($1, $2, $3, $4, $5)")
        .bind(letters.iter().map(|(l, _)| l.id).collect::<Vec<_>>())
        .bind(letters.iter().map(|(l, _)| topic(prefix, l)).collect::<Vec<_>>())
        .bind(
            letters.iter().map(|(l, _)| fitting(l.record.key.as_deref(), KEY_BYTES_MAX)).collect::<Vec<_>>(),
        )
        .bind(letters.iter().map(|(l, row)| headers(l, row.id, payload(l, row))).collect::<Vec<_>>())
        .bind(
            letters
                .iter()
                .map(|(l, row)| fitting(payload(l, row), CARRIED_PAYLOAD_BYTES_MAX))
                .collect::<Vec<_>>(),
        )
        .execute(conn)
        .await?;
    Ok(())
}

/// `<topic>.<group>.dlq`; of what was found on a retry topic, the main topic's.
fn topic(prefix: &str, letter: &DeadLetter<'_>) -> String {
    let name = main_topic(prefix, &letter.record.topic, letter.group);
    format!("{prefix}{name}.{}.dlq", letter.group)
}

/// The bytes as they were at first.
fn payload<'a>(letter: &'a DeadLetter<'_>, row: &'a Row) -> Option<&'a [u8]> {
    match &row.original {
        Some(original) => original.as_deref(),
        None => letter.record.payload.as_deref(),
    }
}

fn fitting(bytes: Option<&[u8]>, bytes_max: usize) -> Option<Vec<u8>> {
    bytes.filter(|bytes| bytes.len() <= bytes_max).map(<[u8]>::to_vec)
}

/// The dead letter's own headers, and before them as many of the record's as fit.
fn headers(letter: &DeadLetter<'_>, row: Uuid, payload: Option<&[u8]>) -> String {
    let own = own_headers(letter, row, payload);
    // Braces and the note about what was left out.
    let mut bytes = 64 + own.iter().map(|(name, value)| json_bytes(name, value)).sum::<usize>();
    let mut kept = Vec::new();
    let mut omitted: usize = 0;
    for (name, value) in &letter.record.headers {
        let (name, value) = match plain_text(value) {
            Some(text) => (name.clone(), text.to_owned()),
            None => (format!("dlq_base64_{name}"), BASE64.encode(value)),
        };
        let more = json_bytes(&name, &value);
        if bytes + more <= HEADERS_BYTES_MAX {
            bytes += more;
            kept.push((name, value));
        } else {
            omitted += 1;
        }
    }
    if omitted > 0 {
        kept.push(("dlq_headers_omitted".to_owned(), omitted.to_string()));
    }
    let own = own.iter().map(|(name, value)| (*name, value.as_str()));
    object_to_json(kept.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(own))
}

fn own_headers(letter: &DeadLetter<'_>, row: Uuid, payload: Option<&[u8]>) -> Vec<(&'static str, String)> {
    let record = letter.record;
    let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut own = vec![
        ("dlq_id", row.to_string()),
        ("dlq_topic", record.topic.clone()),
        ("dlq_partition", record.partition.to_string()),
        ("dlq_offset", record.offset.to_string()),
        ("dlq_group", letter.group.to_owned()),
        ("dlq_error_class", letter.error_class.clone()),
        ("dlq_error_message", letter.error_message.clone()),
        ("dlq_attempts", letter.attempts.to_string()),
        ("dlq_first_failed_at", time(letter.first_failed_at)),
        ("dlq_last_failed_at", time(letter.last_failed_at)),
    ];
    if let Some(key) = &record.key {
        own.push(("dlq_key", stored_text(&String::from_utf8_lossy(key), KEY_SHOWN_CHARS_MAX)));
        if key.len() > KEY_BYTES_MAX {
            own.push(("dlq_key_omitted_bytes", key.len().to_string()));
        }
    }
    if let Some(payload) = payload.filter(|payload| payload.len() > CARRIED_PAYLOAD_BYTES_MAX) {
        own.push(("dlq_payload_omitted_bytes", payload.len().to_string()));
    }
    own
}

/// What a header takes in a JSON object: both strings as JSON, colon and comma.
fn json_bytes(name: &str, value: &str) -> usize {
    object_to_json([(name, value)]).len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes_of::record;
    use chrono::Utc;
    use serde_json::Value;
    use waybill_messaging::record::Record;

    mod bytes_of {
        use waybill_messaging::record::Record;

        pub(super) fn record(headers: Vec<(String, Vec<u8>)>, payload_bytes: usize) -> Record {
            Record {
                topic: "t1.orders.events".to_owned(),
                partition: 3,
                offset: 7,
                timestamp_ms: None,
                key: Some(b"order-1".to_vec().into()),
                headers,
                payload: Some(vec![1; payload_bytes].into()),
            }
        }
    }

    #[test]
    fn the_mirror_says_what_happened_and_keeps_the_headers() {
        let record_headers = vec![
            ("ce_type".into(), b"OrderPlaced".to_vec()),
            ("raw".into(), vec![0xff, 0]),
            ("zero".into(), b"a\0b".to_vec()),
        ];
        let record = record(record_headers, 1);
        let letter = DeadLetter::new("billing", &record, "fault", "line one\nline two", 2, Utc::now());
        let read: Value = serde_json::from_str(&headers(&letter, letter.id, Some(b""))).unwrap();
        for (name, value) in [
            ("ce_type", "OrderPlaced"),
            ("dlq_base64_raw", "/wA="),
            ("dlq_base64_zero", "YQBi"),
            ("dlq_topic", "t1.orders.events"),
            ("dlq_partition", "3"),
            ("dlq_offset", "7"),
            ("dlq_key", "order-1"),
            ("dlq_group", "billing"),
            ("dlq_error_class", "fault"),
            ("dlq_error_message", "line one\nline two"),
            ("dlq_attempts", "2"),
        ] {
            assert_eq!(read[name], value, "{name}");
        }
        assert_eq!(topic("t1.", &letter), "t1.orders.events.billing.dlq");
        assert_eq!(topic("t2.", &letter), "t2.t1.orders.events.billing.dlq");
        let retried = Record { topic: "t1.orders.events.billing.retry.1".to_owned(), ..record.clone() };
        let letter = DeadLetter::new("billing", &retried, "headers", "foreign", 1, Utc::now());
        assert_eq!(topic("t1.", &letter), "t1.orders.events.billing.dlq");
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let huge = vec![
            ("first".to_owned(), b"kept".to_vec()),
            ("huge".to_owned(), vec![1; HEADERS_BYTES_MAX / 6]),
            ("last".to_owned(), b"kept".to_vec()),
        ];
        let record = record(huge, CARRIED_PAYLOAD_BYTES_MAX + 1);
        let letter = DeadLetter::new("billing", &record, "payload", &"x".repeat(5000), 1, Utc::now());
        let text = headers(&letter, letter.id, record.payload.as_deref());
        assert!(text.len() <= HEADERS_BYTES_MAX, "{}", text.len());
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&read["first"], &read["last"]), (&"kept".into(), &"kept".into()));
        assert_eq!(read["dlq_headers_omitted"], "1");
        assert_eq!(read["dlq_payload_omitted_bytes"], "1048577");
        assert_eq!(fitting(record.payload.as_deref(), CARRIED_PAYLOAD_BYTES_MAX), None);
    }
}
