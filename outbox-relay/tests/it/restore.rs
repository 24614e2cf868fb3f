//! Tables moved to another cluster: transaction ids restart, the relay notices and stops, docs/relay.md's words mend it.

use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, PgConnection};
use waybill_testkit::{OwnPostgres, Process, TestDatabase, TestTopics, eventually};

use super::audit::audit;
use super::setup::{Outbox, PARTITIONS, SOON, TOPIC, append, ask, metric};

/// The statements of docs/relay.md, "After a restore".
fn mend() -> String {
    let page = include_str!("../../../docs/relay.md");
    let section = page.split("### After a restore").nth(1).unwrap();
    section.split("```sql").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

/// Published, not published, written since the restore, relays.
type Mended = (i64, i64, i64, i64);
const DRY: &str = "select * from outbox_mend_restored()";

/// The old cluster is this many transactions older than the new one.
const OLDER: &str = "do $$ begin
        for i in 1..5000 loop perform pg_current_xact_id(); commit; end loop;
    end $$";
const TABLES: [&str; 3] = ["aggregate", "outbox_relay", "outbox"];

/// What `pg_dump` and `pg_restore` do with the tables' rows and their numbering: copied out in one snapshot, copied in
/// where the migrations have made the tables. (The PostgreSQL that tests start brings the server's programs alone.)
async fn dump_and_restore(old: &Outbox, new: &TestDatabase) {
    let (mut from, mut to) = (old.connection().await, PgConnection::connect(&new.url).await.unwrap());
    let snapshot = "begin isolation level repeatable read read only";
    sqlx::raw_sql(snapshot).execute(&mut from).await.unwrap();
    sqlx::raw_sql("truncate aggregate, outbox_relay, outbox").execute(&mut to).await.unwrap();
    for table in TABLES {
        let dump = format!("copy (select * from {table} order by 1) to stdout");
        let dump: Vec<_> = from.copy_out_raw(&dump).await.unwrap().try_collect().await.unwrap();
        let mut restore = to.copy_in_raw(&format!("copy {table} from stdin")).await.unwrap();
        restore.send(dump.concat()).await.unwrap();
        restore.finish().await.unwrap();
    }
    let last: i64 = sqlx::query_scalar("select max(id) from outbox").fetch_one(&mut from).await.unwrap();
    let numbering = "select setval(pg_get_serial_sequence('outbox', 'id'), $1)";
    sqlx::query(numbering).bind(last).execute(&mut to).await.unwrap();
}

/// An older server whose relay has published three rows, a straggler open meanwhile; three more that it has not.
async fn old_outbox(server: &OwnPostgres) -> Outbox {
    server.execute("postgres", OLDER).await;
    let database = TestDatabase::create_on(&server.url("postgres"), "dumped").await;
    let outbox = Outbox { database, topics: TestTopics::new() };
    outbox.topics.add(&[(TOPIC, PARTITIONS)]).await;
    outbox.migrate().await;
    let (mut connection, topic) = (outbox.connection().await, outbox.topics.full(TOPIC));
    let mut straggler = outbox.connection().await;
    let mut open = straggler.begin().await.unwrap();
    append(&mut open, &topic, 9).await;
    for aggregate in [1, 2, 1] {
        append(&mut connection, &topic, aggregate).await;
    }
    let mut relay = outbox.relay().spawn();
    relay.wait_ready(SOON).await;
    outbox.topics.read_all(TOPIC, |records| records.len() == 3, SOON).await;
    assert_eq!(relay.terminate().await, Some(0));
    open.commit().await.unwrap();
    append(&mut connection, &topic, 1).await;
    append(&mut connection, &topic, 3).await;
    outbox
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_position_from_the_future_stops_the_relay_and_is_mended() {
    let (old_server, new_server) = (OwnPostgres::start().await, OwnPostgres::start().await);
    let old = old_outbox(&old_server).await;
    let topics = TestTopics::new();
    let database = TestDatabase::create_on(&new_server.url("postgres"), "restored").await;
    let mut restored = Outbox { database, topics };
    restored.migrate().await;
    dump_and_restore(&old, &restored.database).await;
    let Outbox { database: _gone, topics } = old;
    restored.topics = topics;

    let mut relay = restored.relay().spawn();
    says(&relay, "moved here from another server").await;
    assert_eq!(metric(&relay, "outbox_relay_fault{database=\"db\",kind=\"position\"}").await, 1.0);
    let mut connection = restored.connection().await;
    append(&mut connection, &restored.topics.full(TOPIC), 1).await;
    let planned: Mended = sqlx::query_as(DRY).fetch_one(&mut connection).await.unwrap();
    assert_eq!(planned, (3, 3, 1, 1));
    says(&relay, "outbox_mend_restored(apply => true)").await;
    let published = restored.topics.read_to_end(TOPIC, SOON).await;
    assert_eq!(published.len(), 3, "nothing is published before it is mended");

    sqlx::raw_sql(sqlx::AssertSqlSafe(mend())).execute(&mut connection).await.unwrap();
    relay.wait_ready(SOON).await;
    let audit = audit(&restored.topics, TOPIC, &restored.database.pool).await;
    assert_eq!((audit.records, audit.repeats), (7, 0), "what was published is not published again");
    let told = relay.output().matches("moved here from another server").count();
    assert_eq!(told, 1, "told once:\n{}", relay.output());
    let nothing: Option<Mended> = sqlx::query_as(DRY).fetch_optional(&mut connection).await.unwrap();
    assert_eq!(nothing, None, "nothing is left to mend");
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test]
async fn mending_changes_nothing_where_nothing_was_restored_or_its_transaction_has_written() {
    let outbox = Outbox::new("unrestored").await;
    let mut connection = outbox.connection().await;
    let topic = outbox.topics.full(TOPIC);
    append(&mut connection, &topic, 1).await;
    let rows = "select array_agg(xid::text) from outbox";
    let before: Vec<String> = sqlx::query_scalar(rows).fetch_one(&mut connection).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(mend())).execute(&mut connection).await.unwrap();
    let after: Vec<String> = sqlx::query_scalar(rows).fetch_one(&mut connection).await.unwrap();
    assert_eq!((after, outbox.relay_row::<i64>("epoch").await), (before, 0));
    // Its own rows would be taken for published.
    let mut writer = connection.begin().await.unwrap();
    append(&mut writer, &topic, 1).await;
    let refused = sqlx::query(DRY).fetch_all(&mut *writer).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "25000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_from_the_future_stop_the_relay() {
    let outbox = Outbox::new("foreign").await;
    let mut connection = outbox.connection().await;
    append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
    let foreign = "update outbox set xid = (xid::text::bigint + 1000000000000)::text::xid8";
    sqlx::raw_sql(foreign).execute(&mut connection).await.unwrap();
    let mut relay = outbox.relay().spawn();
    says(&relay, "rows of transactions that this server has not had").await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(mend())).execute(&mut connection).await.unwrap();
    relay.wait_ready(SOON).await;
    assert_eq!(audit(&outbox.topics, TOPIC, &outbox.database.pool).await.records, 1);
    assert_eq!(relay.terminate().await, Some(0));
}

async fn says(relay: &Process, text: &str) {
    eventually(SOON, async || {
        let (status, body) = ask(relay, "/ready").await;
        (status == 503 && body.contains(text)).then_some(())
    })
    .await;
}
