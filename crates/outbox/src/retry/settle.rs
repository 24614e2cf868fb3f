//! Writes what was decided about failed and held records: dead letters, heads on their way, parked keys, followers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::headers::{CE_ID, CE_TYPE, ids_for_logs};
use waybill_messaging::record::Record;

use super::decide::{Decision, Goes};
use super::headers::{self, Travel};
use super::key_state::KeyState;
use super::policy::{main_topic, retry_topic};
use super::store::{self, ParkedRow};
use crate::dead_letters::{self, DeadLetter, ERROR_MESSAGE_CHARS_MAX, stored_text};
use crate::inbox::fault::Trouble;
use crate::inbox::incoming::{Failure, usable_key};
use crate::inbox::{Group, Handler};

/// A record that was not handled, and what was decided about it.
pub(crate) struct Failed<'a> {
    /// As it first lay on its main topic.
    pub(crate) record: &'a Record,
    pub(crate) id: Option<Uuid>,
    pub(crate) hop: i16,
    /// This one included.
    pub(crate) attempts: u16,
    pub(crate) first_failed_at: DateTime<Utc>,
    pub(crate) failure: &'a Failure,
    pub(crate) decision: Decision,
}

/// What is to be told once the transaction is committed.
pub(crate) struct Told<'a> {
    letters: Vec<DeadLetter<'a>>,
    heads: Vec<(&'a Failed<'a>, String)>,
    drains: bool,
}

impl Told<'_> {
    pub(crate) fn tell<H: Handler>(&self, this: &Group<H>) {
        this.outcomes.dead_letter.inc_by(self.letters.len() as u64);
        this.outcomes.retried.inc_by(self.heads.len() as u64);
        self.letters.iter().for_each(DeadLetter::log);
        for (failed, topic) in &self.heads {
            let (trace_id, correlation_id) = ids_for_logs(failed.record);
            tracing::warn!(
                trace_id,
                correlation_id,
                group = this.handler.group(),
                message_id = failed.record.header(CE_ID).unwrap_or_default(),
                kind = failed.record.header(CE_TYPE).unwrap_or_default(),
                retry_topic = topic,
                attempts = failed.attempts,
                error_class = failed.failure.class,
                why = failed.failure.why,
                "a message is retried later, and its key is parked"
            );
        }
        if self.drains {
            this.drain_wanted.notify_one();
        }
    }
}

/// The topic of a tier for records of this topic; with prefix.
fn topic<H: Handler>(this: &Group<H>, record: &Record, tier: u8) -> String {
    let group = this.handler.group();
    let name = main_topic(&this.prefix, &record.topic, group);
    format!("{}{}", this.prefix, retry_topic(name, group, tier))
}

/// Whether a record can be retried at all: it has a key to park, and fits through the outbox.
pub(crate) fn can_be_retried<H: Handler>(this: &Group<H>, record: &Record) -> bool {
    usable_key(record).is_some() && headers::can_travel(record, &topic(this, record, u8::MAX))
}

/// Writes the decisions in the caller's transaction. `key_is_parked` when their keys' rows are there and locked; else
/// the keys are parked now, and it is [`Trouble::ParkedMeanwhile`] when somebody else did.
pub(crate) async fn failed_in_tx<'a, H: Handler>(
    this: &'a Group<H>,
    conn: &mut PgConnection,
    failed: &'a [Failed<'a>],
    key_is_parked: bool,
) -> Result<Told<'a>, Trouble> {
    let group = this.handler.group();
    let buried: Vec<&Failed<'_>> = failed.iter().filter(|f| f.decision.record == Goes::DeadLetter).collect();
    let letters: Vec<DeadLetter<'_>> = buried.iter().map(|f| letter(group, f)).collect();
    let rows = dead_letters::insert_in_tx(conn, &this.prefix, &letters).await.map_err(Trouble::ours)?;
    let heads = heads_append(this, conn, failed).await.map_err(Trouble::ours)?;

    let row_of =
        |f: &Failed<'_>| buried.iter().position(|b| std::ptr::eq(*b, f)).and_then(|place| rows[place]);
    let mut parked = Vec::new();
    for f in failed {
        let (Some(mut state), Some(key)) = (f.decision.key, usable_key(f.record)) else { continue };
        let mut letter = row_of(f);
        if f.decision.record == Goes::DeadLetter && letter.is_none() {
            // A letter that was there already has blocked its key once; an operator has dealt with it.
            if !key_is_parked {
                continue;
            }
            // Or is yet to: nobody can free a key that no open letter blocks.
            letter = dead_letters::open_id_in_tx(conn, group, f.record).await.map_err(Trouble::ours)?;
            if letter.is_none() {
                state = KeyState::Draining;
            }
        }
        parked.push(parked_row(this, f, key, state, letter));
    }
    if key_is_parked {
        for row in &parked {
            match row.state {
                KeyState::Draining => store::parked_drain_in_tx(conn, group, &row.key).await,
                KeyState::Retrying { .. } | KeyState::Blocked => {
                    store::parked_update_in_tx(conn, group, row).await
                }
            }
            .map_err(Trouble::ours)?;
        }
    } else if !parked.is_empty() {
        let inserted = store::parked_insert_in_tx(conn, group, &parked).await.map_err(Trouble::ours)?;
        if inserted != parked.len() as u64 {
            return Err(Trouble::ParkedMeanwhile);
        }
    }
    let drains = parked.iter().any(|row| row.state == KeyState::Draining);
    Ok(Told { letters, heads, drains })
}

fn letter<'a>(group: &'a str, failed: &Failed<'a>) -> DeadLetter<'a> {
    let Failed { record, failure, attempts, first_failed_at, hop, .. } = failed;
    DeadLetter::new(group, record, failure.class, &failure.why, i32::from(*attempts), *first_failed_at)
        .at_hop(*hop)
}

fn parked_row<H: Handler>(
    this: &Group<H>,
    failed: &Failed<'_>,
    key: &[u8],
    state: KeyState,
    dead_letter_id: Option<Uuid>,
) -> ParkedRow {
    let (delay, hop) = match failed.decision.record {
        Goes::Retry { tier, hop } => (Some(this.policy.delay(tier)), hop),
        Goes::DeadLetter | Goes::Nowhere => (None, failed.hop),
    };
    ParkedRow {
        key: key.to_vec(),
        state,
        delay,
        head: (failed.id, hop),
        attempts: i32::from(failed.attempts),
        first_failed_at: failed.first_failed_at,
        last_failed_at: failed.failure.at,
        error_class: failed.failure.class.to_owned(),
        error_message: stored_text(&failed.failure.why, ERROR_MESSAGE_CHARS_MAX),
        dead_letter_id,
    }
}

/// Sends heads on their way, through the outbox.
async fn heads_append<'a, H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    failed: &'a [Failed<'a>],
) -> Result<Vec<(&'a Failed<'a>, String)>, sqlx::Error> {
    let mut sent = Vec::new();
    let mut told = Vec::new();
    for f in failed {
        let Goes::Retry { tier, hop } = f.decision.record else { continue };
        let travel = Travel {
            hop,
            tier,
            attempts: f.attempts,
            first_failed_at: f.first_failed_at,
            last_failed_at: f.failure.at,
            error_class: f.failure.class.to_owned(),
            error_message: stored_text(&f.failure.why, ERROR_MESSAGE_CHARS_MAX),
        };
        let topic = topic(this, f.record, tier);
        sent.push(Head {
            id: f.id.unwrap_or_default(),
            topic: topic.clone(),
            delay: this.policy.delay(tier),
            headers: headers::write(f.record, this.handler.group(), &travel),
            record: f.record,
        });
        told.push((f, topic));
    }
    append(conn, &sent).await?;
    Ok(told)
}

/// A head as the outbox takes it.
pub(crate) struct Head<'a> {
    pub(crate) id: Uuid,
    pub(crate) topic: String,
    /// It is due so long from now, by the database's clock, which writes the time into the headers.
    pub(crate) delay: Duration,
    pub(crate) headers: String,
    pub(crate) record: &'a Record,
}

pub(crate) async fn append(conn: &mut PgConnection, heads: &[Head<'_>]) -> Result<(), sqlx::Error> {
    if heads.is_empty() {
        return Ok(());
    }
    let delay_ms = |head: &Head<'_>| i64::try_from(head.delay.as_millis()).unwrap_or(i64::MAX);
    // The headers are an object that is not empty: the time of the database goes before its closing brace.
    sqlx::query(
        "select outbox_append($1, $2, $3, array(
                    select format('%s,\"%s\":\"%s\"}', left(h.headers, -1), $7,
                                  to_char((clock_timestamp() + h.delay_ms * interval '1 millisecond') at time zone 'UTC',
                                          'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))
                    from unnest($4::text[], $6::bigint[]) with ordinality as h (headers, delay_ms, place)
                    order by h.place), $5)",
    )
    .bind(heads.iter().map(|h| h.id).collect::<Vec<_>>())
    .bind(heads.iter().map(|h| h.topic.clone()).collect::<Vec<_>>())
    .bind(heads.iter().map(|h| h.record.key.as_ref().map(|b| b.to_vec())).collect::<Vec<_>>())
    .bind(heads.iter().map(|h| h.headers.clone()).collect::<Vec<_>>())
    .bind(heads.iter().map(|h| h.record.payload.as_ref().map(|b| b.to_vec())).collect::<Vec<_>>())
    .bind(heads.iter().map(delay_ms).collect::<Vec<_>>())
    .bind(headers::RETRY_DUE_AT)
    .execute(conn)
    .await
    .map(|_| ())
}

/// Holds records behind their parked keys (record, message id, hop), in their order; an error when too much is held.
///
/// These alone are never too much: when nothing else is held, there is nothing to wait for until it is drained. They park
/// or bury what they wait behind, and then that is what goes on by itself or is an operator's.
pub(crate) async fn hold_in_tx<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    held: &[(&Record, Option<Uuid>, i16)],
) -> Result<(), Trouble> {
    if held.is_empty() {
        return Ok(());
    }
    let group = this.handler.group();
    store::held_insert_in_tx(conn, group, held).await.map_err(Trouble::ours)?;
    let bytes = store::held_bytes(conn, group).await.map_err(Trouble::ours)?;
    let bytes_max = this.policy.held_bytes_max;
    let of_these: u64 = held.iter().map(|(record, ..)| record.bytes() as u64).sum();
    let held_before = u64::try_from(bytes).unwrap_or_default().saturating_sub(of_these);
    if held_before == 0 || held_before + of_these <= bytes_max {
        return Ok(());
    }
    this.outcomes.paused_held_bytes.inc();
    Err(Trouble::Infrastructure(BatchError::new(format!(
        "messages behind parked keys would take {bytes} bytes, and at most {bytes_max} are held: paused until keys are \
         drained; mend or discard what blocks them"
    ))))
}
