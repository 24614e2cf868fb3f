//! Tables moved to another cluster: transaction ids restart, the relay notices and stops, docs/relay.md's words mend it.

use waybill_testkit::eventually;

use super::audit::audit;
use super::setup::{Outbox, SOON, TOPIC, append, ask};

/// The statements of docs/relay.md, "After a restore".
fn mend() -> String {
    let page = include_str!("../../../docs/relay.md");
    let section = page.split("### After a restore").nth(1).unwrap();
    section.split("```sql").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

/// What a restore into a younger cluster looks like: position and rows speak of transactions that have not been.
const AS_RESTORED: &str = "
    update outbox set xid = (xid::text::bigint + 1000000000000)::text::xid8;
    update outbox_relay set position_to = null, position_id = 0, position_from =
        (select format('%s:%s:', max(xid::text::bigint) + 1, max(xid::text::bigint) + 1)::pg_snapshot from outbox)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_from_the_future_stops_the_relay_and_is_mended() {
    let outbox = Outbox::new("restored").await;
    let topic = outbox.topics.full(TOPIC);
    let mut connection = outbox.connection().await;
    for _ in 0..3 {
        append(&mut connection, &topic, 1).await;
    }
    let mut relay = outbox.relay().spawn();
    assert_eq!(audit(&outbox.topics, TOPIC, &outbox.database.pool).await.records, 3);
    assert_eq!(relay.terminate().await, Some(0));

    sqlx::raw_sql(AS_RESTORED).execute(&mut connection).await.unwrap();
    // One row had not been published when the dump was made; another is new.
    append(&mut connection, &topic, 1).await;
    let unpublished = "update outbox set xid = (xid::text::bigint + 2000000000000)::text::xid8 where id = (select max(id) from outbox)";
    sqlx::raw_sql(unpublished).execute(&mut connection).await.unwrap();
    append(&mut connection, &topic, 1).await;
    relay.restart();
    says(&relay, "moved here from another server").await;
    assert_eq!(outbox.relay_row::<i64>("position_id").await, 0);

    sqlx::raw_sql(sqlx::AssertSqlSafe(mend())).execute(&mut connection).await.unwrap();
    relay.wait_ready(SOON).await;
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!((audit.records, audit.repeats), (5, 0), "what was published is not published again");
    assert_eq!(relay.terminate().await, Some(0));
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

async fn says(relay: &waybill_testkit::Process, text: &str) {
    eventually(SOON, async || {
        let (status, body) = ask(relay, "/ready").await;
        (status == 503 && body.contains(text)).then_some(())
    })
    .await;
}
