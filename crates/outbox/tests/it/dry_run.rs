//! A dry run: what the real handler would do, and no trace of it.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;
use waybill_messaging::codec::CodecError;
use waybill_messaging::message::Message;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, InboxProcessor, Verdict};
use waybill_outbox::operate::dry_run::{Outcome, Tried};
use waybill_outbox::operate::{Filter, dead_letters};
use waybill_outbox::retry::Policy;
use waybill_runtime::clock::new_id;
use waybill_testkit::TestTopics;

use crate::ledger::{self, GROUP, TOPIC};
use crate::letters::{change, letter};

const LIMIT: Duration = Duration::from_secs(90);

/// Keeps a balance per key, in a table with a primary key, and tells of each change.
struct Balances;

impl Handler for Balances {
    type Message = String;

    fn group(&self) -> &str {
        GROUP
    }

    fn decode(&self, _: &str, payload: &[u8]) -> Result<Option<String>, CodecError> {
        let text =
            std::str::from_utf8(payload).map_err(|_| CodecError::NotAFrame { what: "it is no text" })?;
        Ok((text != "of no interest").then(|| text.to_owned()))
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<String>],
        out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let mut verdicts = Vec::new();
        for Delivery { envelope, message } in deliveries {
            sqlx::query(
                "insert into balances values ($1, 1) on conflict (key) do update set amount = balances.amount + 1",
            )
            .bind(&envelope.subject)
            .execute(&mut *conn)
            .await?;
            verdicts.push(match message.as_str() {
                "reject" => Verdict::Reject { class: "not_wanted", why: "as asked".to_owned() },
                "retry" => Verdict::Retry { class: "not_yet", why: "as asked".to_owned() },
                "panic" => panic!("as asked"),
                "constraint" => {
                    sqlx::query("update balances set amount = -1").execute(&mut *conn).await?;
                    Verdict::Done
                }
                "deferred" => {
                    sqlx::query("insert into deferred values (1), (1)").execute(&mut *conn).await?;
                    Verdict::Done
                }
                "slow" => {
                    sqlx::query("insert into slow_things values ('so')").execute(&mut *conn).await?;
                    Verdict::Done
                }
                "close" => {
                    sqlx::query("delete from balances where key = 'old'").execute(&mut *conn).await?;
                    sqlx::query("insert into events_of (at) values (now())").execute(&mut *conn).await?;
                    Verdict::Done
                }
                _ => Verdict::Done,
            });
            let reply = waybill_messaging::envelope::Envelope {
                id: new_id(),
                kind: "Changed".to_owned(),
                cause: envelope.as_cause(),
                ..envelope.clone()
            };
            let key = envelope.subject.clone();
            out.push(Message { topic: "balances.events".to_owned(), key, envelope: reply, payload: vec![7] });
        }
        Ok(verdicts)
    }
}

/// Every row of every table.
async fn everything(pool: &PgPool) -> Vec<(String, Value)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I', relname) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut all = Vec::new();
    for table in tables {
        let rows = format!(
            "select coalesce(jsonb_agg(to_jsonb(t) order by to_jsonb(t)::text), '[]') from {table} t"
        );
        all.push((table, sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(pool).await.unwrap()));
    }
    all
}

async fn database(hint: &str) -> waybill_testkit::TestDatabase {
    let database = ledger::database(hint).await;
    sqlx::raw_sql(
        "create table balances (key text primary key, amount int check (amount > 0));
         create table events_of (at timestamptz);
         insert into balances select 'filler ' || n, 1 from generate_series(1, 2000) n;
         insert into balances values ('known', 4), ('old', 9);",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    database
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_written_and_said_and_leaves_no_trace() {
    let database = database("dry_run").await;
    let pool = &database.pool;
    let topics = TestTopics::create(&[(TOPIC, 1), ("balances.events", 1)]).await;
    let asks: [(&str, &[u8]); 9] = [
        ("known", b"reject"),
        ("known", b"one"),
        ("known", b"close"),
        ("new", b"retry"),
        ("new", b"panic"),
        ("new", b"constraint"),
        ("new", b"deferred"),
        ("new", b"one"),
        ("new", &[0xff]),
    ];
    let mut ids = Vec::new();
    for (place, (key, payload)) in asks.iter().enumerate() {
        let record = ledger::record(&ledger::envelope(key, place as i64 + 1), place as i64, payload);
        ids.push(letter(pool, &record, "not_wanted", "no").await);
    }
    let dry =
        InboxProcessor::with_policy(pool.clone(), &topics.prefix, Balances, Policy::default()).dry_run();
    let before = everything(pool).await;
    let tried = dry.run(&Filter::default(), 100).await.unwrap();
    assert_eq!(everything(pool).await, before);
    for name in [TOPIC, "balances.events"] {
        assert_eq!(topics.read_to_end(name, LIMIT).await.len(), 0, "{name}");
    }
    let of = |place: usize| tried.iter().find(|one| one.id == ids[place]).unwrap();
    let outcomes: Vec<Outcome> = (0..9).map(|place| of(place).outcome).collect();
    use Outcome::{Done, Fault, Reject, Retry};
    assert_eq!(outcomes, [Reject, Done, Done, Retry, Fault, Fault, Fault, Done, Reject]);
    assert_eq!(of(0).why.as_deref(), Some("not_wanted: as asked"));
    assert!(of(5).why.as_deref().unwrap().contains("balances_amount_check"), "{:?}", of(5).why);
    assert!(of(6).why.as_deref().unwrap().contains("deferred_n_key"), "{:?}", of(6).why);
    assert_eq!(
        writes(of(1)),
        [("balances", "update", json!({"key": "known", "amount": 4}), json!({"key": "known", "amount": 5}))]
    );
    let third = writes(of(2));
    assert_eq!(third.len(), 3, "{third:?}");
    assert!(
        third.contains(&(
            "balances",
            "update",
            json!({"key": "known", "amount": 5}),
            json!({"key": "known", "amount": 6})
        )),
        "a later letter of the key sees what the earlier did: {third:?}"
    );
    assert!(
        third.contains(&("balances", "delete", json!({"key": "old", "amount": 9}), Value::Null)),
        "{third:?}"
    );
    assert!(third.iter().any(|write| (write.0, write.1) == ("events_of", "insert")), "{third:?}");
    assert_eq!(writes(of(7)), [("balances", "insert", Value::Null, json!({"key": "new", "amount": 1}))]);
    assert_eq!(of(7).messages.len(), 1);
    let message = &of(7).messages[0];
    assert_eq!(message.topic, format!("{}balances.events", topics.prefix));
    assert_eq!((message.kind.as_str(), message.headers["ce_type"].as_str()), ("Changed", Some("Changed")));
    assert_eq!(message.payload_base64, "Bw==");
    assert!(of(0).writes.is_empty() && of(0).messages.is_empty());
}

fn writes(tried: &Tried) -> Vec<(&str, &str, Value, Value)> {
    let write = |w: &waybill_outbox::operate::dry_run::Write| {
        (w.before.clone().unwrap_or_default(), w.after.clone().unwrap_or_default())
    };
    tried
        .writes
        .iter()
        .map(|w| {
            let (before, after) = write(w);
            (w.table.as_str(), w.operation.as_str(), before, after)
        })
        .collect()
}

#[tokio::test]
async fn a_dry_run_tries_the_patch_and_knows_a_duplicate() {
    let database = database("dry_run_patch").await;
    let pool = &database.pool;
    let envelope = ledger::envelope("known", 1);
    let id = letter(pool, &ledger::record(&envelope, 1, b"reject"), "not_wanted", "no").await;
    let dry = InboxProcessor::with_policy(pool.clone(), "t1.", Balances, Policy::default()).dry_run();
    let edit = dead_letters::Edit { id, payload: Some(b"mended".to_vec()), ..Default::default() };
    dead_letters::edit(pool, edit, &change()).await.unwrap();
    let tried = dry.run(&Filter::default(), 1).await.unwrap();
    assert_eq!((tried[0].outcome, tried[0].patched, tried[0].writes.len()), (Outcome::Done, true, 1));
    let other = Filter { group: Some("another".to_owned()), ..Filter::default() };
    assert_eq!(dry.run(&other, 1).await.unwrap(), []);
    sqlx::query("insert into inbox (consumer_group, message_id, hop) values ($1, $2, 1)")
        .bind(GROUP)
        .bind(envelope.id)
        .execute(pool)
        .await
        .unwrap();
    let tried = dry.run(&Filter::of_ids(vec![id, Uuid::nil()]), 10).await.unwrap();
    assert_eq!(tried.len(), 1);
    assert_eq!((tried[0].outcome, tried[0].writes.len()), (Outcome::Duplicate, 0));
    assert!(dry.run(&Filter::default(), 0).await.is_err() && dry.run(&Filter::default(), 101).await.is_err());
}

#[tokio::test]
async fn a_table_that_takes_too_long_is_counted_and_the_row_locks_are_soon_free() {
    let database = database("dry_run_slow").await;
    let pool = &database.pool;
    // As JSON a row of it takes far longer than a dry run looks at a table.
    sqlx::raw_sql(
        "create type slow as enum ('so');
         create function slow_json(slow) returns json language plpgsql as
             $$begin perform pg_sleep(30); return '1'; end$$;
         create cast (slow as json) with function slow_json(slow);
         create table slow_things (so slow primary key);",
    )
    .execute(pool)
    .await
    .unwrap();
    let record = ledger::record(&ledger::envelope("known", 1), 1, b"slow");
    letter(pool, &record, "not_wanted", "no").await;
    let dry = InboxProcessor::with_policy(pool.clone(), "t1.", Balances, Policy::default()).dry_run();
    let tried = dry.run(&Filter::default(), 1).await.unwrap();
    assert_eq!((tried.len(), tried[0].outcome), (1, Outcome::Done));
    let told: Vec<_> = tried[0].writes.iter().map(|w| (w.table.as_str(), w.operation.as_str())).collect();
    assert_eq!(told, [("balances", "update"), ("slow_things", "unknown")]);
    let note = tried[0].writes[1].note.as_deref().unwrap();
    assert_eq!(
        note,
        "1 inserted, 0 updated, 0 deleted; it took longer than 500ms to search the table for them"
    );
}
