//! Which topics exist, and in which shape: the manifest, how a broker differs from it, and what mends that.
//!
//! Brokers run with auto-create off. `waybillctl topics apply` creates what the manifest declares; a service checks the
//! topics it uses when it starts ([`TopicAdmin::check`]) and refuses to work on a topic that is missing or shaped
//! differently, since a wrong partition count or retention loses order or records silently.

mod admin;
mod manifest;
mod plan;

pub use admin::{Applied, REPLICATION_DEFAULT, TopicAdmin};
pub use manifest::{Manifest, Topic};
pub use plan::{Drift, Plan, Setting, TopicPlan, TopicState};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// What can go wrong with topics.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// The manifest is not valid TOML, or has fields it should not.
    #[error("the topic manifest can not be read")]
    Manifest {
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// The manifest says something that can not be.
    #[error("the topic manifest is wrong at {topic:?}: {what}")]
    ManifestRule {
        /// The topic it is about.
        topic: String,
        /// What is wrong.
        what: String,
    },
    /// The client could not be made: a wrong setting.
    #[error(
        "no Kafka client can be made for {brokers:?}; check the bootstrap servers and the security settings"
    )]
    Client {
        /// The bootstrap servers given.
        brokers: String,
        /// What librdkafka says.
        #[source]
        source: KafkaError,
    },
    /// The brokers did not answer; trying again later may help.
    #[error("the brokers at {brokers} did not {doing}; check that they run and can be reached")]
    Brokers {
        /// The bootstrap servers given.
        brokers: String,
        /// What they were asked to do.
        doing: &'static str,
        /// What librdkafka says.
        #[source]
        source: KafkaError,
    },
    /// The brokers refused something about one topic.
    #[error("the brokers refused to {doing} {topic}: {code}")]
    Refused {
        /// Full name of the topic.
        topic: String,
        /// What they were asked to do.
        doing: &'static str,
        /// Why not.
        code: RDKafkaErrorCode,
    },
    /// Created topics have not got a leader for every partition in time; trying again later may help.
    #[error(
        "the brokers have created {topics} but not made them usable within {seconds} s; look at their logs"
    )]
    NotUsable {
        /// Full names, comma-separated.
        topics: String,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// A name is not in the manifest: a fault of this program.
    #[error("the topic manifest declares no topic {topic:?}")]
    Undeclared {
        /// The name without prefix.
        topic: String,
    },
    /// Topics are missing or shaped differently from the manifest. The text names each, with its mend.
    #[error("the brokers' topics are not as declared: {}", .problems.join("; "))]
    NotAsDeclared {
        /// One sentence a problem: topic, what is wrong, how to mend it.
        problems: Vec<String>,
    },
}

impl TopicsError {
    /// Whether the same call may succeed later without anyone mending anything: the brokers are away or slow.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Brokers { .. } | Self::NotUsable { .. })
    }
}
