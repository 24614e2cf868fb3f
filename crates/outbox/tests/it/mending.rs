//! Dead letters that came another way than usual: from a retry topic, unreadable, known already, patched in vain, lost.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use uuid::{NoContext, Timestamp, Uuid};
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_messaging::record::Record;
use waybill_outbox::append::CARRIED_PAYLOAD_BYTES_MAX;
use waybill_outbox::inbox::InboxProcessor;
use waybill_outbox::operate::dead_letters::{self, DeadLetterDetail, Edit};
use waybill_outbox::operate::dry_run::Outcome;
use waybill_outbox::operate::{Filter, PageRequest};
use waybill_outbox::republish::{self, Selection};
use waybill_outbox::retry::operate::{self, OperateError, REPLAY_OF_TRACEPARENT};
use waybill_outbox::retry::{Poisoned, Policy};
use waybill_telemetry::metrics;
use waybill_telemetry::trace::TraceContext;

use crate::flaky::{self, Flaky, drained_until, sent};
use crate::ledger::{self, GROUP, PREFIX, TOPIC, batch, count, notes};
use crate::letters::change;

async fn replay(pool: &PgPool, policy: &Policy, id: Uuid) -> Result<i16, OperateError> {
    let mut tx = pool.begin().await.unwrap();
    let hop = operate::replay_in_tx(&mut tx, PREFIX, policy, id).await;
    tx.commit().await.unwrap();
    hop
}

async fn only_letter(pool: &PgPool) -> DeadLetterDetail {
    let any = serde_json::from_value(serde_json::json!({"state": "any"})).unwrap();
    let letters = dead_letters::list(pool, &any, &PageRequest::default()).await.unwrap().items;
    assert_eq!(letters.len(), 1, "{letters:?}");
    dead_letters::show(pool, letters[0].id).await.unwrap()
}

/// Key, state, and the letter that blocks it.
async fn parked(pool: &PgPool) -> Vec<(String, String, Option<Uuid>)> {
    sqlx::query_as("select convert_from(key, 'UTF8'), state, dead_letter_id from parked_keys order by key")
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn topics_in_outbox(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("select topic::text from outbox order by id").fetch_all(pool).await.unwrap()
}

/// Runs what was sent last to the retry topics.
async fn run_last_head(group: &InboxProcessor<Flaky>, pool: &PgPool) {
    let head = sent(pool, ".retry.1").await.pop().unwrap();
    group.retries().handle(&Batch { records: vec![head] }).await.unwrap();
}

fn declared() -> Vec<String> {
    (1..=3).map(|tier| format!("{TOPIC}.{GROUP}.retry.{tier}")).collect()
}

#[tokio::test]
async fn what_was_put_on_a_retry_topic_by_hand_goes_only_to_topics_that_there_are() {
    let database = ledger::database("mending_foreign").await;
    let pool = &database.pool;
    let policy = Policy { declared: declared(), ..flaky::policy(Poisoned::Block) };
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    // A message of ours without what a retry carries, as a console tool sends it again.
    let by_hand = Record {
        topic: format!("{PREFIX}{TOPIC}.{GROUP}.retry.1"),
        ..ledger::record(&ledger::envelope("a", 1), 7, b"reject")
    };
    let by_hand = Batch { records: vec![by_hand] };
    for _ in 0..2 {
        group.retries().handle(&by_hand).await.unwrap();
    }
    let letter = only_letter(pool).await.letter;
    assert_eq!((letter.error_class.as_str(), letter.hop), ("foreign", 0));
    assert_eq!(parked(pool).await, [], "no key's matter");
    let dlq = format!("{PREFIX}{TOPIC}.{GROUP}.dlq");
    let retry = format!("{PREFIX}{TOPIC}.{GROUP}.retry.1");
    assert_eq!(topics_in_outbox(pool).await, std::slice::from_ref(&dlq));

    // A replay brings it in order: as its key's head, and when it fails its key is blocked.
    assert_eq!(replay(pool, &policy, letter.id).await.unwrap(), 1);
    run_last_head(&group, pool).await;
    assert_eq!(topics_in_outbox(pool).await, [dlq.clone(), retry.clone(), dlq.clone()]);
    assert_eq!(parked(pool).await, [("a".to_owned(), "blocked".to_owned(), Some(letter.id))]);
    let mended = Flaky::mended().processor(pool, PREFIX, &policy);
    assert_eq!(replay(pool, &policy, letter.id).await.unwrap(), 2);
    run_last_head(&mended, pool).await;
    assert_eq!(topics_in_outbox(pool).await, [dlq.clone(), retry.clone(), dlq, retry]);
    assert_eq!(only_letter(pool).await.letter.state, "resolved");
    assert_eq!(notes(pool).await, [("a".to_owned(), 1)]);
}

#[tokio::test]
async fn a_letter_of_a_mebibyte_is_mirrored_and_replayed_whole() {
    let database = ledger::database("mending_large").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    let bytes = vec![0xff; CARRIED_PAYLOAD_BYTES_MAX];
    let record = ledger::record(&ledger::envelope("a", 1), 1, &bytes);
    group.handle(&Batch { records: vec![record] }).await.unwrap();
    let plan = dead_letters::plan(pool, &Filter::default()).await.unwrap();
    assert_eq!((plan.total, plan.can_not_travel), (1, 0));
    let id = only_letter(pool).await.letter.id;
    assert_eq!(replay(pool, &policy, id).await.unwrap(), 1);
    run_last_head(&group, pool).await;
    let sent: Vec<(String, bool)> =
        sqlx::query_as("select topic::text, payload = $1 from outbox order by id")
            .bind(&bytes)
            .fetch_all(pool)
            .await
            .unwrap();
    let on = |end: &str| (format!("{PREFIX}{TOPIC}.{GROUP}.{end}"), true);
    assert_eq!(sent, [on("dlq"), on("retry.1"), on("dlq")]);
    let letter = only_letter(pool).await.letter;
    assert_eq!((letter.state.as_str(), letter.attempts), ("open", 2));

    let patch = |bytes| Edit { id, payload: Some(vec![1; bytes]), ..Edit::default() };
    dead_letters::edit(pool, patch(CARRIED_PAYLOAD_BYTES_MAX), &change()).await.unwrap();
    dead_letters::edit(pool, patch(CARRIED_PAYLOAD_BYTES_MAX + 1), &change()).await.unwrap_err();
}

fn changed(id: Uuid, headers: &[(&str, Option<&str>)]) -> Edit {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
    Edit { id, headers: Some(headers.collect()), ..Edit::default() }
}

#[tokio::test]
async fn a_letter_whose_headers_could_not_be_read_is_mended_and_replayed_with_others() {
    let database = ledger::database("mending_headers").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    let mut record = ledger::record(&ledger::envelope("a", 1), 1, b"0");
    record.headers.retain(|(name, _)| name != "ce_type");
    record.headers.push(("too-much".to_owned(), b"x".to_vec()));
    group.handle(&Batch { records: vec![record] }).await.unwrap();
    let original = only_letter(pool).await;
    let id = original.letter.id;
    let edit = async |edit| dead_letters::edit(pool, edit, &change()).await;

    let error = edit(changed(id, &[("too-much", None)])).await.unwrap_err();
    assert!(
        error.to_string().contains("header ce_type is missing"),
        "as they are nobody can read them: {error}"
    );
    let error = edit(changed(id, &[("ce_id", Some("x"))])).await.unwrap_err();
    assert!(error.to_string().contains("ce_id can not be changed"), "{error}");
    let wanted = [("ce_type", Some("Noted")), ("too-much", None)];
    let edited = edit(changed(id, &wanted)).await.unwrap();
    let patch = edited.patch.unwrap();
    assert_eq!((patch.payload_base64, patch.headers.unwrap().len()), (None, 2));
    assert_eq!((edited.headers, edited.letter.patched), (original.headers, true), "the original stays");
    let plan = dead_letters::plan(pool, &Filter::default()).await.unwrap();
    assert_eq!((plan.total, plan.can_not_travel), (1, 0));
    let value = &dead_letters::values(pool, &[id]).await.unwrap()[0];
    assert_eq!((value.payload_base64.as_deref(), value.patched), (Some("MA=="), false));

    // Another payload leaves the headers as they are to be, and the other way round.
    edit(Edit { id, payload: Some(b"reject".to_vec()), ..Edit::default() }).await.unwrap();
    let patch = only_letter(pool).await.patch.unwrap();
    assert_eq!((patch.payload_base64.is_some(), patch.headers.unwrap().len()), (true, 2));
    edit(Edit { id, ..Edit::default() }).await.unwrap();
    let tried = group.dry_run().run(&Filter::default(), 1).await.unwrap();
    assert_eq!((tried[0].outcome, tried[0].patched), (Outcome::Done, true), "{:?}", tried[0].why);

    assert_eq!(replay(pool, &policy, id).await.unwrap(), 1);
    let head = sent(pool, ".retry.1").await.pop().unwrap();
    assert_eq!((head.header("ce_type"), head.header("too-much")), (Some("Noted"), None));
    run_last_head(&group, pool).await;
    assert_eq!(only_letter(pool).await.letter.state, "resolved");
    assert_eq!(notes(pool).await, [("a".to_owned(), 1)]);
}

#[tokio::test]
async fn changes_of_headers_are_taken_away_with_the_patch() {
    let database = ledger::database("mending_headers_gone").await;
    let pool = &database.pool;
    let group = Flaky::default().processor(pool, PREFIX, &flaky::policy(Poisoned::Block));
    group.handle(&batch(&[("a", "reject")])).await.unwrap();
    let id = only_letter(pool).await.letter.id;
    let edit = async |edit| dead_letters::edit(pool, edit, &change()).await.unwrap();
    edit(Edit { payload: Some(b"0".to_vec()), ..changed(id, &[("x", Some("1"))]) }).await;
    let patch = edit(changed(id, &[])).await.patch;
    assert_eq!(patch, None, "neither a payload nor headers are left");
}

#[tokio::test]
async fn what_is_no_message_or_has_no_topic_is_not_replayed_and_blocks_nobody() {
    let database = ledger::database("mending_unreadable").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    let mut unreadable = ledger::record(&ledger::envelope("a", 1), 1, b"0");
    unreadable.headers.retain(|(name, _)| name != "ce_type");
    group.handle(&Batch { records: vec![unreadable] }).await.unwrap();
    let letter = only_letter(pool).await.letter;
    assert_eq!(letter.error_class, "headers");
    let plan = dead_letters::plan(pool, &Filter::default()).await.unwrap();
    assert_eq!((plan.total, plan.can_not_travel), (1, 1));
    let refused = replay(pool, &policy, letter.id).await.unwrap_err();
    assert!(matches!(refused, OperateError::Unreadable(id) if id == letter.id), "{refused}");
    assert_eq!((only_letter(pool).await.letter.state.as_str(), parked(pool).await), ("open", vec![]));
    group.handle(&batch(&[("a", "0")])).await.unwrap();
    assert_eq!(notes(pool).await.len(), 1, "its key goes on");

    dead_letters::discard(pool, &Filter::default(), 1, &change()).await.unwrap();
    group.handle(&batch(&[("b", "reject")])).await.unwrap();
    let open = dead_letters::list(pool, &Filter::default(), &PageRequest::default()).await.unwrap().items;
    let other = Policy { declared: vec![format!("another.{GROUP}.retry.1")], ..policy };
    let refused = replay(pool, &other, open[0].id).await.unwrap_err();
    let wanted = format!("{TOPIC}.{GROUP}.retry.1");
    assert!(matches!(&refused, OperateError::NoTopic { topic, .. } if *topic == wanted), "{refused}");
    assert_eq!(count(pool, "outbox").await, 2, "the mirrors of both");
}

#[tokio::test]
async fn a_patched_letter_that_fails_again_is_mirrored_as_it_was_and_counts_its_attempts() {
    let database = ledger::database("mending_patched").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    let mut envelope = ledger::envelope("a", 1);
    let trace = TraceContext::new_root();
    envelope.cause.trace = Some(trace.clone());
    group.handle(&Batch { records: vec![ledger::record(&envelope, 1, b"reject")] }).await.unwrap();
    let first = only_letter(pool).await;
    let id = first.letter.id;
    let patch = Edit { id, payload: Some(b"no word of ours".to_vec()), ..Edit::default() };
    dead_letters::edit(pool, patch, &change()).await.unwrap();

    let mut traces = vec![trace.traceparent()];
    for attempt in 1..=2 {
        replay(pool, &policy, id).await.unwrap();
        let head = sent(pool, ".retry.1").await.pop().unwrap();
        assert_eq!(head.payload.as_deref(), Some(&b"no word of ours"[..]));
        assert_eq!(head.header(REPLAY_OF_TRACEPARENT), Some(trace.traceparent().as_str()), "linked");
        let own = TraceContext::parse(head.header("traceparent").unwrap()).unwrap();
        assert!(!traces.contains(&own.traceparent()), "each replay is a story of its own");
        assert_ne!(own.trace_id_hex(), trace.trace_id_hex());
        traces.push(own.traceparent());
        run_last_head(&group, pool).await;
        let letter = only_letter(pool).await;
        assert_eq!((letter.letter.state.as_str(), letter.letter.hop), ("open", attempt));
        assert_eq!(letter.letter.attempts, i32::from(attempt) + 1, "one on the topic, one for each replay");
        assert_eq!(letter.letter.error_class, "payload");
        assert_eq!(letter.payload_base64, first.payload_base64);
    }

    let mirrors = sent(pool, ".dlq").await;
    assert_eq!(mirrors.len(), 3);
    let time = |mirror: &Record, name| mirror.header(name).unwrap().parse::<DateTime<Utc>>().unwrap();
    let first_failed_at = time(&mirrors[0], "dlq_first_failed_at");
    let mut last_failed_at = first_failed_at;
    for (place, mirror) in mirrors.iter().enumerate() {
        assert_eq!(mirror.payload.as_deref(), Some(&b"reject"[..]), "the bytes are the original ones");
        assert_eq!(mirror.header("dlq_id"), Some(id.to_string().as_str()));
        assert_eq!(mirror.header("traceparent"), Some(traces[place].as_str()), "the story it failed in");
        assert_eq!(time(mirror, "dlq_first_failed_at"), first_failed_at);
        assert!(time(mirror, "dlq_last_failed_at") >= last_failed_at);
        last_failed_at = time(mirror, "dlq_last_failed_at");
    }
    assert!(last_failed_at > first_failed_at);
    let kept: (DateTime<Utc>, DateTime<Utc>) =
        sqlx::query_as("select first_failed_at, last_failed_at from dead_letters")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(kept, (first_failed_at, last_failed_at));
}

#[tokio::test]
async fn a_known_letter_that_is_held_and_fails_again_blocks_by_its_row_or_not_at_all() {
    let database = ledger::database("mending_known").await;
    let pool = &database.pool;
    let (block, skip) = (flaky::policy(Poisoned::Block), flaky::policy(Poisoned::Skip));
    let flaky = Flaky::default();
    let group = flaky.processor(pool, PREFIX, &block);
    let rejected = ledger::record(&ledger::envelope("a", 1), 1, b"reject");
    let rejected = Batch { records: vec![rejected] };
    // Buried while dead letters were skipped; then the offsets are set back, and the inbox has forgotten it.
    flaky.processor(pool, PREFIX, &skip).handle(&rejected).await.unwrap();
    let letter = only_letter(pool).await.letter.id;
    let retried = Batch { records: vec![ledger::record(&ledger::envelope("a", 2), 2, b"1")] };
    group.handle(&retried).await.unwrap();
    sqlx::query("delete from inbox").execute(pool).await.unwrap();
    group.handle(&rejected).await.unwrap();
    run_last_head(&group, pool).await;
    let blocked = [("a".to_owned(), "blocked".to_owned(), Some(letter))];
    drained_until(&group, "a key blocked by the letter it has", async || {
        (parked(pool).await == blocked).then_some(())
    })
    .await;

    // Given up; then all of it once more.
    sqlx::query("delete from inbox").execute(pool).await.unwrap();
    group.handle(&rejected).await.unwrap();
    dead_letters::discard(pool, &Filter::default(), 1, &change()).await.unwrap();
    drained_until(&group, "no parked key", async || parked(pool).await.is_empty().then_some(())).await;
    assert_eq!(only_letter(pool).await.letter.state, "discarded");
    assert_eq!(count(pool, "held_messages").await, 0);
}

#[tokio::test]
async fn a_head_that_was_lost_is_told_and_mended_by_a_republication() {
    let database = ledger::database("mending_lost").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    let mut first = batch(&[("a", "1"), ("a", "0"), ("b", "1")]);
    // A head may be appended days after its message was made: when a dead letter is replayed.
    let days_ago = u64::try_from((Utc::now() - TimeDelta::days(5)).timestamp()).unwrap();
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, days_ago, 0));
    let its_id = first.records[0].headers.iter_mut().find(|(name, _)| name == "ce_id").unwrap();
    its_id.1 = id.to_string().into_bytes();
    group.handle(&first).await.unwrap();
    // By the database's clock, a's head was due long ago; b's was a moment ago.
    sqlx::query("update parked_keys set due_at = now() - interval '301 seconds' where key = 'a'")
        .execute(pool)
        .await
        .unwrap();
    let told = format!(r#"retry_overdue_keys{{group="{GROUP}"}} 1"#);
    let is_told = async || metrics::render().lines().any(|line| line == told).then_some(());
    drained_until(&group, "a metric of the overdue key", is_told).await;

    let mut tx = pool.begin().await.unwrap();
    let selection = Selection::Messages(vec![id]);
    let again = republish::apply(&mut tx, &selection, republish::ROWS_MAX).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(again.rows, 1, "the head");
    let heads = sent(pool, ".retry.1").await;
    assert_eq!(heads.len(), 3);
    assert_eq!(heads[2].header("ce_id"), Some(id.to_string().as_str()));
    run_last_head(&group, pool).await;
    // Should the one that was lost turn up, it is a repeat.
    group.retries().handle(&Batch { records: vec![heads[0].clone()] }).await.unwrap();
    drained_until(&group, "a drained key", async || (parked(pool).await.len() == 1).then_some(())).await;
    assert_eq!(notes(pool).await, [("a".to_owned(), 1), ("a".to_owned(), 2)]);
}
