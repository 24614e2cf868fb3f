//! The usual recipes for reading an outbox, each running beside the relay on the same rows; what they publish goes to
//! a journal, in the order in which a broker would have had it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, PgPool, Row as _};
use tokio::task::JoinSet;

use crate::audit::Published;

/// Rows that a worker of the queue claims at once.
const CLAIM_ROWS: i64 = 10;
/// What it takes to send a row to a broker, at least.
const SENDING: Duration = Duration::from_micros(300);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// Looks in a row that find nothing after which a recipe counts as standing still.
const IDLE_LOOKS: u32 = 100;

/// A recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// `where id > $last order by id`.
    Cursor,
    /// Behind the oldest running transaction, by `(xid, id)`.
    GateByXid,
    /// Behind the oldest running transaction, by `id`.
    GateById,
    /// Two workers that claim rows with `for update skip locked`, publish, delete.
    SkipLocked,
}

impl Recipe {
    pub(crate) const ALL: [Self; 4] = [Self::Cursor, Self::GateByXid, Self::GateById, Self::SkipLocked];

    fn statement(self) -> &'static str {
        match self {
            Self::Cursor => {
                "select id, xid::text as xid, convert_from(key, 'UTF8') as key, headers ->> 'ce_id' as message,
                        (headers ->> 'ce_sequence')::bigint as version
                 from outbox where id > $2 and $1 <> '' order by id"
            }
            Self::GateByXid => {
                "select id, xid::text as xid, convert_from(key, 'UTF8') as key, headers ->> 'ce_id' as message,
                        (headers ->> 'ce_sequence')::bigint as version
                 from outbox where xid < pg_snapshot_xmin(pg_current_snapshot()) and (xid, id) > ($1::xid8, $2)
                 order by xid, id"
            }
            Self::GateById => {
                "select id, xid::text as xid, convert_from(key, 'UTF8') as key, headers ->> 'ce_id' as message,
                        (headers ->> 'ce_sequence')::bigint as version
                 from outbox where xid < pg_snapshot_xmin(pg_current_snapshot()) and id > $2 and $1 <> ''
                 order by id"
            }
            Self::SkipLocked => {
                "select id, key, message, version from queue order by id limit $1 for update skip locked"
            }
        }
    }
}

/// The table that the last recipe claims from: filled in the transaction of each append, as an outbox of that kind is.
pub(crate) const QUEUE: &str = "
    create table queue (id bigint primary key, key text, message text, version bigint);
    create function enqueue() returns trigger language plpgsql as $$ begin
        insert into queue select id, convert_from(key, 'UTF8'), headers ->> 'ce_id', (headers ->> 'ce_sequence')::bigint
        from fresh;
        return null;
    end $$;
    create trigger enqueue after insert on outbox referencing new table as fresh for each statement
        execute function enqueue();";

/// A recipe at work, and what it published so far.
pub(crate) struct Running {
    pub(crate) recipe: Recipe,
    journal: Arc<Mutex<Vec<(i64, Published)>>>,
    idle: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Running {
    pub(crate) fn start(recipe: Recipe, pool: &PgPool) -> Self {
        let (journal, idle) = (Arc::<Mutex<Vec<(i64, Published)>>>::default(), Arc::<AtomicU32>::default());
        let stop = Arc::<AtomicBool>::default();
        let mut tasks = JoinSet::new();
        let workers = if recipe == Recipe::SkipLocked { 2 } else { 1 };
        for _ in 0..workers {
            let worker = Worker {
                recipe,
                pool: pool.clone(),
                journal: Arc::clone(&journal),
                idle: Arc::clone(&idle),
                last: ("0".to_owned(), 0),
            };
            tasks.spawn(worker.run(Arc::clone(&stop)));
        }
        Self { recipe, journal, idle, stop, tasks }
    }

    /// What it published until now, each with its row's id.
    pub(crate) fn journal(&self) -> Vec<(i64, Published)> {
        self.journal.lock().unwrap().clone()
    }

    /// Waits until it has looked many times without finding anything.
    pub(crate) async fn stands_still(&self) {
        self.idle.store(0, Ordering::SeqCst);
        waybill_testkit::eventually(crate::setup::SOON, async || {
            (self.idle.load(Ordering::SeqCst) >= IDLE_LOOKS).then_some(())
        })
        .await;
    }

    /// Ends it.
    pub(crate) async fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

struct Worker {
    recipe: Recipe,
    pool: PgPool,
    journal: Arc<Mutex<Vec<(i64, Published)>>>,
    idle: Arc<AtomicU32>,
    last: (String, i64),
}

impl Worker {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        let mut connection = self.pool.acquire().await.unwrap().detach();
        while !stop.load(Ordering::SeqCst) {
            let found = match self.recipe {
                Recipe::SkipLocked => self.claim(&mut connection).await,
                _ => self.follow(&mut connection).await,
            };
            if found > 0 {
                self.idle.store(0, Ordering::SeqCst);
            } else {
                self.idle.fetch_add(1, Ordering::SeqCst);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads what comes after the last row it remembers.
    async fn follow(&mut self, connection: &mut PgConnection) -> usize {
        let query = sqlx::query(self.recipe.statement()).bind(&self.last.0).bind(self.last.1);
        let rows = query.fetch_all(connection).await.unwrap();
        for row in &rows {
            self.last = (row.get("xid"), row.get("id"));
            self.publish(row);
        }
        rows.len()
    }

    /// Claims some rows, publishes them one after the other, deletes them.
    async fn claim(&mut self, connection: &mut PgConnection) -> usize {
        let mut transaction = connection.begin().await.unwrap();
        let query = sqlx::query(self.recipe.statement()).bind(CLAIM_ROWS);
        let rows = query.fetch_all(&mut *transaction).await.unwrap();
        for row in &rows {
            tokio::time::sleep(SENDING).await;
            self.publish(row);
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.get("id")).collect();
        let gone = sqlx::query("delete from queue where id = any ($1)").bind(ids);
        gone.execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        rows.len()
    }

    fn publish(&self, row: &sqlx::postgres::PgRow) {
        let published =
            Published { message: row.get("message"), key: row.get("key"), version: row.get("version") };
        self.journal.lock().unwrap().push((row.get("id"), published));
    }
}
