//! How many messages each topic has had for a saga's key: `ce_sequence` is counted here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The last sequence used, by topic. Carried in the instance; a later saga of the same key starts with the former one's, so
/// that the numbers of a topic and key go on 1..n without gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequences(BTreeMap<String, i64>);

impl Sequences {
    /// Takes the next number of `topic`.
    pub fn next(&mut self, topic: &str) -> i64 {
        if let Some(last) = self.0.get_mut(topic) {
            *last += 1;
            return *last;
        }
        self.0.insert(topic.to_owned(), 1);
        1
    }

    /// The last number of `topic`; 0 when it had none.
    #[must_use]
    pub fn last(&self, topic: &str) -> i64 {
        self.0.get(topic).copied().unwrap_or(0)
    }

    /// Raises the last number of `topic` to `last`, for messages the saga's owner has sent itself. Never lowers it.
    pub fn raise(&mut self, topic: &str, last: i64) {
        let entry = self.0.entry(topic.to_owned()).or_insert(0);
        *entry = last.max(*entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_counts_for_itself() {
        let mut sequences = Sequences::default();
        assert_eq!((sequences.next("a"), sequences.next("a"), sequences.next("b")), (1, 2, 1));
        sequences.raise("b", 4);
        sequences.raise("a", 1);
        assert_eq!((sequences.last("a"), sequences.next("b"), sequences.last("c")), (2, 5, 0));
        assert_eq!(serde_json::to_string(&sequences).unwrap(), r#"{"a":2,"b":5}"#);
    }
}
