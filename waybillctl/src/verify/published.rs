//! An outbox against its topics: what is published is there, what is there was said, each key's records are in order.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::topics::Topic;

use super::databases::{Looks, Owner};
use super::kafka::{Seen, Survey, Topics, digest, is_dead_letters, is_main, is_retries};
use super::report::Check;
use super::{outbox, taken};

/// Rows held in memory at a time, at some 80 bytes each: 32 MiB. An outbox with more is compared in several passes,
/// each of a share of the keys; each reads the topic again.
const PASS_ROWS_MAX: u64 = 400_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

pub(crate) fn new_check() -> Check {
    Check::new(
        "topics",
        "every row that the relay says is published is in its topic, every record of ours is a row with its key and value, each key reads 1..n",
    )
}

/// One topic, before and after the snapshots were taken.
pub(crate) struct Audit<'a> {
    pub(crate) topics: &'a Topics,
    pub(crate) topic: &'a Topic,
    /// What lay in the topic then was committed before the snapshots.
    pub(crate) before: &'a Survey,
    /// What was published at the snapshots lies in the topic now.
    pub(crate) after: &'a Survey,
}

/// One row of the outbox.
struct Row {
    key: u64,
    sequence: i64,
    created_ms: i64,
    published: bool,
    seen: bool,
    digest: u32,
}

/// A share of an outbox's rows for one topic, and how far the topic's keys have counted.
struct Book {
    rows: HashMap<u128, Row>,
    counted: HashMap<u64, i64>,
}

type OutboxRow = (Uuid, Option<Vec<u8>>, i64, Option<i64>, Option<i64>, bool, Vec<u8>);

impl Audit<'_> {
    /// Reads the topic and holds it against the outbox of its writer and the inboxes of its readers.
    pub(crate) async fn check(
        &self,
        looks: &mut Looks,
        published: &mut Check,
        taken: &mut Check,
    ) -> anyhow::Result<()> {
        let Some(writer) = Owner::named(&self.topic.producer) else {
            published.not_judged("topics of services without a database here", 1);
            return Ok(());
        };
        let kept = Kept::ask(looks.of(writer), &self.topics.full(&self.topic.name)).await?;
        let passes = kept.rows.div_ceil(PASS_ROWS_MAX).max(1);
        for pass in 0..passes {
            let mut book = self.load(looks.of(writer), pass, passes).await?;
            let mut reading = self.topics.read(&self.topic.name, &self.after.partitions)?;
            loop {
                let records = reading.next().await?;
                if records.is_empty() {
                    break;
                }
                for record in records.iter().filter(|record| hashed(&record.key) % passes == pass) {
                    self.meet(&mut book, record, &kept, published);
                }
                if pass == 0 {
                    taken::check(self.topics, self.topic, &self.before.committed, &records, looks, taken)
                        .await?;
                }
            }
            self.close(book, published);
        }
        Ok(())
    }

    async fn load(&self, conn: &mut PgConnection, pass: u64, passes: u64) -> anyhow::Result<Book> {
        // What a round of the relay covers, and what it has done of the round it is in.
        let mut rows = sqlx::query_as::<_, OutboxRow>(
            "select o.message_id, o.key, (extract(epoch from o.created_at) * 1000)::bigint,
                    case when $2 then (o.headers->>'ce_sequence')::bigint end,
                    case when $3 then (o.headers->>'retry_hop')::bigint end,
                    coalesce(pg_visible_in_snapshot(o.xid, r.position_from)
                             or (pg_visible_in_snapshot(o.xid, r.position_to) and o.id <= r.position_id), false),
                    substr(sha256(coalesce(o.payload, '')), 1, 4)
             from outbox o left join outbox_relay r on r.name = 'default'
             where o.topic = $1",
        )
        .bind(self.topics.full(&self.topic.name))
        .bind(is_main(self.topic))
        .bind(is_retries(&self.topic.name))
        .fetch(conn);
        let mut book = Book { rows: HashMap::new(), counted: HashMap::new() };
        while let Some((id, key, created_ms, sequence, hop, published, value)) = rows.try_next().await? {
            let key = hashed(&key.unwrap_or_default());
            if key % passes != pass {
                continue;
            }
            let sequence = sequence.unwrap_or_default();
            let row = Row { key, sequence, created_ms, published, seen: false, digest: digest(&value) };
            // A row that was appended again, to be published again, says nothing new.
            book.rows.entry(identity(id, hop)).or_insert(row).published |= published;
        }
        Ok(book)
    }

    /// One record of the topic, in the order of its partition.
    fn meet(&self, book: &mut Book, record: &Seen, kept: &Kept, check: &mut Check) {
        let name = &self.topic.name;
        let place = || format!("{name} [{}] at {}", record.partition, record.offset);
        let Some(id) = self.identity_of(record) else {
            check.not_judged("records that are not of our services", 1);
            return;
        };
        let Some(row) = book.rows.get_mut(&id) else {
            let known_then = self.before.partitions.iter().find(|then| then.number == record.partition);
            if known_then.is_none_or(|then| record.offset >= then.high) {
                check.not_judged("records younger than the look at the outbox", 1);
            } else if kept.forgotten(record.at_ms) {
                check.not_judged("records whose rows may be dropped", 1);
            } else {
                check.violation(format!("{}: message {} is in no outbox", place(), Uuid::from_u128(id)));
            }
            return;
        };
        if hashed(&record.key) != row.key || record.digest != row.digest {
            let id = Uuid::from_u128(id);
            check.violation(format!("{}: message {id} has another key or value than its row", place()));
        }
        if row.seen {
            // Once more: allowed, and dropped by every inbox.
            return;
        }
        row.seen = true;
        check.judged += 1;
        if !is_main(self.topic) {
            return;
        }
        let begins = self.after.partitions.iter().any(|now| now.number == record.partition && now.low > 0);
        let before = book.counted.insert(row.key, row.sequence);
        let expected = before.map_or(1, |before| before + 1);
        let excused = before.is_none() && (begins || kept.since_ms.is_some());
        if (row.sequence != expected && !excused) || record.sequence != Some(row.sequence) {
            let key = String::from_utf8_lossy(&record.key);
            let found = record.sequence.unwrap_or_default();
            check.violation(format!("{}: key {key} reads {found} after {}", place(), expected - 1));
        }
    }

    /// What is published and was not met.
    fn close(&self, book: Book, check: &mut Check) {
        let kept_since = self.kept_since();
        for (id, row) in book.rows.iter().filter(|(_, row)| !row.seen) {
            if !row.published {
                check.not_judged("rows that are not published yet", 1);
            } else if row.created_ms < kept_since {
                check.not_judged("rows whose records the topic may no longer keep", 1);
            } else {
                let id = Uuid::from_u128(*id);
                check.violation(format!("{}: message {id} is published, and not there", self.topic.name));
            }
        }
    }

    /// Rows older than this may have lost their records to the topic's retention, which cuts by segments.
    fn kept_since(&self) -> i64 {
        let is_cut = self.after.partitions.iter().any(|partition| partition.low > 0);
        let now_ms = chrono::Utc::now().timestamp_millis();
        match (is_cut, self.topic.retention_ms) {
            (false, _) => i64::MIN,
            (true, -1) => i64::MIN,
            // A segment is kept until its last record is old enough, so what is gone is older than this.
            (true, retention_ms) => now_ms - retention_ms + DAY_MS,
        }
    }

    fn identity_of(&self, record: &Seen) -> Option<u128> {
        if is_dead_letters(&self.topic.name) {
            record.dead_letter.map(|id| identity(id, None))
        } else if is_retries(&self.topic.name) {
            record.hop.map(|hop| identity(record.id.unwrap_or_default(), Some(hop)))
        } else {
            record.id.filter(|_| record.ours).map(|id| identity(id, None))
        }
    }
}

/// A message, or one appearance of it on the retry topics.
fn identity(id: Uuid, hop: Option<i64>) -> u128 {
    let hop = hop.and_then(|hop| u128::try_from(hop).ok()).map_or(0, |hop| hop + 1);
    id.as_u128().wrapping_add(hop)
}

fn hashed(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// What an outbox still has.
struct Kept {
    rows: u64,
    /// Every row from here on; `None`: every row there ever was.
    since_ms: Option<i64>,
}

impl Kept {
    async fn ask(conn: &mut PgConnection, topic: &str) -> anyhow::Result<Self> {
        let since_ms = outbox::kept_since(conn).await?.map(outbox::beginning_ms);
        let rows = sqlx::query_scalar("select count(*) from outbox where topic = $1").bind(topic);
        let rows: i64 = rows.fetch_one(conn).await?;
        Ok(Self { rows: u64::try_from(rows)?, since_ms })
    }

    /// Whether the row of a record of this time may have been dropped; a row may have waited a day to be published.
    fn forgotten(&self, at_ms: i64) -> bool {
        self.since_ms.is_some_and(|since_ms| at_ms < since_ms + DAY_MS)
    }
}
