//! The audit from the topics: nothing lost, nothing invented, no inversion after dropping equal ids.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgPool, Row as _};
use waybill_testkit::{OwnedRecord, TestTopics};

use super::setup::SOON;

/// A message as the broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// Its id.
    pub(crate) message: String,
    /// Its aggregate.
    pub(crate) key: String,
    /// Its number in the aggregate, counting from 1.
    pub(crate) version: i64,
}

impl Published {
    fn of(record: &OwnedRecord) -> Self {
        Self {
            message: record.header("ce_id").unwrap().to_owned(),
            key: record.key_text().to_owned(),
            version: record.header("ce_sequence").unwrap().parse().unwrap(),
        }
    }
}

/// What is to be said of what was published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    pub(crate) records: usize,
    /// Records whose id had been there before: dropped by every consumer.
    pub(crate) repeats: usize,
    /// Committed, not published.
    pub(crate) lost: usize,
    /// Published, not committed.
    pub(crate) invented: usize,
    /// First appearances behind a newer one of their aggregate.
    pub(crate) inverted: usize,
    /// The first fault, in words.
    pub(crate) first_fault: Option<String>,
}

impl Audit {
    /// Whether the promises are kept.
    pub(crate) fn is_clean(&self) -> bool {
        (self.lost, self.invented, self.inverted) == (0, 0, 0)
    }

    fn fault(&mut self, text: impl FnOnce() -> String) {
        self.first_fault.get_or_insert_with(text);
    }
}

/// Looks at records in the order of their partition; `committed` are the ids in the table.
pub(crate) fn examine(published: &[Published], committed: &BTreeSet<String>) -> Audit {
    let mut audit = Audit { records: published.len(), ..Audit::default() };
    let mut seen = BTreeSet::new();
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for one in published {
        if !seen.insert(one.message.as_str()) {
            audit.repeats += 1;
            continue;
        }
        if !committed.contains(&one.message) {
            audit.invented += 1;
            audit.fault(|| format!("{one:?} was never committed"));
        }
        let newest = newest.entry(&one.key).or_default();
        if one.version < *newest {
            audit.inverted += 1;
            audit.fault(|| format!("{one:?} comes after version {newest}"));
        }
        *newest = one.version.max(*newest);
    }
    for message in committed.iter().filter(|message| !seen.contains(message.as_str())) {
        audit.lost += 1;
        audit.fault(|| format!("{message} was committed and is nowhere"));
    }
    audit
}

/// The ids of the committed rows of a topic.
pub(crate) async fn committed(pool: &PgPool, full_topic: &str) -> BTreeSet<String> {
    let rows = sqlx::query("select headers ->> 'ce_id' as message from outbox where topic = $1")
        .bind(full_topic)
        .fetch_all(pool)
        .await
        .unwrap();
    rows.iter().map(|row| row.get("message")).collect()
}

/// Reads a topic until every committed row is there, and looks at everything in it.
pub(crate) async fn audit(topics: &TestTopics, topic: &str, pool: &PgPool) -> Audit {
    let expected = committed(pool, &topics.full(topic)).await;
    // Counted as they come: looking through all of them at each record would take minutes.
    let missing = std::cell::RefCell::new((0, expected.clone()));
    let everything = |records: &[OwnedRecord]| {
        let (looked, missing) = &mut *missing.borrow_mut();
        for record in &records[*looked..] {
            missing.remove(record.header("ce_id").unwrap_or_default());
        }
        *looked = records.len();
        missing.is_empty()
    };
    let records = topics.read_all(topic, everything, SOON).await;
    let published: Vec<Published> = records.iter().map(Published::of).collect();
    let audit = examine(&published, &expected);
    assert!(audit.is_clean(), "{topic}: {audit:?}");
    audit
}

/// The same over what is in the topic at this moment: every repeat until now is counted.
pub(crate) async fn audit_to_end(topics: &TestTopics, topic: &str, pool: &PgPool) -> Audit {
    let expected = committed(pool, &topics.full(topic)).await;
    let records = topics.read_to_end(topic, SOON).await;
    let published: Vec<Published> = records.iter().map(Published::of).collect();
    let audit = examine(&published, &expected);
    assert!(audit.is_clean(), "{topic}: {audit:?}");
    audit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_sees_each_fault() {
        let one =
            |message: &str, version| Published { message: message.to_owned(), key: "a".to_owned(), version };
        let committed: BTreeSet<String> = ["1", "2", "3"].map(str::to_owned).into();
        let look = |published: &[Published]| examine(published, &committed);
        let clean = look(&[one("1", 1), one("2", 2), one("1", 1), one("2", 2), one("3", 3)]);
        assert!(clean.is_clean() && clean.repeats == 2, "{clean:?}");
        assert_eq!(look(&[one("1", 1), one("3", 3)]).lost, 1);
        assert_eq!(look(&[one("1", 1), one("3", 3), one("2", 2)]).inverted, 1);
        assert_eq!(look(&[one("1", 1), one("2", 2), one("3", 3), one("9", 4)]).invented, 1);
    }
}
