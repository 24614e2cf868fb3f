//! Ordered retry: one head of a key travels through retry topics, the rest of the key waits in order.
//!
//! A message that asks to be retried parks its key for its group. The *head* goes through the outbox to
//! `<topic>.<group>.retry.<n>`; later messages of the key are held in Postgres; other keys go on. When the head is done,
//! the held ones are drained in order and the key is unparked. A head that used up its attempts, or is rejected, becomes a
//! dead letter and blocks its key, or, by policy, lets it go on.
//!
//! | module | job |
//! |---|---|
//! | [`policy`] | tiers, attempts, what a dead letter does to its key, bounds |
//! | `settings` | the policy from the environment: [`Policy::read`], [`RetryTopics`] |
//! | [`key_state`] | the state of a parked key |
//! | [`decide`] | what becomes of a record and its key; pure, explored exhaustively by a test |
//! | [`brake`] | when most of the last keys fail alike, the consumer pauses; pure |
//! | [`headers`] | what a retried record tells of itself, as text |
//! | [`header_changes`] | other headers for a replay, as an operator wishes |
//! | `clock` | the database's clock, by which heads are due |
//! | [`RetryProcessor`] | the handler of the consumer that reads the retry topics |
//! | [`Drainer`] | held messages of keys whose head is done |
//! | [`operate`] | an operator's replay and discard of a dead letter |
//!
//! A group runs three things: a consumer with its [`crate::inbox::InboxProcessor`], one with that one's `retries()` and
//! [`RetryProcessor::consumer_config`], and its `drainer()`, which also asks what time it is.

pub mod brake;
pub(crate) mod clock;
pub mod decide;
mod drain;
pub mod header_changes;
pub mod headers;
mod heads;
pub mod key_state;
pub(crate) mod one;
pub mod operate;
pub mod policy;
mod settings;
pub(crate) mod settle;
pub(crate) mod store;

pub use self::drain::Drainer;
pub use self::heads::RetryProcessor;
pub use self::key_state::KeyState;
pub use self::policy::{BrakePolicy, Poisoned, Policy};
pub use self::settings::RetryTopics;
