//! The plans of the three reads over a million rows: by index, in order, and reading no more than they answer.

use std::sync::Arc;
use std::time::Duration;

use outbox_relay::core::round::{Extent, Round};
use outbox_relay::core::snapshot::Snapshot;
use outbox_relay::store::{Bounds, FINISHED, MEASURE, Measuring, PIECE, PIECE_SIZED, POLL, Reader, SETTINGS};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::setup::Outbox;

const ROWS: i64 = 1_000_000;
/// Rows of a range in these statements.
const RANGE_ROWS: i64 = 5_000;
/// Rows of a piece in these statements.
const PIECE_ROWS: i64 = 2_000;

/// What the leaves of a plan read.
#[derive(Debug, Default)]
struct Reads {
    rows: f64,
    sequential: bool,
}

fn visit(plan: &Value, reads: &mut Reads) {
    let number = |name: &str| plan[name].as_f64().unwrap_or_default();
    let kind = plan["Node Type"].as_str().unwrap();
    if kind.contains("Scan") && !plan["Relation Name"].is_null() {
        let read = number("Actual Rows")
            + number("Rows Removed by Filter")
            + number("Rows Removed by Index Recheck");
        // Rows are told as a mean by loop, to two places: of a whole number of them it is known again.
        reads.rows += (read * number("Actual Loops")).round();
        reads.sequential |= kind == "Seq Scan";
    }
    for child in plan["Plans"].as_array().into_iter().flatten() {
        visit(child, reads);
    }
}

async fn explain(
    connection: &mut PgConnection,
    name: &str,
    types: &str,
    statement: &str,
    values: &str,
) -> Reads {
    let prepare = format!("prepare {name} ({types}) as {statement}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
    let explain = format!("explain (analyze, format json) execute {name} ({values})");
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *connection).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("deallocate {name}"))).execute(&mut *connection).await.unwrap();
    let mut reads = Reads::default();
    visit(&plan[0]["Plan"], &mut reads);
    assert!(!reads.sequential, "{name} reads a table from end to end: {plan:#}");
    println!("{name} ({values}): reads {} rows", reads.rows);
    reads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_million_rows_every_read_goes_by_index() {
    let outbox = Outbox::new("plans").await;
    let mut connection = outbox.connection().await;
    // A straggler takes its transaction id and an id before everybody and commits after.
    let mut straggler = PgConnection::connect(&outbox.database.url).await.unwrap();
    // A million rows take their time on a busy machine.
    sqlx::raw_sql("set idle_in_transaction_session_timeout = 0; begin")
        .execute(&mut straggler)
        .await
        .unwrap();
    insert(&mut straggler, 10).await;
    let stragglers: String = scalar(&mut straggler, "select pg_current_xact_id()::text").await;
    let before: String = scalar(&mut connection, "select pg_current_snapshot()::text").await;
    for _ in 0..10 {
        insert(&mut connection, ROWS / 10).await;
    }
    let middle: String = scalar(&mut connection, "select pg_current_snapshot()::text").await;
    sqlx::raw_sql("commit").execute(&mut straggler).await.unwrap();
    insert(&mut connection, 100).await;
    let after: String = scalar(&mut connection, "select pg_current_snapshot()::text").await;
    let high: i64 = scalar(&mut connection, "select max(id) from outbox").await;
    let xmax = |snapshot: &str| snapshot.split(':').nth(1).unwrap().to_owned();
    let running = |snapshot: &str| snapshot.split(':').nth(2).unwrap().to_owned();
    sqlx::raw_sql(SETTINGS).execute(&mut connection).await.unwrap();

    let c = &mut connection;
    let poll = |snapshot: &str| {
        format!("'{}', '{{{}}}', {}, 4000000", xmax(snapshot), running(snapshot), PIECE_ROWS + 1)
    };
    let types = "text, text, bigint, bigint";
    assert_eq!(explain(c, "poll_idle", types, POLL, &poll(&after)).await.rows, 0.0);
    assert_eq!(
        explain(c, "poll_small", types, POLL, &poll(&middle)).await.rows,
        110.0,
        "the hundred and the straggler's"
    );
    let large = explain(c, "poll_large", types, POLL, &poll(&before)).await;
    assert!(large.rows <= (2 * PIECE_ROWS + 2) as f64, "a poll that finds too much stops at once");

    let edges = format!("'{}', '{}', '{{}}'", xmax(&before), xmax(&after));
    let types = "text, text, text, bigint, bigint, bigint";
    // The straggler's rows lie behind the first snapshot's edge only if nobody has ended since it began.
    for (range, reads) in [(2 * ROWS, ROWS + 100), (RANGE_ROWS, RANGE_ROWS)] {
        let measure = explain(c, "measure", types, MEASURE, &format!("{edges}, 0, 0, {range}")).await;
        // Each partition is asked for its first.
        assert!(
            (reads as f64..=(reads + 30) as f64).contains(&measure.rows),
            "one pass, no longer than the range"
        );
    }
    let values = format!("'{{{stragglers}}}', '{{0}}', 1000");
    assert_eq!(explain(c, "finished", "text, bigint[], bigint", FINISHED, &values).await.rows, 10.0);
    measured_in_ranges(&outbox, &before, 0, &after, 5).await;
    measured_in_ranges(&outbox, &before, ROWS / 2, &after, 5).await;
    let finished = measured_in_ranges(&outbox, &middle, 0, &after, 1).await;
    assert_eq!(finished, [stragglers.parse::<u64>().unwrap()]);

    let types = "text, text, text, text, bigint, bigint, bigint, bigint, bigint";
    for at in [0, ROWS / 2, high - 50] {
        let values = format!("{edges}, '{{{}}}', {at}, 10, {high}, {PIECE_ROWS}", running(&before));
        let sized = explain(c, "piece_sized", types, PIECE_SIZED, &format!("{values}, 4000000")).await;
        let types = types.strip_suffix(", bigint").unwrap();
        let piece = explain(c, "piece", types, PIECE, &values).await;
        assert!(piece.rows.max(sized.rows) <= (PIECE_ROWS + 20) as f64, "a piece reads what it answers");
    }
    // A round of the straggler alone: its ids are old, a million published rows lie between them and its end.
    let edges = format!("'{}', '{}', '{{}}'", xmax(&middle), xmax(&after));
    let values = format!("{edges}, '{{{}}}', 0, {}, {high}, {PIECE_ROWS}, 4000000", running(&middle), ROWS);
    let piece = explain(c, "piece_straggler", types, PIECE_SIZED, &values).await;
    assert!(piece.rows <= 200.0, "published rows are not read again");
}

/// Range by range the same is found as by looking at every row, in so many ranges at least. Returns which of the
/// transactions that had been running have rows.
async fn measured_in_ranges(
    outbox: &Outbox,
    from: &str,
    place: i64,
    to: &str,
    ranges_min: usize,
) -> Vec<u64> {
    let bounds = Bounds { rows_max: 2_000, bytes_max: 4_000_000 };
    let options = outbox.database.url.parse().unwrap();
    let mut reader = Reader::connect(&options, bounds, Duration::from_secs(120)).await.unwrap();
    let [old, new] = [from, to].map(|text| Arc::new(text.parse::<Snapshot>().unwrap()));
    let mut measuring = Measuring::of(&Round { from: Arc::clone(&old), to: new, after: place });
    let mut ranges = 0;
    while reader.measure(&mut measuring).await.unwrap().is_some() {
        ranges += 1;
    }
    let extent: Extent = measuring.extent().unwrap();
    let looked = "select count(*), min(id) filter (where xid >= pg_snapshot_xmax($1::pg_snapshot)), max(id)
                  from outbox where id > $2 and not pg_visible_in_snapshot(xid, $1::pg_snapshot)";
    let (rows, low, high): (i64, i64, i64) =
        sqlx::query_as(looked).bind(from).bind(place).fetch_one(&outbox.database.pool).await.unwrap();
    assert_eq!((extent.rows, extent.begun_low_id, extent.high_id), (rows as u64, low, high));
    let looked = "select distinct xid::text::bigint as xid from outbox
                  where id > $2 and xid = any (select pg_snapshot_xip($1::pg_snapshot)) order by xid";
    let finished: Vec<i64> =
        sqlx::query_scalar(looked).bind(from).bind(place).fetch_all(&outbox.database.pool).await.unwrap();
    let mut found = extent.finished;
    found.sort_unstable();
    assert_eq!(found, finished.into_iter().map(i64::cast_unsigned).collect::<Vec<u64>>());
    assert!(ranges >= ranges_min, "{ranges} ranges");
    found
}

async fn insert(connection: &mut PgConnection, rows: i64) {
    let statement = "insert into outbox (message_id, topic, key, headers, payload)
        select gen_random_uuid(), 't', convert_to('k' || n % 100, 'UTF8'), '{}', '\\x00' from generate_series(1, $1) n";
    sqlx::query(statement).bind(rows).execute(connection).await.unwrap();
}

async fn scalar<T>(connection: &mut PgConnection, statement: &'static str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(statement).fetch_one(connection).await.unwrap()
}
