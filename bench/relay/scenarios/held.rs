//! Drains while other transactions are open: a reader's snapshot in this database, a write in another one.

use sqlx::{Connection as _, PgConnection};
use waybill_testkit::TestDatabase;

use super::{audited, median_rate, position_reset};
use crate::arguments::Arguments;
use crate::findings::{Aim, Finding};
use crate::report::Run;
use crate::topic::Topic;
use crate::{load, relay};

pub(crate) async fn run(arguments: &Arguments) -> Vec<Finding> {
    let topic = Topic::create("held", arguments.partitions).await;
    let free = loaded("relay_free", arguments, &topic).await;
    // Its rows have transaction ids above the open write's, as everything has that is written while it is open: no
    // snapshot's xmin moves on, so that every round begins its search there.
    let other = TestDatabase::create("relay_other").await;
    sqlx::query("create table held (id int)").execute(&other.pool).await.unwrap();
    let mut writer = PgConnection::connect(&other.url).await.unwrap();
    open(&mut writer, "begin").await;
    sqlx::query("insert into held values (1)").execute(&mut writer).await.unwrap();
    let beside = loaded("relay_beside", arguments, &topic).await;

    // Whoever reads the rows first marks them as committed, which is writing: not counted.
    for database in [&free, &beside] {
        turn(0, "first reading, not counted", database, &topic, arguments).await;
    }
    let (mut plain, mut read, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=arguments.runs {
        plain.push(turn(number, "nothing held", &free, &topic, arguments).await);
        let mut reader = PgConnection::connect(&free.url).await.unwrap();
        open(&mut reader, "begin isolation level repeatable read").await;
        sqlx::query("select id from outbox limit 1").execute(&mut reader).await.unwrap();
        read.push(turn(number, "a reader held", &free, &topic, arguments).await);
        sqlx::query("rollback").execute(&mut reader).await.unwrap();
        written.push(turn(number, "a write held elsewhere", &beside, &topic, arguments).await);
    }
    sqlx::query("rollback").execute(&mut writer).await.unwrap();
    let share = |runs: &[Run]| 100.0 * median_rate(runs) / median_rate(&plain);
    vec![
        Finding::aimed(
            "drain under a REPEATABLE READ reader held open",
            share(&read),
            "%",
            Aim::AtLeast(95.0),
        ),
        Finding::aimed(
            "drain with an open write in another database",
            share(&written),
            "%",
            Aim::AtLeast(90.0),
        ),
    ]
}

/// Begins a transaction that may be idle: the servers end those that are, after seconds.
async fn open(conn: &mut PgConnection, begin: &'static str) {
    sqlx::query("set idle_in_transaction_session_timeout = 0").execute(&mut *conn).await.unwrap();
    sqlx::query(begin).execute(conn).await.unwrap();
}

async fn loaded(name: &str, arguments: &Arguments, topic: &Topic) -> TestDatabase {
    let database = TestDatabase::create(name).await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    arguments.say(&format!("held: loading {} rows of {} B ...", arguments.rows, arguments.bytes));
    load::load(&database.pool, &topic.name, 0, arguments.rows, arguments.bytes).await;
    database
}

async fn turn(
    number: usize,
    what: &str,
    database: &TestDatabase,
    topic: &Topic,
    arguments: &Arguments,
) -> Run {
    position_reset(&database.pool).await;
    let draining = async || relay::drain(database, arguments.rows, arguments.linger_ms).await;
    let run = audited(topic, arguments.rows, draining).await;
    arguments.say(&format!("run {number}, {what}: {run}"));
    run
}
