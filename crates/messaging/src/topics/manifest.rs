//! The manifest of topics (schemas/topics.toml): read, completed with its defaults, checked.

use std::collections::HashSet;

use serde::Deserialize;

use super::TopicsError;

/// More topics than this in one manifest is a mistake: each costs the brokers memory and files.
const TOPICS_MAX: usize = 200;
/// A broker accepts far more; what we need is a few times the consumers of a group.
const PARTITIONS_MAX: i32 = 1_000;
/// Kafka's own limit on the length of a topic name. The manifest's names leave room for a prefix.
const NAME_BYTES_MAX: usize = 200;

/// Every topic of the system. Names are without prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    topics: Vec<Topic>,
}

/// One declared topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Name without prefix, e.g. `orders.events`.
    pub name: String,
    /// What its records are keyed by, in words.
    pub key: String,
    /// The service that writes it.
    pub producer: String,
    /// The groups that read it.
    pub consumers: Vec<String>,
    /// The `ce_type` of each message on it; none for dead letters.
    pub messages: Vec<String>,
    /// Number of partitions; never changes.
    pub partitions: i32,
    /// How long records are kept, in milliseconds; -1 for ever.
    pub retention_ms: i64,
    /// `delete` or `compact`.
    pub cleanup_policy: String,
    /// Largest record batch the broker takes, in bytes.
    pub max_message_bytes: i64,
    /// Copies that must have a record before it is acknowledged, where there are enough brokers;
    /// see [`Topic::min_insync_replicas_of`].
    pub min_insync_replicas: i32,
}

impl Manifest {
    /// Reads a manifest and checks its rules.
    ///
    /// # Errors
    /// [`TopicsError::Manifest`] or [`TopicsError::ManifestRule`].
    pub fn parse(text: &str) -> Result<Self, TopicsError> {
        let file: File = toml::from_str(text).map_err(|source| TopicsError::Manifest { source })?;
        let wrong = |topic: &str, what: String| TopicsError::ManifestRule { topic: topic.to_owned(), what };
        if file.topic.len() > TOPICS_MAX {
            return Err(wrong("", format!("{} topics are over the limit of {TOPICS_MAX}", file.topic.len())));
        }
        let mut names = HashSet::new();
        let mut topics = Vec::with_capacity(file.topic.len());
        for entry in file.topic {
            let topic = entry.completed(&file.defaults);
            if let Err(what) = topic.check() {
                return Err(wrong(&topic.name, what));
            }
            if !names.insert(topic.name.clone()) {
                return Err(wrong(&topic.name, "it is declared twice".to_owned()));
            }
            topics.push(topic);
        }
        Ok(Self { topics })
    }

    /// Every topic, in the manifest's order.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The topic of this name (without prefix).
    ///
    /// # Errors
    /// [`TopicsError::Undeclared`].
    pub fn topic(&self, name: &str) -> Result<&Topic, TopicsError> {
        let found = self.topics.iter().find(|topic| topic.name == name);
        found.ok_or_else(|| TopicsError::Undeclared { topic: name.to_owned() })
    }
}

impl Topic {
    /// `min.insync.replicas` where each partition has `replication` copies: what is declared, lowered so that one copy
    /// may be missing, and at least 1.
    #[must_use]
    pub fn min_insync_replicas_of(&self, replication: i32) -> i32 {
        self.min_insync_replicas.min((replication - 1).max(1))
    }

    /// The broker settings this topic is created with and compared by, for `replication` copies: name and value.
    #[must_use]
    pub fn settings(&self, replication: i32) -> [(&'static str, String); 4] {
        [
            ("cleanup.policy", self.cleanup_policy.clone()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
            ("min.insync.replicas", self.min_insync_replicas_of(replication).to_string()),
            ("retention.ms", self.retention_ms.to_string()),
        ]
    }

    fn check(&self) -> Result<(), String> {
        let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(in_name) {
            return Err(format!("a name is 1 to {NAME_BYTES_MAX} characters of a-z 0-9 . and -"));
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Err(format!("partitions = {} is not in 1..={PARTITIONS_MAX}", self.partitions));
        }
        if self.retention_ms < -1 || self.retention_ms == 0 {
            return Err(format!("retention_ms = {} keeps nothing; -1 keeps for ever", self.retention_ms));
        }
        if !["delete", "compact"].contains(&self.cleanup_policy.as_str()) {
            return Err(format!("cleanup_policy = {:?} is neither delete nor compact", self.cleanup_policy));
        }
        if self.max_message_bytes < 1 || self.min_insync_replicas < 1 {
            return Err("max_message_bytes and min_insync_replicas are 1 or more".to_owned());
        }
        Ok(())
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    defaults: Defaults,
    topic: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    partitions: i32,
    retention_ms: i64,
    cleanup_policy: String,
    max_message_bytes: i64,
    min_insync_replicas: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    key: String,
    producer: String,
    consumers: Vec<String>,
    messages: Vec<String>,
    partitions: Option<i32>,
    retention_ms: Option<i64>,
    cleanup_policy: Option<String>,
    max_message_bytes: Option<i64>,
    min_insync_replicas: Option<i32>,
}

impl Entry {
    fn completed(self, defaults: &Defaults) -> Topic {
        Topic {
            name: self.name,
            key: self.key,
            producer: self.producer,
            consumers: self.consumers,
            messages: self.messages,
            partitions: self.partitions.unwrap_or(defaults.partitions),
            retention_ms: self.retention_ms.unwrap_or(defaults.retention_ms),
            cleanup_policy: self.cleanup_policy.unwrap_or_else(|| defaults.cleanup_policy.clone()),
            max_message_bytes: self.max_message_bytes.unwrap_or(defaults.max_message_bytes),
            min_insync_replicas: self.min_insync_replicas.unwrap_or(defaults.min_insync_replicas),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str = "[defaults]\npartitions = 6\nretention_ms = 1000\ncleanup_policy = \"delete\"\n\
        max_message_bytes = 1048588\nmin_insync_replicas = 2\n";

    fn entry(name: &str, more: &str) -> String {
        format!(
            "[[topic]]\nname = {name:?}\nkey = \"k\"\nproducer = \"p\"\nconsumers = []\nmessages = []\n{more}\n"
        )
    }

    #[test]
    fn a_topic_takes_the_defaults_it_does_not_override() {
        let text =
            format!("{DEFAULTS}{}{}", entry("a.events", ""), entry("a.events.g.dlq", "partitions = 1"));
        let manifest = Manifest::parse(&text).unwrap();
        assert_eq!(manifest.topic("a.events").unwrap().partitions, 6);
        assert_eq!(manifest.topic("a.events.g.dlq").unwrap().partitions, 1);
        assert_eq!(manifest.topic("a.events.g.dlq").unwrap().retention_ms, 1000);
        assert!(matches!(manifest.topic("b.events"), Err(TopicsError::Undeclared { .. })));
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_topic() {
        let refused = [
            entry("Orders", ""),
            entry("", ""),
            entry("a", "partitions = 0"),
            entry("a", "retention_ms = 0"),
            entry("a", "cleanup_policy = \"keep\""),
            entry("a", "min_insync_replicas = 0"),
            format!("{}{}", entry("a", ""), entry("a", "")),
        ];
        for entries in refused {
            let error = Manifest::parse(&format!("{DEFAULTS}{entries}")).unwrap_err();
            assert!(matches!(error, TopicsError::ManifestRule { .. }), "{entries}: {error:?}");
        }
        let unknown = Manifest::parse(&format!("{DEFAULTS}{}", entry("a", "colour = 1")));
        assert!(matches!(unknown, Err(TopicsError::Manifest { .. })));
    }

    #[test]
    fn min_insync_leaves_room_for_one_missing_copy() {
        let manifest = Manifest::parse(&format!("{DEFAULTS}{}", entry("a", ""))).unwrap();
        let topic = manifest.topic("a").unwrap();
        assert_eq!([1, 2, 3, 5].map(|replication| topic.min_insync_replicas_of(replication)), [1, 1, 2, 2]);
    }
}
