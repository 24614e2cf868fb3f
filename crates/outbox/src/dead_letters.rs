//! Dead letters: what a group could not handle, kept byte for byte, and mirrored to the group's dead letter topic.
//!
//! The row and the outbox row of its mirror are one transaction with the inbox row, so that no failure can lose the one
//! or make the other twice. A record that is read again is the same dead letter.

mod mirror;

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::headers::{CE_ID, CE_TYPE, ids_for_logs};
use waybill_messaging::record::Record;
use waybill_runtime::clock::new_id;

use crate::retry::decide::ATTEMPTS_AT_REPLAY;

/// Characters of an error that are kept: the beginning names the cause, a long rest is a dump.
pub(crate) const ERROR_MESSAGE_CHARS_MAX: usize = 1000;
/// Characters of `ce_type` that are kept.
const KIND_CHARS_MAX: usize = 200;

/// Topic, partition, offset.
type Place = (String, i32, i64);

/// A record and why its group could not handle it.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    id: Uuid,
    group: &'a str,
    record: &'a Record,
    error_class: String,
    error_message: String,
    attempts: i32,
    hop: i16,
    first_failed_at: DateTime<Utc>,
    last_failed_at: DateTime<Utc>,
}

impl<'a> DeadLetter<'a> {
    /// `group` without prefix; `attempts` how often handling was tried, the first time at `first_failed_at`.
    #[must_use]
    pub fn new(
        group: &'a str,
        record: &'a Record,
        error_class: &str,
        error_message: &str,
        attempts: i32,
        first_failed_at: DateTime<Utc>,
    ) -> Self {
        Self {
            id: new_id(),
            group,
            record,
            error_class: stored_text(error_class, ERROR_MESSAGE_CHARS_MAX),
            error_message: stored_text(error_message, ERROR_MESSAGE_CHARS_MAX),
            attempts,
            hop: 0,
            first_failed_at,
            last_failed_at: Utc::now(),
        }
    }

    /// Which appearance of the message this is; 0, the main topic's, unless said.
    #[must_use]
    pub fn at_hop(self, hop: i16) -> Self {
        Self { hop, ..self }
    }

    fn place(&self) -> Place {
        (self.record.topic.clone(), self.record.partition, self.record.offset)
    }

    /// One line for the operator, with the message's own ids.
    pub(crate) fn log(&self) {
        let (trace_id, correlation_id) = ids_for_logs(self.record);
        tracing::error!(
            trace_id,
            correlation_id,
            group = self.group,
            dead_letter = %self.id,
            message_id = self.record.header(CE_ID).unwrap_or_default(),
            kind = self.record.header(CE_TYPE).unwrap_or_default(),
            topic = self.record.topic,
            partition = self.record.partition,
            offset = self.record.offset,
            error_class = self.error_class,
            why = self.error_message,
            "a message became a dead letter"
        );
    }
}

/// Writes the dead letters and the outbox rows that mirror them to `<topic>.<group>.dlq`, in two statements of the
/// caller's transaction; none when there are none. Letters that are known already are left alone, unless they are being
/// replayed: then they are open again.
///
/// Returns per letter the id of the row that is open because of it; `None` when it was known.
///
/// # Errors
/// What the database said.
pub async fn insert_in_tx(
    conn: &mut PgConnection,
    prefix: &str,
    letters: &[DeadLetter<'_>],
) -> Result<Vec<Option<Uuid>>, sqlx::Error> {
    if letters.is_empty() {
        return Ok(Vec::new());
    }
    // One statement can not write a row twice.
    let mut places = HashSet::new();
    let first: Vec<&DeadLetter<'_>> = letters.iter().filter(|letter| places.insert(letter.place())).collect();
    let rows = rows_insert(conn, &first).await?;
    // One that was replayed and failed again keeps the row it has.
    let fresh: Vec<(&DeadLetter<'_>, &Row)> =
        first.into_iter().filter_map(|letter| Some((letter, rows.get(&letter.place())?))).collect();
    mirror::append(conn, prefix, &fresh).await?;
    Ok(letters.iter().map(|letter| rows.get(&letter.place()).map(|row| row.id)).collect())
}

/// The row of a letter that is open now and was not before.
struct Row {
    id: Uuid,
    /// When the letter was replayed and failed again: its payload at first. What was replayed may have been patched.
    original: Option<Option<Vec<u8>>>,
}

/// Writes the rows; those that are open now and were not before.
async fn rows_insert(
    conn: &mut PgConnection,
    letters: &[&DeadLetter<'_>],
) -> Result<HashMap<Place, Row>, sqlx::Error> {
    // One column an array, so that any number of letters is one statement.
    let column = |of: fn(&DeadLetter<'_>) -> String| letters.iter().map(|l| of(l)).collect::<Vec<String>>();
    type Written = (Uuid, String, i32, i64, bool, Option<Vec<u8>>);
    let rows: Vec<Written> = sqlx::query_as(
        "insert into dead_letters (id, consumer_group, topic, partition, \"offset\", record_time, message_id, kind, key,
                                   headers, payload, error_class, error_message, attempts, first_failed_at, last_failed_at,
                                   hop)
         select l.id, l.consumer_group, l.topic, l.partition, l.place, l.record_time, l.message_id, l.kind, l.key,
                l.headers::json, l.payload, l.error_class, l.error_message, l.attempts, l.first_failed_at, l.last_failed_at,
                l.hop
         from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::timestamptz[], $7::uuid[], $8::text[],
                     $9::bytea[], $10::text[], $11::bytea[], $12::text[], $13::text[], $14::int[], $15::timestamptz[],
                     $16::timestamptz[], $17::smallint[])
              as l (id, consumer_group, topic, partition, place, record_time, message_id, kind, key, headers, payload,
                    error_class, error_message, attempts, first_failed_at, last_failed_at, hop)
         on conflict (consumer_group, topic, partition, \"offset\", record_time) do update
         set state = 'open', error_class = excluded.error_class, error_message = excluded.error_message,
             -- A replay begins with the attempts that were made already counted as $18.
             attempts = dead_letters.attempts + greatest(excluded.attempts - $18, 1), last_failed_at = excluded.last_failed_at,
             hop = excluded.hop
         where dead_letters.state = 'replaying'
         returning id, topic, partition, \"offset\", id <> all($1), case when id <> all($1) then payload end",
    )
    .bind(letters.iter().map(|l| l.id).collect::<Vec<_>>())
    .bind(column(|l| l.group.to_owned()))
    .bind(column(|l| l.record.topic.clone()))
    .bind(letters.iter().map(|l| l.record.partition).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.record.offset).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| record_time(l.record)).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.record.header(CE_ID)?.parse().ok()).collect::<Vec<Option<Uuid>>>())
    .bind(letters.iter().map(|l| kind(l.record)).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.record.key.as_ref().map(|b| b.to_vec())).collect::<Vec<_>>())
    .bind(column(|l| headers_json(l.record)))
    .bind(letters.iter().map(|l| l.record.payload.as_ref().map(|b| b.to_vec())).collect::<Vec<_>>())
    .bind(column(|l| l.error_class.clone()))
    .bind(column(|l| l.error_message.clone()))
    .bind(letters.iter().map(|l| l.attempts).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.first_failed_at).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.last_failed_at).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.hop).collect::<Vec<_>>())
    .bind(i32::from(ATTEMPTS_AT_REPLAY))
    .fetch_all(conn)
    .await?;
    let row = |(id, topic, partition, offset, is_again, payload): Written| {
        ((topic, partition, offset), Row { id, original: is_again.then_some(payload) })
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The open letter of this record, when there is one.
pub(crate) async fn open_id_in_tx(
    conn: &mut PgConnection,
    group: &str,
    record: &Record,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select id from dead_letters
         where consumer_group = $1 and topic = $2 and partition = $3 and \"offset\" = $4
           and record_time is not distinct from $5 and state = 'open'
         for update",
    )
    .bind(group)
    .bind(&record.topic)
    .bind(record.partition)
    .bind(record.offset)
    .bind(record_time(record))
    .fetch_optional(conn)
    .await
}

pub(crate) fn record_time(record: &Record) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(record.timestamp_ms?).filter(|time| {
        // Postgres keeps years up to 294276, and a producer may write anything.
        (1970..=9999).contains(&chrono::Datelike::year(time))
    })
}

fn kind(record: &Record) -> Option<String> {
    record.header(CE_TYPE).map(|kind| stored_text(kind, KIND_CHARS_MAX))
}

/// Every header, in order, lossless; see the column's comment.
pub(crate) fn headers_json(record: &Record) -> String {
    let all: Vec<_> = record
        .headers
        .iter()
        .map(|(name, value)| match plain_text(value) {
            Some(text) => json!({"name": name, "value": text}),
            None => json!({"name": name, "base64": BASE64.encode(value)}),
        })
        .collect();
    serde_json::Value::Array(all).to_string()
}

/// What [`headers_json`] wrote, read again; `None` for anything else.
pub(crate) fn headers_read(json: &serde_json::Value) -> Option<Vec<(String, Vec<u8>)>> {
    let one = |header: &serde_json::Value| {
        let name = header["name"].as_str()?.to_owned();
        match (&header["value"], &header["base64"]) {
            (serde_json::Value::String(text), _) => Some((name, text.clone().into_bytes())),
            (_, serde_json::Value::String(coded)) => Some((name, BASE64.decode(coded).ok()?)),
            _ => None,
        }
    };
    json.as_array()?.iter().map(one).collect()
}

/// A header's value as text, when it is text to Postgres too: UTF-8 without the zero character. `json` would take an
/// escaped one, and then every query that reads the value out fails (22P05).
pub(crate) fn plain_text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'))
}

/// Text that Postgres takes whatever it was made from: shortened, and without the zero character it refuses.
pub(crate) fn stored_text(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
