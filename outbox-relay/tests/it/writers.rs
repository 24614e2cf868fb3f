//! Concurrent writers of every kind beside a running relay, and the usual recipes on the same table.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, PgPool, Row as _};
use tokio::task::JoinSet;
use waybill_testkit::TestDatabase;

use super::audit::audit;
use super::setup::{Outbox, SOON, TOPIC, append};

const WRITERS: u64 = 12;
const TRANSACTIONS: u64 = 60;

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// One writer: early transaction ids, pauses between append and commit, savepoints and rollbacks, hot aggregates.
pub(crate) async fn write(mut connection: PgConnection, topic: String, seed: u64, transactions: u64) {
    let mut dice = Dice(seed);
    for _ in 0..transactions {
        let mut transaction = connection.begin().await.unwrap();
        if dice.roll(3) == 0 {
            sqlx::query("select pg_current_xact_id()").execute(&mut *transaction).await.unwrap();
            tokio::time::sleep(Duration::from_millis(dice.roll(8))).await;
        }
        // Locked in ascending order, as commands do.
        let first = i32::try_from(dice.roll(6)).unwrap() + 1;
        append(&mut transaction, &topic, first).await;
        if dice.roll(4) == 0 {
            let mut savepoint = transaction.begin().await.unwrap();
            append(&mut savepoint, &topic, first + 7).await;
            if dice.roll(2) == 0 {
                savepoint.rollback().await.unwrap()
            } else {
                savepoint.commit().await.unwrap()
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(6))).await;
        if dice.roll(5) == 0 {
            transaction.rollback().await.unwrap()
        } else {
            transaction.commit().await.unwrap()
        }
    }
}

/// What a recipe that remembers the last row has read, in its order.
async fn follow(pool: PgPool, statement: &'static str, stop: Arc<AtomicBool>) -> Vec<(i64, String, i64)> {
    let mut read: Vec<(i64, String, i64)> = Vec::new();
    let mut last = ("0".to_owned(), 0_i64);
    loop {
        let stopping = stop.load(Ordering::SeqCst);
        let rows = sqlx::query(statement).bind(&last.0).bind(last.1).fetch_all(&pool).await.unwrap();
        for row in &rows {
            last = (row.get("xid"), row.get("id"));
            read.push((row.get("id"), row.get("key"), row.get("version")));
        }
        if stopping && rows.is_empty() {
            return read;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const CURSOR: &str = "
    select id, xid::text as xid, convert_from(key, 'UTF8') as key, (headers ->> 'ce_sequence')::bigint as version
    from outbox where id > $2 and $1 <> '' order by id";

/// The order of `where xid < pg_snapshot_xmin(pg_current_snapshot()) and (xid, id) > ($1, $2) order by xid, id`.
const BY_XID: &str = "
    select id, xid::text as xid, convert_from(key, 'UTF8') as key, (headers ->> 'ce_sequence')::bigint as version
    from outbox where (xid, id) > ($1::xid8, $2) order by xid, id";

fn inversions(read: &[(i64, String, i64)]) -> usize {
    let mut newest = std::collections::BTreeMap::new();
    let turned = read.iter().filter(|(_, key, version)| {
        let newest = newest.entry(key.clone()).or_insert(0);
        let turned = *version < *newest;
        *newest = (*newest).max(*version);
        turned
    });
    turned.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_committed_row_comes_in_order_where_the_recipes_fail() {
    let outbox = Outbox::new("writers").await;
    let mut relay = outbox.relay().spawn();
    relay.wait_ready(SOON).await;
    let stop = Arc::new(AtomicBool::new(false));
    let pool = &outbox.database.pool;
    let cursor = tokio::spawn(follow(pool.clone(), CURSOR, Arc::clone(&stop)));

    // Two strangers keep a transaction open all the while: one here, one in another database.
    let elsewhere = TestDatabase::create("writers_elsewhere").await;
    let mut strangers = [outbox.connection().await, PgConnection::connect(&elsewhere.url).await.unwrap()];
    for stranger in &mut strangers {
        sqlx::raw_sql("begin; select pg_current_xact_id()").execute(stranger).await.unwrap();
    }
    let mut writers = JoinSet::new();
    for seed in 0..WRITERS {
        writers.spawn(write(outbox.connection().await, outbox.topics.full(TOPIC), seed, TRANSACTIONS));
    }
    writers.join_all().await;
    // Everything is there while the strangers are still open: nothing waits for them.
    let audit = audit(&outbox.topics, TOPIC, pool).await;
    assert_eq!(audit.repeats, 0, "no crash, no repeat");
    for stranger in &mut strangers {
        sqlx::raw_sql("commit").execute(stranger).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let cursor = cursor.await.unwrap();
    // What the gate would have let out once the last stranger of the whole server is gone: its order is the table's.
    let gate = follow(pool.clone(), BY_XID, stop).await;
    let all: Vec<i64> = sqlx::query_scalar("select id from outbox").fetch_all(pool).await.unwrap();
    let read: BTreeSet<i64> = cursor.iter().map(|(id, ..)| *id).collect();
    let lost = all.iter().filter(|id| !read.contains(id)).count();
    println!(
        "{} rows: ours 0 lost 0 inverted; cursor {lost} lost; xmin gate by xid {} inverted",
        all.len(),
        inversions(&gate)
    );
    assert!(lost > 0, "the cursor loses rows that commit late");
    assert!(inversions(&gate) > 0, "the gate in xid order turns versions round");
    assert_eq!(relay.terminate().await, Some(0));
}
