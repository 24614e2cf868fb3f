//! Large rounds: read in pieces, resumed inside after a kill, mixed with stragglers of old transactions.

use sqlx::Connection as _;
use waybill_testkit::{OwnedRecord, eventually};

use super::audit::audit;
use super::setup::{LEASE_SOON_OVER, Outbox, SOON, TOPIC, append, append_sized, metric};

/// Rows of one aggregate in one transaction.
async fn backlog(outbox: &Outbox, transactions: i32, rows: i32) {
    let mut connection = outbox.connection().await;
    let topic = outbox.topics.full(TOPIC);
    for aggregate in 1..=transactions {
        let mut transaction = connection.begin().await.unwrap();
        for _ in 0..rows {
            append(&mut transaction, &topic, aggregate).await;
        }
        transaction.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_round_is_resumed_where_it_was_acknowledged() {
    let outbox = Outbox::new("resume").await;
    backlog(&outbox, 10, 400).await;
    // Small pieces, little in flight, position stored at every turn: there is an inside to be killed in.
    let mut relay = outbox
        .relay()
        .env("OUTBOX_RELAY_LEASE_MS", LEASE_SOON_OVER)
        .env("OUTBOX_RELAY_PIECE_ROWS_MAX", "50")
        .env("OUTBOX_RELAY_IN_FLIGHT_ROWS_MAX", "100")
        .env("OUTBOX_RELAY_POSITION_INTERVAL_MS", "10")
        .env("OUTBOX_RELAY_LINGER_MS", "50")
        .spawn();
    let inside = "select position_id from outbox_relay where position_to is not null and position_id > 0";
    eventually(SOON, async || {
        sqlx::query_scalar::<_, i64>(inside).fetch_optional(&outbox.database.pool).await.unwrap()
    })
    .await;
    relay.kill9().await;
    let stored: i64 = outbox.relay_row("position_id").await;
    let done: i64 = sqlx::query_scalar("select count(*) from outbox where id <= $1")
        .bind(stored)
        .fetch_one(&outbox.database.pool)
        .await
        .unwrap();
    assert!((1..4_000).contains(&done), "killed inside the round: {done} of 4000 stored");
    relay.restart();
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    println!("killed at {done} of 4000: {audit:?}");
    eventually(SOON, async || {
        (outbox.relay_row::<Option<String>>("position_to::text").await.is_none()).then_some(())
    })
    .await;
    assert_eq!(metric(&relay, "outbox_relay_published_rows_total").await, (4_000 - done) as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stragglers_and_bulk_transactions_keep_their_place() {
    let outbox = Outbox::new("stragglers").await;
    let topic = outbox.topics.full(TOPIC);
    let mut relay = outbox.relay().env("OUTBOX_RELAY_PIECE_ROWS_MAX", "64").spawn();
    relay.wait_ready(SOON).await;
    // Three transactions append early and stay open while others commit and are published.
    let mut open = Vec::new();
    for aggregate in [11, 12, 13] {
        let mut connection = outbox.connection().await;
        sqlx::raw_sql("begin").execute(&mut connection).await.unwrap();
        for _ in 0..150 {
            append(&mut connection, &topic, aggregate).await;
        }
        open.push(connection);
    }
    backlog(&outbox, 5, 100).await;
    eventually(SOON, async || {
        (metric(&relay, "outbox_relay_published_rows_total").await >= 500.0).then_some(())
    })
    .await;
    for connection in &mut open {
        append(connection, &topic, 14).await;
        sqlx::raw_sql("commit").execute(connection).await.unwrap();
    }
    backlog(&outbox, 5, 20).await;
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!((audit.records, audit.repeats), (450 + 3 + 600, 0));
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_are_bounded_by_bytes() {
    let outbox = Outbox::new("bytes").await;
    let topic = outbox.topics.full(TOPIC);
    let mut connection = outbox.connection().await;
    let sizes = [0, 917_504, 3, 500_000, 917_504, 917_504, 1, 600_000];
    for (place, bytes) in sizes.into_iter().enumerate() {
        append_sized(&mut connection, &topic, i32::try_from(place % 2).unwrap() + 1, bytes).await;
    }
    let mut relay = outbox
        .relay()
        .env("OUTBOX_RELAY_PIECE_BYTES_MAX", "1000000")
        .env("OUTBOX_RELAY_IN_FLIGHT_BYTES_MAX", "1000000")
        .spawn();
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!((audit.records, audit.repeats), (sizes.len(), 0));
    assert!(metric(&relay, "outbox_relay_piece_rows_count").await >= 3.0, "read in several pieces");
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_of_a_mebibyte_is_published_and_no_batch_is_too_large_for_the_topics_beside_it() {
    const LETTERS: &str = "events.g.dlq";
    let outbox = Outbox::new("letters").await;
    outbox.topics.add_with(&[(LETTERS, 1)], &[("max.message.bytes", "1114112")]).await;
    let (topic, letters) = (outbox.topics.full(TOPIC), outbox.topics.full(LETTERS));
    let mut connection = outbox.connection().await;
    for (topic, bytes) in
        [(&topic, 500_000), (&letters, 1_048_576), (&topic, 500_000), (&topic, 917_504), (&letters, 1)]
    {
        append_sized(&mut connection, topic, 1, bytes).await;
    }
    let mut relay = outbox.relay().spawn();
    for (topic, records) in [(TOPIC, 3), (LETTERS, 2)] {
        let audit = audit(&outbox.topics, topic, &outbox.database.pool).await;
        assert_eq!((audit.records, audit.repeats), (records, 0), "{topic}");
    }
    assert_eq!(metric(&relay, "outbox_relay_produce_errors_total").await, 0.0);
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_count_as_they_are_sent_not_as_they_are_stored() {
    let outbox = Outbox::new("packed").await;
    // 30 kB each that Postgres stores in a few hundred bytes.
    let statement = "
        select outbox_append(array_agg(gen_random_uuid()), array_agg($1), array_agg(convert_to('k' || (n % 3), 'UTF8')),
            array_agg(json_build_object('ce_id', n::text, 'ce_sequence', (n / 3)::text, 'x', repeat('x', 30000))::text),
            array_agg('\\x00'::bytea))
        from generate_series(0, 59) as n";
    sqlx::query(statement).bind(outbox.topics.full(TOPIC)).execute(&outbox.database.pool).await.unwrap();
    let stored: i64 = sqlx::query_scalar("select sum(pg_column_size(headers)) from outbox")
        .fetch_one(&outbox.database.pool)
        .await
        .unwrap();
    assert!(stored < 100_000, "they are compressed: {stored} B");
    let mut relay = outbox.relay().env("OUTBOX_RELAY_PIECE_BYTES_MAX", "100000").spawn();
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!((audit.records, audit.repeats), (60, 0));
    // A piece's last row may pass the bound: four of them at most.
    assert!(metric(&relay, "outbox_relay_piece_rows_count").await >= 15.0, "read in pieces of few");
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_taken_for_small_is_cut_at_its_bytes() {
    let outbox = Outbox::new("cut").await;
    let topic = outbox.topics.full(TOPIC);
    let mut connection = outbox.connection().await;
    let sizes = [16; 120].into_iter().chain([60_000; 40]).chain([16; 120]);
    for (place, bytes) in sizes.enumerate() {
        append_sized(&mut connection, &topic, i32::try_from(place % 3).unwrap() + 1, bytes).await;
    }
    let mut relay = outbox
        .relay()
        .env("OUTBOX_RELAY_PIECE_ROWS_MAX", "50")
        .env("OUTBOX_RELAY_PIECE_BYTES_MAX", "100000")
        .spawn();
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!((audit.records, audit.repeats), (280, 0));
    // 40 x 60,000 B in pieces of two at most, and what comes before and after.
    assert!(metric(&relay, "outbox_relay_piece_rows_count").await >= 22.0, "read in many pieces");
    assert_eq!(relay.terminate().await, Some(0));
}

/// A piece whose rows come to more bytes than those before it is cut, and the rest read on another connection: by what is
/// remembered of the first one, and only while the lease's connection answers, which shows that the server is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_on_another_connection_waits_for_an_answer_to_the_lease() {
    let outbox = Outbox::new("cut").await;
    let topic = outbox.topics.full(TOPIC);
    let mut relay = outbox
        .relay()
        .env("OUTBOX_RELAY_PIECE_ROWS_MAX", "10")
        .env("OUTBOX_RELAY_PIECE_BYTES_MAX", "10000")
        // No renewal is due while the lock below is held.
        .env("OUTBOX_RELAY_LEASE_MS", "60000")
        .spawn();
    relay.wait_ready(SOON).await;
    let mut connection = outbox.connection().await;
    let mut transaction = connection.begin().await.unwrap();
    for row in 0..40 {
        append_sized(&mut transaction, &topic, 1, if row < 10 { 16 } else { 4_000 }).await;
    }
    // Nobody can renew the lease or store a position.
    let mut other = outbox.connection().await;
    let mut holder = other.begin().await.unwrap();
    sqlx::query("select from outbox_relay for update").execute(&mut *holder).await.unwrap();
    transaction.commit().await.unwrap();
    relay.wait_output("keeping the lease failed", SOON).await;
    let records = outbox.topics.read_to_end(TOPIC, SOON).await;
    let version = |record: &OwnedRecord| record.header("ce_sequence").unwrap().parse::<u32>().unwrap();
    let newest = records.iter().map(version).max();
    assert!(newest <= Some(10), "the first piece, and nothing from the one that was cut on: {newest:?}");
    holder.rollback().await.unwrap();
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!(audit.records - audit.repeats, 40);
    relay.wait_ready(SOON).await;
    assert_eq!(relay.terminate().await, Some(0));
}
