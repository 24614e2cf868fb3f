//! How a broker differs from the manifest, topic by topic, and what mends each difference. Pure: no broker is asked.

use std::collections::BTreeMap;
use std::fmt;

use super::manifest::Topic;

/// A topic as a broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) partitions: i32,
    /// Copies of its first partition; all have the same number unless someone is moving them.
    pub(super) replication: i32,
    /// Broker settings by name.
    pub(super) settings: BTreeMap<String, String>,
}

/// Every topic of a manifest, compared with a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the manifest's order.
    pub topics: Vec<TopicPlan>,
}

/// One topic, compared with a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Full name, with prefix.
    pub name: String,
    /// What the comparison found.
    pub state: TopicState,
}

/// What a comparison can find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicState {
    /// The broker has it as the manifest declares it.
    AsDeclared,
    /// The broker does not have it: `waybillctl topics apply` creates it.
    Missing,
    /// The broker has it in another shape. Nothing here changes it: a person decides.
    Drifted(Vec<Drift>),
}

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Which.
    pub setting: Setting,
    /// What the manifest declares.
    pub expected: String,
    /// What the broker has.
    pub found: String,
}

/// What of a topic is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// The number of partitions.
    Partitions,
    /// The number of copies of each partition.
    Replication,
    /// A broker setting, by its name, e.g. `retention.ms`.
    Config(&'static str),
}

impl Plan {
    /// Whether the broker has every topic as declared.
    #[must_use]
    pub fn is_as_declared(&self) -> bool {
        self.topics.iter().all(|topic| topic.state == TopicState::AsDeclared)
    }

    /// One sentence for each thing that is not as declared: topic, what is wrong, how to mend it.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.topics.iter().flat_map(TopicPlan::problems).collect()
    }
}

impl TopicPlan {
    /// Compares one declared topic. `replication` is compared too when it is given.
    pub(super) fn compare(
        topic: &Topic,
        name: String,
        found: Option<&Found>,
        replication: Option<i32>,
    ) -> Self {
        let Some(found) = found else {
            return Self { name, state: TopicState::Missing };
        };
        let mut drifts = Vec::new();
        let mut compare = |setting, expected: String, found: String| {
            if expected != found {
                drifts.push(Drift { setting, expected, found });
            }
        };
        compare(Setting::Partitions, topic.partitions.to_string(), found.partitions.to_string());
        if let Some(replication) = replication {
            compare(Setting::Replication, replication.to_string(), found.replication.to_string());
        }
        for (key, expected) in topic.settings(found.replication) {
            let found = found.settings.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
            compare(Setting::Config(key), expected, found);
        }
        let state = if drifts.is_empty() { TopicState::AsDeclared } else { TopicState::Drifted(drifts) };
        Self { name, state }
    }

    /// One sentence for each thing that is not as declared.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        match &self.state {
            TopicState::AsDeclared => Vec::new(),
            TopicState::Missing => {
                vec![format!("topic {} is missing: create it with `waybillctl topics apply`", self.name)]
            }
            TopicState::Drifted(drifts) => drifts.iter().map(|drift| self.problem(drift)).collect(),
        }
    }

    fn problem(&self, drift: &Drift) -> String {
        let Drift { setting, expected, found } = drift;
        format!("topic {} has {setting} = {found}, declared is {expected}: {}", self.name, self.mend(drift))
    }

    /// What a person can do about a drift of this topic.
    #[must_use]
    pub fn mend(&self, drift: &Drift) -> String {
        match drift.setting {
            Setting::Partitions => {
                "the partitions of a keyed topic must never change, since that breaks the order of its keys; \
                 delete and create it while it is empty, or declare the number it has"
                    .to_owned()
            }
            Setting::Replication => {
                "move its copies with kafka-reassign-partitions, or give the number it has".to_owned()
            }
            Setting::Config(key) => format!(
                "kafka-configs --alter --entity-type topics --entity-name {} --add-config {key}={}",
                self.name, drift.expected
            ),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Partitions => "partitions",
            Self::Replication => "replication",
            Self::Config(key) => key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        Topic {
            name: "a.events".to_owned(),
            key: "k".to_owned(),
            producer: "p".to_owned(),
            consumers: vec![],
            messages: vec![],
            partitions: 6,
            retention_ms: 1000,
            cleanup_policy: "delete".to_owned(),
            max_message_bytes: 1_048_588,
            min_insync_replicas: 2,
        }
    }

    fn found(replication: i32) -> Found {
        let settings = topic().settings(replication).map(|(key, value)| (key.to_owned(), value));
        Found { partitions: 6, replication, settings: BTreeMap::from(settings) }
    }

    fn compare(found: Option<&Found>, replication: Option<i32>) -> TopicPlan {
        TopicPlan::compare(&topic(), "t.a.events".to_owned(), found, replication)
    }

    #[test]
    fn what_was_created_as_declared_has_no_problems() {
        for replication in [1, 2, 3] {
            assert_eq!(compare(Some(&found(replication)), Some(replication)).state, TopicState::AsDeclared);
            assert_eq!(compare(Some(&found(replication)), None).state, TopicState::AsDeclared);
        }
    }

    #[test]
    fn every_difference_is_named_with_its_mend() {
        let mut other = found(3);
        other.partitions = 5;
        other.settings.insert("retention.ms".to_owned(), "60000".to_owned());
        other.settings.remove("cleanup.policy");
        let problems = compare(Some(&other), Some(1)).problems();
        assert_eq!(problems.len(), 4, "{problems:#?}");
        assert!(
            problems[0].starts_with("topic t.a.events has partitions = 5, declared is 6: the partitions")
        );
        assert!(problems[1].starts_with("topic t.a.events has replication = 3, declared is 1: "));
        assert!(problems[2].contains("cleanup.policy = nothing"));
        assert!(problems[3].ends_with("--entity-name t.a.events --add-config retention.ms=1000"));
        assert_eq!(
            compare(None, None).problems(),
            ["topic t.a.events is missing: create it with `waybillctl topics apply`"]
        );
    }
}
