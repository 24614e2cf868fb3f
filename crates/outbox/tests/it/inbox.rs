//! The inbox's promises: effects once, order per key, one bad message alone, infrastructure errors decide nothing.

use serde_json::{Value, json};
use uuid::Uuid;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_messaging::headers;
use waybill_outbox::upkeep;
use waybill_telemetry::story::Story;

use crate::ledger::{self, batch, count, notes, record};

/// Message id, key, headers, payload of an outbox row.
type Mirror = (Uuid, Option<Vec<u8>>, String, Option<Vec<u8>>);

/// A row of `dead_letters`.
type Letter =
    (Uuid, String, i32, i64, Option<Uuid>, Option<Vec<u8>>, Value, Option<Vec<u8>>, String, String, i32);

async fn letters(pool: &sqlx::PgPool) -> Vec<Letter> {
    sqlx::query_as(
        "select id, topic, partition, \"offset\", message_id, key, headers, payload, error_class, error_message, attempts
         from dead_letters order by \"offset\"",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_batch_has_its_effects_once_however_often_it_comes() {
    let database = ledger::database("once").await;
    let (group, ledger) = ledger::group(&database, ledger::PREFIX).await;
    let mut batch = batch(&[("a", "note"), ("b", "note"), ("c", "note")]);
    // The relay may publish a message again; then it lies at two offsets.
    batch.records.push(batch.records[1].clone());
    batch.records[3].offset = 3;
    for _ in 0..3 {
        group.handle(&batch).await.unwrap();
    }
    assert_eq!(notes(&database.pool).await, [("a".into(), 1), ("b".into(), 2), ("c".into(), 3)]);
    assert_eq!(count(&database.pool, "outbox").await, 3);
    assert_eq!(ledger.calls.lock().unwrap().len(), 1, "the handler saw new messages only");
    let replies: Vec<(String, Value)> = sqlx::query_as("select topic, headers from outbox order by id")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    let ids = ledger::message_ids(&batch);
    for ((topic, headers), id) in replies.iter().zip(&ids) {
        assert_eq!(topic, "t1.ledger.events");
        assert_eq!(headers["ce_causationid"], id.to_string());
    }
}

#[tokio::test]
async fn a_key_comes_once_in_a_call_and_in_order() {
    let database = ledger::database("waves").await;
    let (group, ledger) = ledger::group(&database, ledger::PREFIX).await;
    let asks = [("a", "note"), ("b", "quiet"), ("a", "note"), ("c", "note"), ("a", "quiet"), ("b", "note")];
    group.handle(&batch(&asks)).await.unwrap();
    assert_eq!(*ledger.calls.lock().unwrap(), [vec!["a", "b", "c"], vec!["a", "b"], vec!["a"]]);
    let of = |key: &str, all: &[(String, i64)]| -> Vec<i64> {
        all.iter().filter(|(k, _)| k == key).map(|(_, sequence)| *sequence).collect()
    };
    let all = notes(&database.pool).await;
    assert_eq!((of("a", &all), of("b", &all), of("c", &all)), (vec![1, 3, 5], vec![2, 6], vec![4]));
}

#[tokio::test]
async fn lines_about_one_message_of_a_batch_carry_its_own_ids() {
    let database = ledger::database("stories").await;
    let (group, ledger) = ledger::group(&database, ledger::PREFIX).await;
    let batch = batch(&[("a", "note"), ("b", "note"), ("a", "note")]);
    group.handle(&batch).await.unwrap();
    let stories: Vec<Option<Story>> =
        batch.records.iter().map(|record| Some(headers::decode(record).unwrap().story())).collect();
    assert_eq!(*ledger.decoded.lock().unwrap(), stories);
    // The first call has two messages and no story; the second, of the third message alone, has its.
    assert_eq!(*ledger.told.lock().unwrap(), [None, stories[2]]);
    assert_eq!(Story::current(), None);
}

#[tokio::test]
async fn what_nobody_wants_leaves_no_trace() {
    let database = ledger::database("skipped").await;
    let (group, _) = ledger::group(&database, ledger::PREFIX).await;
    let mut envelope = ledger::envelope("a", 1);
    envelope.kind = "SomethingElse".to_owned();
    group.handle(&Batch { records: vec![record(&envelope, 0, b"whatever")] }).await.unwrap();
    assert_eq!(count(&database.pool, "inbox").await, 0);
    assert_eq!(count(&database.pool, "dead_letters").await, 0);
}

#[tokio::test]
async fn bytes_that_do_not_decode_are_dead_letters_at_once_and_unchanged() {
    let database = ledger::database("undecodable").await;
    let (group, ledger) = ledger::group(&database, ledger::PREFIX).await;
    let mut batch = batch(&[("a", "note"), ("b", "\0\u{1}not a word"), ("c", "note")]);
    let mut foreign = batch.records[0].clone();
    foreign.offset = 9;
    foreign.headers = vec![("raw".to_owned(), vec![0xff, 0x00]), ("raw".to_owned(), b"te\0xt".to_vec())];
    foreign.key = Some(vec![0, 0xfe].into());
    foreign.payload = Some(vec![0, 0xff, 1, 2].into());
    let mut empty = foreign.clone();
    (empty.offset, empty.key, empty.payload, empty.headers) = (10, None, None, Vec::new());
    // Larger than the outbox takes: a foreign producer may do that.
    let mut huge = foreign.clone();
    (huge.offset, huge.key) = (11, Some(vec![b'k'; 2000].into()));
    (huge.headers, huge.payload) = (vec![("h".to_owned(), vec![0; 9000])], Some(vec![3; 1_048_577].into()));
    batch.records.extend([foreign, empty, huge.clone()]);
    for _ in 0..2 {
        group.handle(&batch).await.unwrap();
    }
    assert_eq!(notes(&database.pool).await, [("a".into(), 1), ("c".into(), 3)]);
    assert_eq!(ledger.calls.lock().unwrap().len(), 1, "the others were not redone");

    let letters = letters(&database.pool).await;
    let places: Vec<_> = letters.iter().map(|l| (l.3, l.8.as_str())).collect();
    assert_eq!(places, [(1, "payload"), (9, "headers"), (10, "headers"), (11, "headers")]);
    let bad = &letters[0];
    assert_eq!((bad.1.as_str(), bad.2, bad.10), ("t1.orders.events", 0, 1));
    assert_eq!(bad.4, Some(ledger::message_ids(&Batch { records: batch.records[1..2].to_vec() })[0]));
    assert_eq!((bad.5.as_deref(), bad.7.as_deref()), (Some(&b"b"[..]), Some(&b"\0\x01not a word"[..])));
    let foreign = &letters[1];
    assert_eq!(
        (foreign.5.as_deref(), foreign.7.as_deref()),
        (Some(&[0, 0xfe][..]), Some(&[0, 0xff, 1, 2][..]))
    );
    // Text with a zero character is no text to Postgres: as it is, no query could read it out again.
    assert_eq!(foreign.6, json!([{"name": "raw", "base64": "/wA="}, {"name": "raw", "base64": "dGUAeHQ="}]));
    sqlx::query("select h ->> 'value' from dead_letters, json_array_elements(headers) h")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert_eq!((letters[2].5.as_ref(), letters[2].7.as_ref()), (None, None));
    assert_eq!(letters[3].7.as_deref(), huge.payload.as_deref(), "the row is complete whatever the size");

    let mirrors: Vec<Mirror> = sqlx::query_as(
        "select message_id, key, headers::text, payload from outbox where topic = 't1.orders.events.ledger.dlq' order by id",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(mirrors.len(), 4);
    let mirror = |letter: &Letter| mirrors.iter().find(|m| m.0 == letter.0).unwrap();
    let (_, key, headers, payload) = mirror(bad);
    assert_eq!((key, payload), (&bad.5, &bad.7));
    let headers: Value = serde_json::from_str(headers).unwrap();
    assert_eq!((&headers["dlq_topic"], &headers["dlq_offset"]), (&"t1.orders.events".into(), &"1".into()));
    assert_eq!((&headers["dlq_group"], &headers["dlq_error_class"]), (&"ledger".into(), &"payload".into()));
    assert_eq!((&headers["ce_type"], &headers["ce_subject"]), (&"Noted".into(), &"b".into()));
    assert_eq!(mirror(&letters[3]).3, None, "what does not fit is said, not sent");
    assert!(mirror(&letters[3]).2.contains(r#""dlq_payload_omitted_bytes":"1048577""#));
}

/// One bad message among good ones: the good are done, the bad one is buried with this class.
async fn assert_buried_alone(ask: &str, class: &str, why: &str) {
    let database = ledger::database(ask).await;
    let (group, _) = ledger::group(&database, ledger::PREFIX).await;
    let batch = batch(&[("a", "note"), ("b", ask), ("a", "note"), ("b", "note")]);
    for _ in 0..2 {
        group.handle(&batch).await.unwrap();
    }
    let mut done = notes(&database.pool).await;
    done.sort();
    assert_eq!(done, [("a".into(), 1), ("a".into(), 3), ("b".into(), 4)], "{ask}");
    let letters = letters(&database.pool).await;
    assert_eq!(letters.len(), 1, "{ask}: once");
    let letter = &letters[0];
    assert_eq!(
        (letter.3, letter.8.as_str(), letter.10),
        (1, class, if ask == "reject" { 1 } else { 2 }),
        "{ask}"
    );
    assert!(letter.9.contains(why), "{ask}: {}", letter.9);
    assert_eq!(letter.7.as_deref(), Some(ask.as_bytes()), "{ask}");
    assert_eq!(count(&database.pool, "outbox").await, 4, "{ask}: three replies, one mirror");
    assert_eq!(count(&database.pool, "inbox").await, 4, "{ask}");
}

#[tokio::test]
async fn a_rejected_message_is_buried_alone() {
    assert_buried_alone("reject", "not_wanted", "as asked").await;
}

#[tokio::test]
async fn a_faulty_message_is_buried_alone() {
    assert_buried_alone("fault", "fault", "faulty as asked").await;
}

#[tokio::test]
async fn a_message_that_breaks_a_constraint_is_buried_alone() {
    assert_buried_alone("constraint", "database", "notes_amount_check").await;
}

#[tokio::test]
async fn a_message_that_breaks_a_constraint_at_the_commit_is_buried_alone() {
    assert_buried_alone("deferred", "database", "deferred_n_key").await;
}

#[tokio::test]
async fn a_message_that_takes_a_statement_over_a_limit_of_the_server_is_buried_alone() {
    assert_buried_alone("limit", "database", "requested length too large").await;
}

#[tokio::test]
async fn a_message_that_makes_the_handler_panic_is_buried_alone() {
    assert_buried_alone("panic", "panic", "panics as asked").await;
}

#[tokio::test]
async fn a_handler_that_swallows_an_error_loses_nothing_quietly() {
    assert_buried_alone("swallow", "fault", "went on after a failed statement").await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_buries_what_it_answers() {
    assert_buried_alone("too large", "fault", "1000000 bytes").await;
}

#[tokio::test]
async fn a_lock_that_times_out_decides_nothing() {
    let database = ledger::database("lock").await;
    let (group, _) = ledger::group(&database, ledger::PREFIX).await;
    let batch = batch(&[("a", "note"), ("b", "note")]);
    let mut other = database.pool.begin().await.unwrap();
    sqlx::query("lock table notes").execute(&mut *other).await.unwrap();
    let error = group.handle(&batch).await.unwrap_err();
    assert!(error.to_string().contains("lock timeout"), "{error}");
    for table in ["inbox", "outbox", "dead_letters"] {
        assert_eq!(count(&database.pool, table).await, 0, "{table}");
    }
    other.rollback().await.unwrap();
    group.handle(&batch).await.unwrap();
    assert_eq!(notes(&database.pool).await.len(), 2);
}

#[tokio::test]
async fn a_killed_backend_decides_nothing() {
    let database = ledger::database("killed").await;
    let (group, _) = ledger::group(&database, ledger::PREFIX).await;
    let batch = batch(&[("a", "note"), ("b", "end backend once")]);
    group.handle(&batch).await.unwrap_err();
    assert_eq!(count(&database.pool, "dead_letters").await, 0);
    assert_eq!(count(&database.pool, "inbox").await, 0);
    group.handle(&batch).await.unwrap();
    assert_eq!(notes(&database.pool).await.len(), 2);
}

#[tokio::test]
async fn a_missing_table_or_partition_decides_nothing() {
    let database = ledger::database("missing").await;
    let (group, _) = ledger::group(&database, ledger::PREFIX).await;
    let batch = batch(&[("a", "note")]);
    let drop_today = "do $$ begin execute format('drop table outbox_%s', to_char(now() at time zone 'UTC', 'YYYYMMDD')); end $$";
    sqlx::raw_sql(drop_today).execute(&database.pool).await.unwrap();
    let error = group.handle(&batch).await.unwrap_err();
    assert!(error.to_string().contains("no partition"), "{error}");
    assert_eq!(upkeep::make(&database.pool).await.unwrap(), 1);
    sqlx::raw_sql("alter table notes rename to notes_away").execute(&database.pool).await.unwrap();
    group.handle(&batch).await.unwrap_err();
    assert_eq!(count(&database.pool, "dead_letters").await, 0);
    sqlx::raw_sql("alter table notes_away rename to notes").execute(&database.pool).await.unwrap();
    group.handle(&batch).await.unwrap();
    assert_eq!(notes(&database.pool).await.len(), 1);
}

#[tokio::test]
async fn two_members_with_the_same_batch_have_its_effects_once() {
    let database = ledger::database("twins").await;
    let (one, _) = ledger::group(&database, ledger::PREFIX).await;
    let (two, _) = ledger::group(&database, ledger::PREFIX).await;
    for round in 0..20 {
        let keys: Vec<String> = (0..30).map(|n| format!("{round}-{n}")).collect();
        let asks: Vec<_> = keys.iter().map(|key| (key.as_str(), "note")).collect();
        let batch = batch(&asks);
        let mut reversed = Batch { records: batch.records.clone() };
        reversed.records.reverse();
        let (first, second) = tokio::join!(one.handle(&batch), two.handle(&reversed));
        // A wait that took too long is no error of ours; whoever lost it tries again.
        if first.is_err() {
            one.handle(&batch).await.unwrap();
        }
        if second.is_err() {
            two.handle(&reversed).await.unwrap();
        }
    }
    assert_eq!(notes(&database.pool).await.len(), 600);
    assert_eq!(count(&database.pool, "outbox").await, 600);
}
