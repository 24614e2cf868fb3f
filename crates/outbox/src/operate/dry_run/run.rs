//! Runs the handler on letters, key by key, each letter in a savepoint of a transaction that never commits.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Semaphore;
use waybill_messaging::headers;
use waybill_messaging::message::Message;

use super::letters::{self, Letter};
use super::writes::{self, Seen, Tables};
use super::{DRY_RUN_MAX, DryRun, DryRunFuture, Outcome, SaidDry, Tried};
use crate::append;
use crate::inbox::fault::{Trouble, chain};
use crate::inbox::incoming::Failure;
use crate::inbox::{Group, Handler};
use crate::operate::{Filter, OperateError, key_shown};
use crate::retry::decide::Judgement;
use crate::retry::one;

/// How long one dry run may take: what it locks is locked meanwhile.
const TIME_MAX: Duration = Duration::from_secs(60);

/// A group that can be tried.
pub(crate) struct Runner<H> {
    group: Arc<Group<H>>,
    /// Consumers, drainer and sweepers need connections of this pool too, and it may have as few as three.
    place: Semaphore,
}

impl<H> Runner<H> {
    pub(crate) fn new(group: Arc<Group<H>>) -> Self {
        Self { group, place: Semaphore::new(1) }
    }
}

impl<H: Handler> DryRun for Runner<H> {
    fn group(&self) -> &str {
        self.group.handler.group()
    }

    fn run<'a>(&'a self, filter: &'a Filter, limit: u32) -> DryRunFuture<'a> {
        Box::pin(async move {
            if !(1..=DRY_RUN_MAX).contains(&limit) {
                return Err(OperateError::invalid("limit", format!("write a number in 1..={DRY_RUN_MAX}")));
            }
            let _place = self.place.try_acquire().map_err(|_| OperateError::Busy)?;
            let trying = all(&self.group, filter, limit);
            let too_long =
                |_| OperateError::Infrastructure("it took longer than a minute; try fewer".to_owned());
            tokio::time::timeout(TIME_MAX, trying).await.map_err(too_long)?
        })
    }

    fn check(&self, kind: &str, payload: &[u8]) -> Result<(), String> {
        self.group.handler.decode(kind, payload).map(drop).map_err(|error| chain(&error))
    }
}

async fn all<H: Handler>(this: &Group<H>, filter: &Filter, limit: u32) -> Result<Vec<Tried>, OperateError> {
    // A second connection sees the rows as they are without the handler's transaction.
    let mut outside = this.pool.acquire().await?;
    let chosen = letters::chosen(&mut outside, this.handler.group(), filter, limit).await?;
    let mut tried = Vec::with_capacity(chosen.len());
    for of_key in chosen.chunk_by(|one, other| one.key == other.key && one.key.is_some()) {
        // Dropped without a commit: rolled back, whatever happens.
        let mut inside = this.pool.begin().await?;
        // Its own number before any savepoint's: rows of this transaction are those with this number or a later one.
        sqlx::query("select pg_current_xact_id()").execute(&mut *inside).await?;
        let mut seen = Seen::default();
        for letter in of_key {
            tried.push(one(this, &mut inside, &mut outside, letter, &mut seen).await?);
        }
        inside.rollback().await?;
    }
    Ok(tried)
}

/// What came of the handler, its writes still there when it is done.
struct Handled {
    outcome: Outcome,
    why: Option<String>,
    said: Vec<Message>,
}

async fn one<H: Handler>(
    this: &Group<H>,
    inside: &mut PgConnection,
    outside: &mut PgConnection,
    letter: &Letter,
    seen: &mut Seen,
) -> Result<Tried, OperateError> {
    let (record, patched) = letters::read(outside, letter.id).await?;
    let (key, key_base64) = key_shown(letter.key.clone());
    let mut tried = Tried {
        id: letter.id,
        key,
        key_base64,
        outcome: Outcome::Duplicate,
        why: None,
        patched,
        writes: Vec::new(),
        messages: Vec::new(),
    };
    let mut savepoint = inside.begin().await?;
    if !is_taken(&mut savepoint, this.handler.group(), letter).await? {
        savepoint.rollback().await?;
        tried.why =
            Some("ignored as duplicate: the message's next appearance was handled already".to_owned());
        return Ok(tried);
    }
    let before = Tables::counted(&mut savepoint).await?;
    let handled = handle(this, &mut savepoint, &record).await?;
    tried.outcome = handled.outcome;
    tried.why = handled.why;
    if handled.outcome != Outcome::Done {
        savepoint.rollback().await?;
        return Ok(tried);
    }
    let after = Tables::counted(&mut savepoint).await?;
    tried.writes = writes::between(&mut savepoint, outside, (&before, &after), seen).await?;
    tried.messages = handled.said.iter().map(|message| shown(&this.prefix, message)).collect();
    // Kept for the letters of this key that follow.
    savepoint.commit().await?;
    Ok(tried)
}

/// Takes the message's next appearance, as the consumer of a replay would; false when it was taken already.
async fn is_taken(conn: &mut PgConnection, group: &str, letter: &Letter) -> Result<bool, sqlx::Error> {
    let (Some(id), Some(hop)) = (letter.message_id, letter.hop.checked_add(1)) else { return Ok(true) };
    let taken = sqlx::query(
        "insert into inbox (consumer_group, message_id, hop) values ($1, $2, $3) on conflict do nothing",
    )
    .bind(group)
    .bind(id)
    .bind(hop)
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() == 1)
}

async fn handle<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    record: &waybill_messaging::record::Record,
) -> Result<Handled, OperateError> {
    let mut said = Vec::new();
    let of_fault = |why: String| Handled { outcome: Outcome::Fault, why: Some(why), said: Vec::new() };
    match one::attempt(this, conn, record, &mut said).await {
        Ok(None) => {}
        Ok(Some(Failure { judgement, class, why, .. })) => {
            let outcome = if judgement == Judgement::Retry { Outcome::Retry } else { Outcome::Reject };
            return Ok(Handled { outcome, why: Some(format!("{class}: {why}")), said: Vec::new() });
        }
        Err(Trouble::Message { class, why }) => return Ok(of_fault(format!("{class}: {why}"))),
        Err(Trouble::TimedOut { why }) => {
            return Ok(Handled { outcome: Outcome::Retry, why: Some(why), said: Vec::new() });
        }
        Err(Trouble::Infrastructure(error)) => return Err(OperateError::Infrastructure(error.to_string())),
        Err(Trouble::Judged(_) | Trouble::ParkedMeanwhile) => {
            return Err(OperateError::Infrastructure("another member is at this key; try again".to_owned()));
        }
    }
    if let Err(error) = append::limits_check(&said) {
        return Ok(of_fault(chain(&error)));
    }
    // What would be checked at the commit. It fails as well when the handler went on after a failed statement.
    match sqlx::query("set constraints all immediate").execute(&mut *conn).await {
        Ok(_) => {}
        Err(sqlx::Error::Database(error)) => return Ok(of_fault(error.to_string())),
        Err(error) => return Err(error.into()),
    }
    sqlx::query("set constraints all deferred").execute(conn).await?;
    Ok(Handled { outcome: Outcome::Done, why: None, said })
}

fn shown(prefix: &str, message: &Message) -> SaidDry {
    let headers = serde_json::from_str(&headers::to_json(&message.envelope)).unwrap_or_default();
    SaidDry {
        topic: format!("{prefix}{}", message.topic),
        key: message.key.clone(),
        kind: message.envelope.kind.clone(),
        headers,
        payload_base64: BASE64.encode(&message.payload),
    }
}
