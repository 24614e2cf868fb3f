//! The same rows sent by pgbench: what Postgres takes without any consumer.

use waybill_bench::pgbench::{self, Turn, installed};
use waybill_testkit::TestDatabase;

use crate::group::TABLE;

/// Records per second of pgbench with one session and prepared statements; none when pgbench is not installed.
pub(crate) async fn rate(batch: usize, seconds: u64) -> Option<f64> {
    let pgbench = installed()?;
    let database = TestDatabase::create("consumer_pgbench").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    sqlx::raw_sql(TABLE).execute(&database.pool).await.unwrap();
    let turn = Turn { clients: 1, seconds, session: "", variables: &[] };
    let ran = pgbench::run(&pgbench, &database.url, &transaction(batch), &turn).unwrap();
    let written = "select (select count(*) from inbox), (select sum(messages)::bigint from balances), (select count(*) from outbox)";
    let written: (i64, i64, i64) = sqlx::query_as(written).fetch_one(&database.pool).await.unwrap();
    let sent = ran.transactions * i64::try_from(batch).unwrap();
    assert_eq!(written, (sent, sent, sent), "each of pgbench's messages is written once");
    Some(ran.per_second * batch as f64)
}

/// What the group does for one batch, statement by statement; ids that grow with time, as the group's do.
fn transaction(batch: usize) -> String {
    format!(
        "\\set first random(0, 9899)
begin;
select inbox_take('balances', array(select uuidv7() from generate_series(1, {batch})), 0::smallint,
    array(select convert_to('key-' || n, 'UTF8') from generate_series(1, {batch}) n));
insert into balances (key, amount, messages)
    select 'key-' || (:first + n), 1, 1 from generate_series(1, {batch}) n order by 1
    on conflict (key) do update
    set amount = balances.amount + excluded.amount, messages = balances.messages + 1;
select outbox_append(array_agg(uuidv7()), array_agg('bench.answers'::text),
    array_agg(convert_to('key-' || n, 'UTF8')), array_agg({HEADERS}::text), array_agg(decode(repeat('07', 200), 'hex')))
    from generate_series(1, {batch}) n;
commit;
"
    )
}

/// As long as a message's headers are.
const HEADERS: &str = r#"'{"ce_specversion":"1.0","ce_id":"0198f3a0-0000-7000-8000-000000000000","ce_source":"/waybill/bench","ce_type":"Answered","ce_time":"2026-01-01T00:00:00.000000Z","ce_subject":"key-1234","ce_correlationid":"0198f3a0-0000-7000-8000-000000000000","ce_causationid":"0198f3a0-0000-7000-8000-000000000000","ce_sequence":"1234","content-type":"application/avro"}'"#;
