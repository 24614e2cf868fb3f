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
//! | `settings` | the policy from the environment: [`Policy::read`], [`topics_declared`] |
//! | [`key_state`] | the state of a parked key |
//! | [`decide`] | what becomes of a record and its key; pure, explored exhaustively by a test |
//! | [`brake`] | when most of the last keys fail alike, the consumer pauses; pure |
//! | [`headers`] | what a retried record tells of itself, as text |
//! | [`RetryProcessor`] | the handler of the consumer that reads the retry topics |
//! | [`Drainer`] | held messages of keys whose head is done |
//! | [`operate`] | an operator's replay and discard of a dead letter |
//!
//! A group runs three things: a consumer with its [`crate::inbox::InboxProcessor`], one with that one's `retries()` and
//! [`consumer_config`], and its `drainer()`.

pub mod brake;
pub mod decide;
mod drain;
pub mod headers;
mod heads;
pub mod key_state;
pub(crate) mod one;
pub mod operate;
pub mod policy;
mod settings;
pub(crate) mod settle;
pub(crate) mod store;

use waybill_messaging::consumer::ConsumerConfig;

pub use self::drain::Drainer;
pub use self::heads::RetryProcessor;
pub use self::key_state::KeyState;
pub use self::policy::{BrakePolicy, Poisoned, Policy};
pub use self::settings::topics_declared;

/// The settings of the consumer that reads the retry topics of `group`, which reads `topics`; all without prefix. It is a
/// Kafka group of its own, `<group>.retry`, so that neither's rebalances touch the other's partitions.
///
/// `None` when the policy has no tiers: then there is nothing to read.
#[must_use]
pub fn consumer_config(
    bootstrap: &str,
    prefix: &str,
    group: &str,
    topics: &[&str],
    policy: &Policy,
) -> Option<ConsumerConfig> {
    let names: Vec<String> = topics.iter().flat_map(|topic| policy.topics(topic, group)).collect();
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut config = ConsumerConfig::new(bootstrap, prefix, &format!("{group}.retry"), &names);
    config.due = Some(headers::due_at);
    Some(config)
}
