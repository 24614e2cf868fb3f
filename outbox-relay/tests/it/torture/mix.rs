//! What the writers do: early transaction ids, hot and cold aggregates, savepoints, rollbacks, two-phase commits,
//! payloads of every size; and the strangers who leave a transaction open.

use std::time::{Duration, SystemTime};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinSet;
use waybill_testkit::{Dice, TestDatabase};

use super::lag::Commits;
use crate::setup::{Outbox, append_sized};

/// Aggregates that everybody wants, then those that few want; a command locks them in ascending order.
const HOT: u64 = 6;
const COLD: u64 = 300;
/// Those of savepoints lie above, so that they come last.
const NESTED: u64 = 310;
/// The strangers' and the bulk transactions'.
const STRANGERS: i32 = 401;
const BULK: i32 = 411;
/// The largest payload that the table takes.
const PAYLOAD_BYTES_MAX: i32 = 917_504;

/// What a writer draws.
trait Draws {
    /// A time shorter than this, in milliseconds.
    fn millis(&mut self, below: u64) -> Duration;
    fn aggregate(&mut self) -> i32;
    fn payload_bytes(&mut self) -> i32;
}

impl Draws for Dice {
    fn millis(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.roll(below))
    }

    fn aggregate(&mut self) -> i32 {
        let hot = self.roll(3) < 2;
        let number = if hot { self.roll(HOT) } else { HOT + self.roll(COLD - HOT) };
        i32::try_from(number).unwrap() + 1
    }

    fn payload_bytes(&mut self) -> i32 {
        match self.roll(200) {
            0 => PAYLOAD_BYTES_MAX,
            1..=9 => i32::try_from(self.roll(65_536)).unwrap(),
            10..=15 => 0,
            _ => i32::try_from(self.roll(300)).unwrap(),
        }
    }
}

/// One writer: so many transactions, each of another kind.
async fn write(mut connection: PgConnection, topic: String, seed: u64, transactions: u64, commits: Commits) {
    let mut dice = Dice::new(seed);
    for number in 0..transactions {
        execute(&mut connection, "begin".to_owned()).await;
        if dice.roll(3) == 0 {
            execute(&mut connection, "select pg_current_xact_id()".to_owned()).await;
            tokio::time::sleep(dice.millis(8)).await;
        }
        let mut aggregates: Vec<i32> = (0..=dice.roll(2)).map(|_| dice.aggregate()).collect();
        aggregates.sort_unstable();
        let mut messages = Vec::new();
        for aggregate in aggregates {
            messages.push(append_sized(&mut connection, &topic, aggregate, dice.payload_bytes()).await);
        }
        if dice.roll(4) == 0 {
            execute(&mut connection, "savepoint inner_part".to_owned()).await;
            let nested = i32::try_from(NESTED + dice.roll(HOT)).unwrap();
            let message = append_sized(&mut connection, &topic, nested, dice.payload_bytes()).await;
            let end = if dice.roll(2) == 0 { "rollback to" } else { "release" };
            messages.extend((end == "release").then_some(message));
            execute(&mut connection, format!("{end} savepoint inner_part")).await;
        }
        tokio::time::sleep(dice.millis(6)).await;
        if let Some(at) = finish(&mut connection, &mut dice, &format!("{topic} {seed} {number}")).await {
            commits.note(&messages, at);
        }
    }
}

/// Commits, rolls back, or does either in two phases. Returns when a commit was asked for.
async fn finish(connection: &mut PgConnection, dice: &mut Dice, name: &str) -> Option<SystemTime> {
    let verb = if dice.roll(5) == 0 { "rollback" } else { "commit" };
    let mut statement = verb.to_owned();
    if dice.roll(8) == 0 {
        execute(connection, format!("prepare transaction '{name}'")).await;
        tokio::time::sleep(dice.millis(6)).await;
        statement = format!("{verb} prepared '{name}'");
    }
    let at = SystemTime::now();
    execute(connection, statement).await;
    (verb == "commit").then_some(at)
}

async fn execute(connection: &mut PgConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}

/// Many writers at once, each on a connection of its own.
pub(crate) async fn writers(outbox: &Outbox, seed: u64, count: u64, transactions: u64) -> JoinSet<()> {
    writers_noted(outbox, seed, count, transactions, &Commits::default()).await
}

/// [`writers`] whose commits are noted.
pub(crate) async fn writers_noted(
    outbox: &Outbox,
    seed: u64,
    count: u64,
    transactions: u64,
    commits: &Commits,
) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for number in 0..count {
        let (connection, topic) = (outbox.connection().await, outbox.topics.full(crate::setup::TOPIC));
        let seed = seed.wrapping_mul(1_000) + number;
        writers.spawn(write(connection, topic, seed, transactions, commits.clone()));
    }
    writers
}

/// One transaction of so many rows, over ten aggregates that follow each other.
pub(crate) async fn bulk(outbox: &Outbox, rows: i32) {
    let mut connection = outbox.connection().await;
    let statement = "
        with locked as (update aggregate set version = version + $2 / 10 where id between $1 and $1 + 9
                        returning id, version - $2 / 10 as before),
        fresh as (select id, before + n as version, gen_random_uuid() as message
                  from locked, generate_series(1, $2 / 10) as n)
        select outbox_append(array_agg(message order by version, id), array_agg($3),
            array_agg(convert_to('a' || id, 'UTF8') order by version, id),
            array_agg(json_build_object('ce_id', message, 'ce_sequence', version::text)::text order by version, id),
            array_agg('\\x00'::bytea))
        from fresh";
    let query = sqlx::query(statement).bind(BULK).bind(rows).bind(outbox.topics.full(crate::setup::TOPIC));
    query.execute(&mut connection).await.unwrap();
}

/// Transactions that stay open: one here and one prepared here, both with rows of their own, one in another database.
pub(crate) struct Strangers {
    open: [PgConnection; 2],
    prepared: PgConnection,
    name: String,
    _elsewhere: TestDatabase,
}

impl Strangers {
    /// Begins them; each has its transaction id and the first two their rows.
    pub(crate) async fn begin(outbox: &Outbox) -> Self {
        let topic = outbox.topics.full(crate::setup::TOPIC);
        let elsewhere = TestDatabase::create("torture_elsewhere").await;
        let mut open = [outbox.connection().await, PgConnection::connect(&elsewhere.url).await.unwrap()];
        let mut prepared = outbox.connection().await;
        for connection in open.iter_mut().chain([&mut prepared]) {
            let begin = "set idle_in_transaction_session_timeout = 0; begin; select pg_current_xact_id()";
            execute(connection, begin.to_owned()).await;
        }
        append_sized(&mut open[0], &topic, STRANGERS, 100).await;
        append_sized(&mut prepared, &topic, STRANGERS + 1, 100).await;
        let name = format!("{topic} stranger");
        execute(&mut prepared, format!("prepare transaction '{name}'")).await;
        Self { open, prepared, name, _elsewhere: elsewhere }
    }

    /// Commits them; the first appends once more before it does.
    pub(crate) async fn commit(mut self, outbox: &Outbox) {
        let topic = outbox.topics.full(crate::setup::TOPIC);
        append_sized(&mut self.open[0], &topic, STRANGERS, 100).await;
        for connection in &mut self.open {
            execute(connection, "commit".to_owned()).await;
        }
        execute(&mut self.prepared, format!("commit prepared '{}'", self.name)).await;
    }
}
