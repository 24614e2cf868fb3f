//! The audit from the topics: nothing lost, nothing invented, no inversion after dropping equal ids.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgPool;
use waybill_testkit::{OwnedRecord, TestTopics};

use super::setup::SOON;

/// What the topics say.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) records: usize,
    pub(crate) repeats: usize,
}

/// Reads a topic until every committed row is there, and looks at everything in it.
pub(crate) async fn audit(topics: &TestTopics, topic: &str, pool: &PgPool) -> Audit {
    let full = topics.full(topic);
    let rows = "select headers ->> 'ce_id' from outbox where topic = $1";
    let expected: Vec<String> = sqlx::query_scalar(rows).bind(&full).fetch_all(pool).await.unwrap();
    let expected: BTreeSet<String> = expected.into_iter().collect();
    let records = topics.read_all(topic, |records| ids(records).is_superset(&expected), SOON).await;
    assert_eq!(ids(&records), expected, "nothing lost, nothing invented");
    check(&records)
}

fn ids(records: &[OwnedRecord]) -> BTreeSet<String> {
    records.iter().filter_map(|record| record.header("ce_id").map(str::to_owned)).collect()
}

/// Each key's first appearances carry `ce_sequence` 1..n.
fn check(records: &[OwnedRecord]) -> Audit {
    let mut seen = BTreeSet::new();
    let mut versions: BTreeMap<&str, i64> = BTreeMap::new();
    let mut audit = Audit { records: records.len(), repeats: 0 };
    for record in records {
        if !seen.insert(record.header("ce_id").unwrap()) {
            audit.repeats += 1;
            continue;
        }
        let last = versions.entry(record.key_text()).or_default();
        let version: i64 = record.header("ce_sequence").unwrap().parse().unwrap();
        assert_eq!(
            version,
            *last + 1,
            "key {} is inverted at {}/{}",
            record.key_text(),
            record.partition,
            record.offset
        );
        *last = version;
    }
    audit
}
