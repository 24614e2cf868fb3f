//! A batch of records in one transaction, each message's effects once.
//!
//! | round trip | statement |
//! |---|---|
//! | 1, 2 | the pool's rollback guard, `begin` |
//! | 3 | every message id of the batch into the inbox; what was there already is a duplicate and dropped. The same round trip looks for parked keys and locks them |
//! | 4.. | the handler's statements, once per *wave*: the first message of each key, then the second of each, and so on |
//! | next | everything the handler wants to say, in one `outbox_append`; when it says nothing, one `select 1` that would fail if the handler had swallowed an error |
//! | last | `commit`; then the consumer stores the offsets |
//!
//! So a batch takes 5 statements and the handler's, however many messages it has. Failures add: dead letters two, heads
//! that are sent to be retried one, keys that are parked one, messages that are held two.
//!
//! | what goes wrong | what is done |
//! |---|---|
//! | the headers can not be read | dead letter at once, bytes unchanged; it is no message of its key, so it neither waits nor blocks |
//! | the payload can not be decoded | likewise a dead letter, in its turn, and it blocks its key as a rejected one does |
//! | a type the group does not know | skipped, without an inbox row |
//! | the handler wants to retry a message | rolled back and done again without it: it travels to the first retry topic, its key is parked, later messages of the key are held |
//! | the handler rejects a message | likewise, and it becomes a dead letter and blocks its key (policy *skip*: its key goes on) |
//! | most keys fail alike, or too much is held | [`BatchError`]: the consumer pauses and says so |
//! | the handler faults, panics, or breaks a constraint | rolled back, then redone in one transaction, in order, in parts behind savepoints that are halved until what fails is alone; that is rejected. One message of n takes `log2 n + 3` parts at most. When it takes more than 40 parts or a second, or loses a conflict, the parts are transactions of their own: many never more than about two for each message |
//! | a statement of the handler times out | each message is tried alone, in a transaction of its own. One that times out again, while others get through, is retried as if the handler had asked for it; when nobody gets through, it is as if Postgres were away |
//! | Postgres is away or overloaded, a lock timed out, a deadlock, a missing table or partition | [`BatchError`]: the same batch again after a back-off; nothing is dead-lettered |

mod appearance;
pub(crate) mod call;
pub(crate) mod fault;
mod halving;
pub(crate) mod incoming;
mod outcome;
mod process;
mod search;
pub(crate) mod span;
pub(crate) mod store;
pub(crate) mod timeout;
mod transaction;
mod waves;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::{Batch, BatchError, BatchHandler};
use waybill_messaging::envelope::Envelope;
use waybill_messaging::message::Message;

pub use self::appearance::appearance_in_tx;
use self::outcome::Outcomes;
use crate::operate::dry_run::{self, DryRun};
use crate::retry::brake::Brake;
use crate::retry::clock::DatabaseClock;
use crate::retry::{Drainer, Policy, RetryProcessor};

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
    /// Not now, perhaps later: its key is parked, it comes again after the policy's delays, its later ones wait for it.
    /// For what only this message meets; when everything fails, answer with an error, and the group waits.
    Retry {
        /// A short stable name, for filters: `provider_busy`.
        class: &'static str,
        /// The details, for the operator.
        why: String,
    },
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
    /// A message can not be handled: redone in parts until it is alone, then a dead letter.
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
    /// Log lines about one delivery are told with its ids: `delivery.envelope.story().tell(|| ...)`. [`Self::decode`]
    /// and a call with a single delivery are told so already.
    ///
    /// # Errors
    /// [`HandlerError`]; everything of the transaction is rolled back.
    fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<Self::Message>],
        out: &mut Vec<Message>,
    ) -> impl Future<Output = Result<Vec<Verdict>, HandlerError>> + Send;

    /// Effects of a batch from the main topics are committed: to wake whoever works on them. Not called for retried,
    /// held and replayed messages, nor after a crash, so whoever is woken also looks by itself now and then.
    fn committed(&self) {}
}

/// A consumer group's handler and what it works with; shared by its consumers.
pub(crate) struct Group<H> {
    pub(crate) pool: PgPool,
    pub(crate) prefix: String,
    pub(crate) handler: H,
    pub(crate) policy: Policy,
    pub(crate) outcomes: Outcomes,
    brake: Mutex<Brake>,
    /// How many transactions with effects of a message were committed, by this process.
    got_through: AtomicU64,
    /// What heads are due by; asked by the drainer.
    pub(crate) clock: DatabaseClock,
    /// Told when a key is to be drained.
    pub(crate) drain_wanted: Notify,
}

impl<H> Group<H> {
    pub(crate) fn brake(&self) -> MutexGuard<'_, Brake> {
        // Every change is complete when it is made, so a panic elsewhere leaves nothing half done.
        self.brake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Effects of a message are committed.
    pub(crate) fn one_got_through(&self) {
        self.got_through.fetch_add(1, Ordering::Relaxed);
    }

    /// To be compared with a later one: whether anything got through in between.
    pub(crate) fn got_through(&self) -> u64 {
        self.got_through.load(Ordering::Relaxed)
    }
}

/// Gives batches of records to a [`Handler`], transactionally and once each; the handler of a consumer.
pub struct InboxProcessor<H>(Arc<Group<H>>);

impl<H: Handler> InboxProcessor<H> {
    /// With the default [`Policy`]. `topic_prefix` is put before the topics of everything said, as the consumer's was
    /// before its own. What is retried or blocked needs [`crate::retry::RetryProcessor`] and [`crate::retry::Drainer`]
    /// beside it.
    pub fn new(pool: PgPool, topic_prefix: &str, handler: H) -> Self {
        Self::with_policy(pool, topic_prefix, handler, Policy::default())
    }

    /// With a policy of its own; one that can not work ([`Policy::check`]) gives dead letters instead of retries.
    pub fn with_policy(pool: PgPool, topic_prefix: &str, handler: H, policy: Policy) -> Self {
        let outcomes = Outcomes::new(handler.group());
        let brake = Mutex::new(Brake::new(policy.brake));
        let prefix = topic_prefix.to_owned();
        let (clock, drain_wanted) = (DatabaseClock::default(), Notify::new());
        let got_through = AtomicU64::new(0);
        let group =
            Group { pool, prefix, handler, policy, outcomes, brake, got_through, clock, drain_wanted };
        Self(Arc::new(group))
    }

    /// What reads the group's retry topics: the handler of a second consumer.
    #[must_use]
    pub fn retries(&self) -> RetryProcessor<H> {
        RetryProcessor::new(Arc::clone(&self.0))
    }

    /// Tries dead letters of the group with the handler, without a trace; for the operator API. Ask once: each one made
    /// has a place of its own.
    #[must_use]
    pub fn dry_run(&self) -> Arc<dyn DryRun> {
        Arc::new(dry_run::Runner::new(Arc::clone(&self.0)))
    }

    /// What goes on with keys whose head is done.
    #[must_use]
    pub fn drainer(&self) -> Drainer<H> {
        Drainer::new(Arc::clone(&self.0))
    }
}

impl<H: Handler> BatchHandler for InboxProcessor<H> {
    async fn handle(&self, batch: &Batch) -> Result<(), BatchError> {
        process::batch(&self.0, &batch.records).await
    }
}
