//! Dead letters as an operator works with them: groups, filters, pages, plan, patches, discard, audit, facts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::Utc;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;
use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_messaging::envelope::Envelope;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;
use waybill_outbox::dead_letters::{self as kept, DeadLetter};
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, InboxProcessor, Verdict};
use waybill_outbox::operate::dead_letters::{self, Edit};
use waybill_outbox::operate::parked::{self, ParkedFilter};
use waybill_outbox::operate::{
    Change, Filter, OperateError, PageRequest, Reason, StateFilter, audit, replays, retention,
};
use waybill_outbox::retry::{Poisoned, operate};

use crate::flaky::{self, Flaky};
use crate::ledger::{self, GROUP, PREFIX, TOPIC, batch, notes};

pub(crate) fn change() -> Change {
    Change::new("ada", "the schema was tightened", Some("abc".to_owned())).unwrap()
}

/// Keeps a record as a dead letter; returns its id.
pub(crate) async fn letter(pool: &PgPool, record: &Record, class: &str, why: &str) -> Uuid {
    letter_of(GROUP, pool, record, class, why).await
}

/// The same of another group.
async fn letter_of(group: &str, pool: &PgPool, record: &Record, class: &str, why: &str) -> Uuid {
    let letter = DeadLetter::new(group, record, class, why, 1, Utc::now());
    let mut conn = pool.acquire().await.unwrap();
    let written = kept::insert_in_tx(&mut conn, PREFIX, &[letter]).await.unwrap();
    written[0].unwrap()
}

fn whole() -> PageRequest {
    PageRequest { limit: 500, cursor: None }
}

#[tokio::test]
async fn letters_that_failed_alike_are_one_group_and_lists_come_in_pages() {
    let database = ledger::database("letters_groups").await;
    let pool = &database.pool;
    let id = Uuid::now_v7;
    let whys = [
        format!("order {} has 3 items of 'SKU-7', and 1.5 are left", id()),
        format!("order {} has 12 items of 'SKU 8', and 0 are left", id()),
        "the facade of deadbeef01 at 0xff is not a number, don't ask".to_owned(),
        "the facade of 0123456abc at 0x00 is not a number, don't ask".to_owned(),
        "the facade of deadbeef01 at 0xff is not a number, do ask".to_owned(),
    ];
    for (place, why) in whys.iter().enumerate() {
        let record = ledger::record(&ledger::envelope(&format!("k{}", place % 2), 1), place as i64, b"x");
        letter(pool, &record, "not_wanted", why).await;
    }
    let groups = dead_letters::failure_groups(pool, &Filter::default(), &whole()).await.unwrap().items;
    let shown: Vec<_> = groups.iter().map(|g| (g.message.as_str(), g.count, g.keys)).collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown.contains(&("order <uuid> has <n> items of <text>, and <n> are left", 2, 2)), "{shown:?}");
    assert!(shown.contains(&("the facade of <hex> at <hex> is not a number, don't ask", 2, 2)), "{shown:?}");
    assert!(groups.iter().all(|g| g.failure_group.len() == 16 && g.group == GROUP));

    let group = &groups[0];
    let of_group = Filter { failure_group: Some(group.failure_group.clone()), ..Filter::default() };
    let listed = dead_letters::list(pool, &of_group, &whole()).await.unwrap().items;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|letter| letter.id == group.example));
    let (mut page, mut seen) = (PageRequest { limit: 2, cursor: None }, Vec::new());
    loop {
        let part = dead_letters::list(pool, &Filter::default(), &page).await.unwrap();
        seen.extend(part.items.into_iter().map(|letter| letter.offset));
        let Some(next) = part.next_cursor else { break };
        page.cursor = Some(next);
    }
    assert_eq!(seen, [4, 3, 2, 1, 0], "newest first, none twice");
    let mut page = PageRequest { limit: 1, cursor: None };
    let mut counts = Vec::new();
    for _ in 0..3 {
        let part = dead_letters::failure_groups(pool, &Filter::default(), &page).await.unwrap();
        counts.extend(part.items.iter().map(|g| (g.count, g.failure_group.clone())));
        page.cursor = part.next_cursor;
    }
    assert_eq!(counts, groups.iter().map(|g| (g.count, g.failure_group.clone())).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_part_of_a_filter_counts() {
    let database = ledger::database("letters_filter").await;
    let pool = &database.pool;
    let envelope = ledger::envelope("key-1", 1);
    let one = letter(pool, &ledger::record(&envelope, 1, b"x"), "not_wanted", "no").await;
    // The other differs in all that a filter names.
    let other = Envelope { kind: "Told".to_owned(), ..ledger::envelope("key-2", 1) };
    let other = Record { topic: format!("{PREFIX}others.events"), ..ledger::record(&other, 2, b"x") };
    let other = letter_of("others", pool, &other, "other", "not so").await;
    let shown = async |id| dead_letters::show(pool, id).await.unwrap().letter;
    let (first, second) = (shown(one).await, shown(other).await);
    let ids = async |filter: Filter| -> Vec<Uuid> {
        let listed = dead_letters::list(pool, &filter, &whole()).await.unwrap();
        listed.items.into_iter().map(|letter| letter.id).collect()
    };
    let read = |json: serde_json::Value| serde_json::from_value::<Filter>(json).unwrap();
    for filter in [
        json!({"key": "key-1"}),
        json!({"key_base64": "a2V5LTE="}),
        json!({"group": GROUP}),
        json!({"topic": format!("{PREFIX}{TOPIC}")}),
        json!({"kind": "Noted"}),
        json!({"error_class": "not_wanted"}),
        json!({"failure_group": first.failure_group}),
        json!({"message_id": envelope.id}),
        json!({"correlation_id": envelope.cause.correlation_id}),
        json!({"to": second.last_failed_at}),
        json!({"ids": [one]}),
        json!({"ids": [one, other], "state": "any", "group": GROUP}),
    ] {
        assert_eq!(ids(read(filter.clone())).await, [one], "{filter}");
    }
    assert_eq!(ids(Filter { from: Some(second.last_failed_at), ..Filter::default() }).await, [other]);
    assert_eq!(ids(Filter { from: Some(first.last_failed_at), ..Filter::default() }).await, [other, one]);
    assert!(ids(Filter { to: Some(first.last_failed_at), ..Filter::default() }).await.is_empty());
    assert!(ids(Filter { state: StateFilter::Resolved, ..Filter::default() }).await.is_empty());
    assert!(serde_json::from_value::<Filter>(json!({"keys": "a"})).is_err(), "unknown fields are told");
    let both = Filter { key: Some("a".into()), key_base64: Some("YQ==".into()), ..Filter::default() };
    let error = dead_letters::list(pool, &both, &whole()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Invalid);
}

#[tokio::test]
async fn a_discard_takes_what_the_plan_showed_or_nothing() {
    let database = ledger::database("letters_discard").await;
    let pool = &database.pool;
    let group = Flaky::default().processor(pool, PREFIX, &flaky::policy(Poisoned::Block));
    let asks = [("a", "reject"), ("b", "garbled"), ("a", "0"), ("b", "0"), ("c", "0")];
    group.handle(&batch(&asks)).await.unwrap();
    let plan = dead_letters::plan(pool, &Filter::default()).await.unwrap();
    assert_eq!((plan.total, plan.keys, plan.can_not_travel), (2, 2, 0));
    assert_eq!((plan.by_key.len(), plan.by_key[0].held), (2, 1));
    assert_eq!(plan.by_key[0].parked_state.as_deref(), Some("blocked"));

    let rejected = Filter { error_class: Some("not_wanted".to_owned()), ..Filter::default() };
    let error = dead_letters::discard(pool, &rejected, 2, &change()).await.unwrap_err();
    assert!(matches!(error, OperateError::Count { expected: 2, found: 1 }), "{error}");
    assert_eq!(audit::list(pool, &whole()).await.unwrap().items, []);
    assert_eq!(dead_letters::discard(pool, &rejected, 1, &change()).await.unwrap(), 1);
    let keys = parked::list(pool, &ParkedFilter::default(), &whole()).await.unwrap().items;
    let states: Vec<_> = keys.iter().map(|k| (k.key.as_deref().unwrap(), k.state.as_str())).collect();
    assert_eq!(states, [("a", "draining"), ("b", "blocked")]);
    let detail = parked::show(pool, GROUP, b"b").await.unwrap();
    assert_eq!((detail.held.len(), detail.held[0].kind.as_deref()), (1, Some("Noted")));
    let audited = audit::list(pool, &whole()).await.unwrap().items;
    assert_eq!(audited.len(), 1);
    let row = &audited[0];
    assert_eq!((row.subject.as_str(), row.action.as_str()), ("ada", "dead_letters.discard"));
    assert_eq!((row.outcome.as_str(), row.trace_id.as_deref()), ("discarded, one of 1", Some("abc")));
    let given_up = dead_letters::show(pool, row.target.parse().unwrap()).await.unwrap();
    assert_eq!(given_up.letter.error_class, "not_wanted", "the audit names the letter");
    let discarded = given_up.discarded.unwrap();
    assert_eq!((discarded.by.as_str(), discarded.at, discarded.reason), ("ada", row.at, row.reason.clone()));
    assert_eq!(notes(pool).await, [("c".to_owned(), 5)]);
}

#[tokio::test]
async fn a_discard_of_many_is_audited_letter_by_letter() {
    let database = ledger::database("letters_audit").await;
    let pool = &database.pool;
    let mut ids = Vec::new();
    for place in 0..60 {
        let record = ledger::record(&ledger::envelope(&format!("k{place}"), 1), place, b"x");
        ids.push(letter(pool, &record, "not_wanted", "no").await.to_string());
    }
    let ids_of = ids.iter().map(|id| id.parse().unwrap()).collect();
    let by_id = Filter { ids: Some(ids_of), ..Filter::default() };
    assert_eq!(dead_letters::discard(pool, &by_id, 60, &change()).await.unwrap(), 60);
    let audited = audit::list(pool, &whole()).await.unwrap().items;
    let mut targets: Vec<String> = audited.into_iter().map(|entry| entry.target).collect();
    targets.sort_unstable();
    ids.sort_unstable();
    assert_eq!(targets, ids);
}

#[tokio::test]
async fn a_patch_stands_beside_the_original_and_is_what_a_replay_sends() {
    let database = ledger::database("letters_patch").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    group.handle(&batch(&[("a", "reject"), ("b", "reject")])).await.unwrap();
    let letters = dead_letters::list(pool, &Filter::default(), &whole()).await.unwrap().items;
    let (first, second) = (letters[0].id, letters[1].id);
    let patch =
        |id, payload: Option<&[u8]>| Edit { id, payload: payload.map(<[u8]>::to_vec), ..Edit::default() };

    let edited = dead_letters::edit(pool, patch(first, Some(b"0")), &change()).await.unwrap();
    assert_eq!(edited.payload_base64.as_deref(), Some("cmVqZWN0"), "the original bytes");
    let shown = edited.patch.unwrap();
    assert_eq!((shown.payload_base64.as_deref(), shown.edited_by.as_str()), (Some("MA=="), "ada"));
    assert!(edited.letter.patched);
    let gone = dead_letters::edit(pool, patch(first, None), &change()).await.unwrap();
    assert_eq!(gone.patch, None);
    let unknown = [patch(first, Some(b"0")), patch(Uuid::nil(), Some(b"0"))];
    let error = dead_letters::edit_many(pool, &unknown, &change()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
    assert!(!dead_letters::show(pool, first).await.unwrap().letter.patched, "all or none");
    assert_eq!(dead_letters::edit_many(pool, &[patch(first, Some(b"0"))], &change()).await.unwrap(), 1);

    let mut tx = pool.begin().await.unwrap();
    assert_eq!(operate::replay_in_tx(&mut tx, PREFIX, &policy, first).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let (payload, headers): (Vec<u8>, serde_json::Value) =
        sqlx::query_as("select payload, headers from outbox where topic like '%.retry.1'")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(payload, b"0");
    assert_eq!(headers["ce_id"], letters[0].message_id.unwrap().to_string());
    assert!(headers["traceparent"].as_str().unwrap().starts_with("00-"));
    let error = dead_letters::edit(pool, patch(first, None), &change()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Conflict, "it is being replayed");
    let kept: Vec<u8> = sqlx::query_scalar("select payload from dead_letters where id = $1")
        .bind(first)
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(kept, b"reject", "never changed");
    assert_eq!(audit::list(pool, &whole()).await.unwrap().items.len(), 3);

    let none = replays::NewReplay::of(Filter::of_ids(vec![]));
    assert_eq!(replays::create(pool, &none, &change()).await.unwrap_err().reason(), Reason::Invalid);
    let one = Filter { ids: Some(vec![second]), ..Filter::default() };
    let replay = replays::create(pool, &replays::NewReplay::of(one), &change()).await.unwrap();
    assert_eq!((replay.state.as_str(), replay.total, replay.remaining), ("running", 1, 1));
    assert_eq!(replays::list(pool, &whole()).await.unwrap().items, std::slice::from_ref(&replay));
    assert_eq!(replays::pause(pool, replay.id, &change()).await.unwrap().state, "paused");
    assert_eq!(replays::resume(pool, replay.id, &change()).await.unwrap().state, "running");
    assert_eq!(replays::cancel(pool, replay.id, &change()).await.unwrap().state, "cancelled");
    let error = replays::resume(pool, replay.id, &change()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Conflict);
    assert_eq!(dead_letters::show(pool, second).await.unwrap().replays[0].outcome, "pending");
}

/// Makes each message's effect once by the effect's own key, and rejects while it is broken.
#[derive(Clone, Default)]
struct Natural(Arc<AtomicBool>);

impl Handler for Natural {
    type Message = ();

    fn group(&self) -> &str {
        GROUP
    }

    fn decode(&self, _: &str, _: &[u8]) -> Result<Option<()>, CodecError> {
        Ok(Some(()))
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<()>],
        _: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        for delivery in deliveries {
            sqlx::query(
                "insert into notes (key, message_id, sequence, amount)
                 select $1, $2, $3, 1 where not exists (select from notes where key = $1 and sequence = $3)",
            )
            .bind(&delivery.envelope.subject)
            .bind(delivery.envelope.id)
            .bind(delivery.envelope.sequence)
            .execute(&mut *conn)
            .await?;
        }
        let broken = || Verdict::Reject { class: "broken", why: "for now".to_owned() };
        let is_broken = self.0.load(Ordering::SeqCst);
        Ok(deliveries.iter().map(|_| if is_broken { broken() } else { Verdict::Done }).collect())
    }
}

#[tokio::test]
async fn a_replay_of_what_the_inbox_has_forgotten_is_made_harmless_by_natural_keys() {
    let database = ledger::database("letters_forgotten").await;
    let pool = &database.pool;
    let (handler, policy) = (Natural::default(), flaky::policy(Poisoned::Block));
    let group = InboxProcessor::with_policy(pool.clone(), PREFIX, handler.clone(), policy.clone());
    let envelope = ledger::envelope("a", 1);
    group.handle(&Batch { records: vec![ledger::record(&envelope, 1, b"x")] }).await.unwrap();
    // It comes again when nobody remembers it, fails, and is replayed when nobody remembers that either.
    sqlx::query("delete from inbox").execute(pool).await.unwrap();
    handler.0.store(true, Ordering::SeqCst);
    group.handle(&Batch { records: vec![ledger::record(&envelope, 2, b"x")] }).await.unwrap();
    handler.0.store(false, Ordering::SeqCst);
    sqlx::query("delete from inbox").execute(pool).await.unwrap();
    let letters = dead_letters::list(pool, &Filter::default(), &whole()).await.unwrap().items;
    let mut tx = pool.begin().await.unwrap();
    operate::replay_in_tx(&mut tx, PREFIX, &policy, letters[0].id).await.unwrap();
    tx.commit().await.unwrap();
    let (topic, headers): (String, serde_json::Value) =
        sqlx::query_as("select topic, headers from outbox where topic like '%.retry.1'")
            .fetch_one(pool)
            .await
            .unwrap();
    let headers = headers.as_object().unwrap().iter();
    let headers = headers.map(|(n, v)| (n.clone(), v.as_str().unwrap().as_bytes().to_vec())).collect();
    let sent = Record { topic, headers, ..ledger::record(&envelope, 0, b"x") };
    for _ in 0..2 {
        group.retries().handle(&Batch { records: vec![sent.clone()] }).await.unwrap();
    }
    assert_eq!(notes(pool).await, [("a".to_owned(), 1)], "its effect once");
    assert_eq!(dead_letters::show(pool, letters[0].id).await.unwrap().letter.state, "resolved");
}

#[tokio::test]
async fn what_was_settled_long_ago_is_forgotten_and_what_is_open_is_not() {
    let database = ledger::database("letters_retention").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    group.handle(&batch(&[("a", "reject"), ("b", "reject"), ("c", "reject")])).await.unwrap();
    sqlx::raw_sql(
        "update dead_letters set last_failed_at = now() - interval '100 days';
         update dead_letters set state = 'resolved' where convert_from(key, 'UTF8') = 'a';
         update dead_letters set state = 'discarded', last_failed_at = now() where convert_from(key, 'UTF8') = 'b';
         insert into dead_letter_patches (dead_letter_id, payload, edited_by, reason)
             select id, 'x', 'ada', 'r' from dead_letters where state = 'resolved';
         insert into replays (id, state, filter, reason, requested_by, rate_per_s, ramp, stop_after_failures, updated_at)
             select gen_random_uuid(), state, '{}', 'r', 'ada', 1, true, 1, now() - interval '100 days'
             from unnest(array['finished', 'cancelled', 'running', 'stopped']) state;
         insert into replay_items (replay_id, number, dead_letter_id, consumer_group)
             select id, n, gen_random_uuid(), 'g' from replays, generate_series(1, 700) n;
         insert into operator_audit (at, subject, action, target, reason, outcome)
             values (now() - interval '100 days', 'ada', 'a', 't', 'old', 'o'), (now(), 'ada', 'a', 't', 'new', 'o'),
                    (now() - interval '100 days', 'ada', 'sagas.abandon', 't', 'books', 'o')",
    )
    .execute(pool)
    .await
    .unwrap();
    let keep = std::time::Duration::from_secs(90 * 86_400);
    let forgotten = retention::forget(pool, keep).await.unwrap();
    assert_eq!(forgotten, 1 + 2 * 700 + 2 + 1);
    assert_eq!(retention::forget(pool, keep).await.unwrap(), 0);
    let any = Filter { state: StateFilter::Any, ..Filter::default() };
    let mut left = dead_letters::list(pool, &any, &whole()).await.unwrap().items;
    left.sort_by_key(|letter| letter.key.clone());
    let left: Vec<_> = left.iter().map(|letter| (letter.key.as_deref(), letter.state.as_str())).collect();
    assert_eq!(left, [(Some("b"), "discarded"), (Some("c"), "open")], "open ones stay, however old");
    let mut replays: Vec<String> =
        replays::list(pool, &whole()).await.unwrap().items.into_iter().map(|replay| replay.state).collect();
    replays.sort();
    assert_eq!(replays, ["running", "stopped"], "what can go on stays");
    let audit = audit::list(pool, &whole()).await.unwrap().items;
    let kept: Vec<&str> = audit.iter().map(|entry| entry.reason.as_str()).collect();
    assert_eq!(kept, ["books", "new"], "the order of an abandoned saga stays too");
}
