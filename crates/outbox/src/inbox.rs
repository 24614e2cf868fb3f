//! A batch of records in one transaction, each message's effects once.
//!
//! | round trip | statement |
//! |---|---|
//! | 1, 2 | the pool's rollback guard, `begin` |
//! | 3 | every message id of the batch into the inbox; what was there already is a duplicate and dropped |
//! | 4.. | the handler's statements, once per *wave*: the first message of each key, then the second of each, and so on |
//! | next | everything the handler wants to say, in one `outbox_append`; when it says nothing, one `select 1` that would fail if the handler had swallowed an error |
//! | last | `commit`; then the consumer stores the offsets |
//!
//! So a batch takes 5 statements and the handler's, however many messages it has. Dead letters found while decoding add two.
//!
//! | what goes wrong | what is done |
//! |---|---|
//! | headers or payload can not be decoded | dead letter at once, bytes unchanged; the rest of the batch goes on |
//! | a type the group does not know | skipped, without an inbox row |
//! | the handler rejects a message, faults, panics, or breaks a constraint | rolled back, then message by message, each in its own transaction; the one that fails there becomes a dead letter |
//! | Postgres is away or overloaded, a lock or statement timed out, a deadlock, a missing table or partition | [`BatchError`]: the same batch again after a back-off; nothing is dead-lettered |
//!
//! A message that became a dead letter does not hold back its key's later ones yet; ordered retry, with `hop` above 0,
//! joins here.

mod fault;
mod incoming;
mod outcome;
mod process;
mod store;
mod waves;

use std::fmt;
use std::future::Future;

use sqlx::{PgConnection, PgPool};
use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::{Batch, BatchError, BatchHandler};
use waybill_messaging::envelope::Envelope;
use waybill_messaging::message::Message;

use self::outcome::Outcomes;

/// A decoded message and its envelope. `Debug` shows the envelope only.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery<M> {
    /// What the headers say; the subject is the record's key.
    pub envelope: Envelope,
    /// The decoded payload.
    pub message: M,
}

impl<M> fmt::Debug for Delivery<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("envelope", &self.envelope).finish_non_exhaustive()
    }
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its effects are written. A business refusal is one: it is told by a reply.
    Done,
    /// It can not be handled now or later: a dead letter.
    Reject {
        /// A short stable name, for filters: `unknown_order`.
        class: &'static str,
        /// The details, for the operator.
        why: String,
    },
}

/// Why a handler gave up.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// A statement failed. Data and constraint errors are the message's fault, all others the infrastructure's.
    #[error("a statement failed")]
    Database(#[from] sqlx::Error),
    /// A message can not be handled: redone one by one, then a dead letter.
    #[error("{0}")]
    Fault(String),
}

impl HandlerError {
    /// A [`HandlerError::Fault`].
    pub fn fault(why: impl fmt::Display) -> Self {
        Self::Fault(why.to_string())
    }
}

impl From<CodecError> for HandlerError {
    fn from(error: CodecError) -> Self {
        Self::Fault(fault::chain(&error))
    }
}

/// What a consumer group does with its messages.
pub trait Handler: Send + Sync + 'static {
    /// All the messages this group handles.
    type Message: Send + Sync;

    /// The group's name, without prefix.
    fn group(&self) -> &str;

    /// Decodes a payload by its `ce_type`; `None` for a type this group has no interest in, which is decided by `kind` alone.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are no such message: a dead letter at once.
    fn decode(&self, kind: &str, payload: &[u8]) -> Result<Option<Self::Message>, CodecError>;

    /// Makes the effects of new messages (the inbox has dropped the known ones) in the given transaction, and no other
    /// effect: it may run several times before it counts. At most one message per key in one call; the next of a key comes
    /// in a later call of the same transaction.
    ///
    /// Answers one verdict per delivery, in order, and pushes what it wants to say to `out`. It returns every error it
    /// meets on `conn` (or undoes it with a savepoint), and neither commits nor rolls back.
    ///
    /// # Errors
    /// [`HandlerError`]; everything of the transaction is rolled back.
    fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<Self::Message>],
        out: &mut Vec<Message>,
    ) -> impl Future<Output = Result<Vec<Verdict>, HandlerError>> + Send;
}

/// Gives batches of records to a [`Handler`], transactionally and once each; the handler of a consumer.
pub struct InboxProcessor<H> {
    pool: PgPool,
    prefix: String,
    handler: H,
    outcomes: Outcomes,
}

impl<H: Handler> InboxProcessor<H> {
    /// `topic_prefix` is put before the topics of everything said, as the consumer's was before its own.
    pub fn new(pool: PgPool, topic_prefix: &str, handler: H) -> Self {
        let outcomes = Outcomes::new(handler.group());
        Self { pool, prefix: topic_prefix.to_owned(), handler, outcomes }
    }
}

impl<H: Handler> BatchHandler for InboxProcessor<H> {
    async fn handle(&self, batch: &Batch) -> Result<(), BatchError> {
        process::batch(self, &batch.records).await
    }
}
