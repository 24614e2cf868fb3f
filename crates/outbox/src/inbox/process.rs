//! One batch: all together if it can be, else one by one.

use std::panic::AssertUnwindSafe;

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use sqlx::PgConnection;
use tracing::Instrument as _;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::envelope::Envelope;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;

use super::fault::{Trouble, chain};
use super::incoming::{Broken, Incoming};
use super::{Delivery, Handler, InboxProcessor, Verdict, store};
use crate::append;
use crate::dead_letters::{self, DeadLetter};

/// How often a message was tried when it becomes a dead letter: with its batch, and alone.
const ATTEMPTS: i32 = 2;

pub(super) async fn batch<H: Handler>(
    this: &InboxProcessor<H>,
    records: &[Record],
) -> Result<(), BatchError> {
    let mut incoming = Incoming::sort(&this.handler, records)?;
    this.outcomes.skipped.inc_by(incoming.skipped as u64);
    if incoming.is_empty() {
        return Ok(());
    }
    let span = batch_span(this.handler.group(), &incoming);
    async {
        match together(this, &mut incoming).await {
            Ok(()) => Ok(()),
            Err(Trouble::Infrastructure(error)) => Err(error),
            Err(Trouble::Message { class, why }) => {
                tracing::warn!(class, why, "a batch failed and is redone message by message");
                one_by_one(this, incoming).await
            }
        }
    }
    .instrument(span)
    .await
}

/// All messages in one transaction.
async fn together<H: Handler>(
    this: &InboxProcessor<H>,
    incoming: &mut Incoming<'_, H::Message>,
) -> Result<(), Trouble> {
    let group = this.handler.group();
    let mut tx = this.pool.begin().await.map_err(Trouble::ours)?;
    let fresh = store::inbox_insert_in_tx(&mut tx, group, incoming.ids()).await.map_err(Trouble::ours)?;
    let (duplicates, waves) = incoming.arrange(fresh);
    let mut out = Vec::new();
    let mut rest = incoming.deliveries.as_slice();
    for size in waves {
        let (wave, later) = rest.split_at(size);
        rest = later;
        handle(this, &mut tx, wave, &mut out).await?;
    }
    say(this, &mut tx, &out).await?;
    let letters: Vec<_> = incoming.broken.iter().map(|broken| broken.dead_letter(group)).collect();
    dead_letters::insert_in_tx(&mut tx, &this.prefix, &letters).await.map_err(Trouble::ours)?;
    tx.commit().await.map_err(Trouble::commit)?;

    this.outcomes.duplicate.inc_by(duplicates as u64);
    this.outcomes.handled.inc_by(incoming.deliveries.len() as u64);
    incoming.deliveries.iter().for_each(|delivery| log_handled(&delivery.envelope));
    told(this, &letters);
    Ok(())
}

/// Each message in a transaction of its own, so that only those at fault fail.
async fn one_by_one<H: Handler>(
    this: &InboxProcessor<H>,
    incoming: Incoming<'_, H::Message>,
) -> Result<(), BatchError> {
    let first_failed_at = Utc::now();
    this.outcomes.redone_batches.inc();
    for (delivery, record) in incoming.deliveries.iter().zip(&incoming.records) {
        let span = message_span(&delivery.envelope);
        alone(this, delivery, record, first_failed_at).instrument(span).await?;
    }
    for broken in &incoming.broken {
        bury_broken(this, broken).await?;
    }
    Ok(())
}

async fn alone<H: Handler>(
    this: &InboxProcessor<H>,
    delivery: &Delivery<H::Message>,
    record: &Record,
    first_failed_at: DateTime<Utc>,
) -> Result<(), BatchError> {
    match single(this, delivery).await {
        Ok(true) => {
            this.outcomes.handled.inc();
            log_handled(&delivery.envelope);
            Ok(())
        }
        Ok(false) => {
            this.outcomes.duplicate.inc();
            Ok(())
        }
        Err(Trouble::Infrastructure(error)) => Err(error),
        Err(Trouble::Message { class, why }) => {
            let group = this.handler.group();
            let letter = DeadLetter::new(group, record, class, &why, ATTEMPTS, first_failed_at);
            bury(this, Some(delivery.envelope.id), letter).await
        }
    }
}

/// One message in its own transaction; `false` when it is a duplicate.
async fn single<H: Handler>(
    this: &InboxProcessor<H>,
    delivery: &Delivery<H::Message>,
) -> Result<bool, Trouble> {
    let mut tx = this.pool.begin().await.map_err(Trouble::ours)?;
    let ids = vec![delivery.envelope.id];
    let fresh = store::inbox_insert_in_tx(&mut tx, this.handler.group(), ids).await.map_err(Trouble::ours)?;
    if fresh.is_empty() {
        return Ok(false);
    }
    let mut out = Vec::new();
    handle(this, &mut tx, std::slice::from_ref(delivery), &mut out).await?;
    say(this, &mut tx, &out).await?;
    tx.commit().await.map_err(Trouble::commit)?;
    Ok(true)
}

async fn bury_broken<H: Handler>(this: &InboxProcessor<H>, broken: &Broken<'_>) -> Result<(), BatchError> {
    bury(this, broken.id, broken.dead_letter(this.handler.group())).await
}

/// Dead letter, its mirror and its inbox row in one transaction; nothing when the message is taken already.
async fn bury<H: Handler>(
    this: &InboxProcessor<H>,
    id: Option<uuid::Uuid>,
    letter: DeadLetter<'_>,
) -> Result<(), BatchError> {
    let buried = async {
        let mut tx = this.pool.begin().await?;
        if let Some(id) = id {
            let fresh = store::inbox_insert_in_tx(&mut tx, this.handler.group(), vec![id]).await?;
            if fresh.is_empty() {
                return Ok(false);
            }
        }
        dead_letters::insert_in_tx(&mut tx, &this.prefix, std::slice::from_ref(&letter)).await?;
        tx.commit().await?;
        Ok(true)
    };
    if buried.await.map_err(|error: sqlx::Error| BatchError::new(error))? {
        told(this, &[letter]);
    } else {
        this.outcomes.duplicate.inc();
    }
    Ok(())
}

/// Calls the handler for one wave; a verdict other than done, or a panic, is trouble with a message.
async fn handle<H: Handler>(
    this: &InboxProcessor<H>,
    conn: &mut PgConnection,
    wave: &[Delivery<H::Message>],
    out: &mut Vec<Message>,
) -> Result<(), Trouble> {
    // Unwind safe: after a panic the transaction is rolled back and everything the handler touched is dropped.
    let handled = AssertUnwindSafe(this.handler.handle(conn, wave, out)).catch_unwind().await;
    let verdicts = match handled {
        Ok(verdicts) => verdicts?,
        Err(panic) => return Err(Trouble::Message { class: "panic", why: panic_text(panic.as_ref()) }),
    };
    if verdicts.len() != wave.len() {
        let why = format!("the handler answered {} verdicts for {} messages", verdicts.len(), wave.len());
        return Err(Trouble::Message { class: "fault", why });
    }
    match verdicts.into_iter().find(|verdict| *verdict != Verdict::Done) {
        Some(Verdict::Reject { class, why }) => Err(Trouble::Message { class, why }),
        Some(Verdict::Done) | None => Ok(()),
    }
}

/// Appends what the handler wants to say.
async fn say<H: Handler>(
    this: &InboxProcessor<H>,
    conn: &mut PgConnection,
    out: &[Message],
) -> Result<(), Trouble> {
    let said = if out.is_empty() {
        store::alive_in_tx(conn).await
    } else {
        append::append(conn, &this.prefix, out).await
    };
    match said {
        Ok(()) => Ok(()),
        // Too large, or the handler swallowed an error: these are about the message.
        Err(error @ sqlx::Error::Encode(_)) => Err(Trouble::Message { class: "fault", why: chain(&error) }),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("25P02") => {
            let why =
                "the handler went on after a failed statement instead of returning its error".to_owned();
            Err(Trouble::Message { class: "fault", why })
        }
        Err(error) => Err(Trouble::ours(error)),
    }
}

fn told<H: Handler>(this: &InboxProcessor<H>, letters: &[DeadLetter<'_>]) {
    this.outcomes.dead_letter.inc_by(letters.len() as u64);
    letters.iter().for_each(DeadLetter::log);
}

fn batch_span<M>(group: &str, incoming: &Incoming<'_, M>) -> tracing::Span {
    match incoming.deliveries.as_slice() {
        // A batch of one has one story; its lines tell which.
        [delivery] => message_span(&delivery.envelope),
        deliveries => tracing::info_span!("batch", group, messages = deliveries.len()),
    }
}

fn message_span(envelope: &Envelope) -> tracing::Span {
    tracing::info_span!(
        "message",
        trace_id = trace_id(envelope),
        correlation_id = %envelope.cause.correlation_id,
        message_id = %envelope.id,
        kind = envelope.kind,
        key = envelope.subject,
    )
}

fn log_handled(envelope: &Envelope) {
    tracing::debug!(
        trace_id = trace_id(envelope),
        correlation_id = %envelope.cause.correlation_id,
        message_id = %envelope.id,
        kind = envelope.kind,
        key = envelope.subject,
        sequence = envelope.sequence,
        "handled"
    );
}

fn trace_id(envelope: &Envelope) -> String {
    envelope.cause.trace.as_ref().map(|trace| trace.trace_id_hex()).unwrap_or_default()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "the handler panicked".to_owned())
}
