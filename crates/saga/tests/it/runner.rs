//! The runner on Postgres: whole sagas, sets of them in a constant number of statements, crashes, repeated and crossing replies.

use serde_json::json;
use sqlx::Row as _;
use waybill_messaging::message::Message;
use waybill_outbox::append::{AppendArrays, append};
use waybill_runtime::clock::new_id;
use waybill_saga::{Effect, Ending, Ignored, Input, Outcome, Phase, SagaError, Started, Status, Verb};

use crate::desk::{Desk, cause, done, in_about};
use crate::sagas::with_local_pivot;
use crate::statements::Statements;

fn refused(reason: &str) -> Outcome {
    Outcome::Refused { reason: reason.to_owned() }
}

#[tokio::test]
async fn a_saga_runs_to_its_end_and_counts_each_topic() {
    let desk = Desk::open("saga_whole", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    assert!(desk.take(key, done("one")).await.accepted);
    let decided = desk.take(key, done("two")).await;
    let four = Effect::Command { step: "four", phase: Phase::Act, attempt: 1 };
    assert_eq!(decided.effects, [Effect::Local { step: "pivot" }, four]);
    desk.take(key, done("four")).await;
    let ended = desk.take(key, done("five")).await;
    assert_eq!(ended.effects, [Effect::Finished(Ending::Completed)]);
    assert_eq!((ended.status, ended.sequences.last("b.commands")), (Status::Completed, 2));
    let said = ["a.commands DoOne 1", "b.commands DoTwo 1", "b.commands DoFour 2", "a.commands DoFive 2"];
    assert_eq!(desk.said(key).await, said);
    let seen = desk.see(key).await;
    assert_eq!((seen.status.as_str(), seen.revision, seen.wakes), ("completed", 5, false));
    assert_eq!((seen.due_in_ms, seen.deadline_in_ms, seen.gated), (None, None, false));
}

#[tokio::test]
async fn a_refusal_takes_back_what_is_done_and_the_log_tells_it() {
    let desk = Desk::open("saga_back", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    desk.take(key, done("one")).await;
    desk.take(key, Input::reply("two", refused("no_room"))).await;
    let late = desk.take(key, done("two")).await;
    assert_eq!((late.accepted, late.ignored), (false, Some(Ignored::OutOfPhase)));
    let ended = desk.take(key, Input::compensated("one", Outcome::Done)).await;
    let ending = Ending::Compensated { reason: "no_room".to_owned() };
    assert_eq!(ended.effects, [Effect::Finished(ending)]);
    let after = desk.take(key, Input::Cancel { reason: "too_late".to_owned() }).await;
    assert_eq!((after.ignored, after.status), (Some(Ignored::Ended), Status::Compensated));
    let said = ["a.commands DoOne 1", "b.commands DoTwo 1", "a.commands TakeBackOne 2"];
    assert_eq!(desk.said(key).await, said);

    let log = desk.log(key).await;
    assert_eq!(log.len(), 6);
    assert_eq!(log[0]["input"], json!({"started": {"version": 1}}));
    assert_eq!(log[0]["did"][0]["sent"]["kind"], "DoOne");
    assert_eq!(log[2]["input"]["reply"]["outcome"], json!({"refused": {"reason": "no_room"}}));
    assert_eq!(log[2]["did"][0]["sent"]["phase"], "compensate");
    assert_eq!((&log[3]["ignored"], &log[3]["status"]), (&json!("out_of_phase"), &json!("compensating")));
    assert_eq!(log[4]["did"][0]["finished"]["ending"]["compensated"]["reason"], "no_room");
    assert_eq!(log[5]["ignored"], "ended");
}

#[tokio::test]
async fn two_hundred_instances_take_as_many_statements_as_one() {
    let desk = Desk::open("saga_sets", with_local_pivot()).await;
    let keys = desk.start(201).await;
    let statements = Statements::listen();
    let mut counts = Vec::new();
    for batch in [&keys[..1], &keys[1..]] {
        // Twice the reply of the first step, and the second's: three inputs each, the repeated one ignored.
        let inputs = ["one", "one", "two"]
            .iter()
            .flat_map(|step| batch.iter().map(|key| (*key, done(step), cause(*key))))
            .collect();
        let mut tx = desk.pool().begin().await.unwrap();
        let mut out = Vec::new();
        statements.take();
        let advanced = desk.runner.advance(&mut tx, inputs, &mut out).await.unwrap();
        counts.push(statements.take());
        assert_eq!((advanced.len(), out.len()), (batch.len() * 3, batch.len() * 2));
        assert_eq!(advanced.iter().filter(|a| a.accepted).count(), batch.len() * 2);
        append(&mut tx, "", &out).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(counts, [2, 2], "load, save");
    for key in [keys[0], keys[200]] {
        assert_eq!(desk.said(key).await.last().unwrap(), "b.commands DoFour 2");
        assert_eq!(desk.see(key).await.revision, 2, "one save for both inputs");
    }
}

#[tokio::test]
async fn one_statement_starts_a_saga_and_appends_its_message() {
    let desk = Desk::open("saga_one_trip", with_local_pivot()).await;
    let key = new_id();
    let started = desk.begin(key);
    let arrays = AppendArrays::new("", &started.messages);
    sqlx::query("select outbox_append($1, $2, $3, $4, $5), saga_start($6::json)")
        .bind(arrays.message_ids)
        .bind(arrays.topics)
        .bind(arrays.keys)
        .bind(arrays.headers)
        .bind(arrays.payloads)
        .bind(Started::argument(&[&started]).unwrap())
        .execute(desk.pool())
        .await
        .unwrap();
    let seen = desk.see(key).await;
    assert_eq!((seen.status.as_str(), seen.revision, seen.gated, seen.wakes), ("running", 1, true, true));
    assert!(in_about(seen.deadline_in_ms, 600_000), "{seen:?}");
    assert!(desk.take(key, done("one")).await.accepted);

    let mut tx = desk.pool().begin().await.unwrap();
    let again = desk.runner.start_in_tx(&mut tx, &[started]).await;
    assert!(matches!(again, Err(SagaError::AlreadyStarted { saga: "parcel" })), "{again:?}");
}

#[tokio::test]
async fn the_same_reply_at_once_to_many_processes_counts_once() {
    let desk = Desk::open("saga_zombies", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    let replies = (0..6).map(|_| desk.take(key, done("one")));
    let taken = futures_util::future::join_all(replies).await;
    assert_eq!(taken.iter().filter(|advanced| advanced.accepted).count(), 1);
    assert_eq!(desk.said(key).await, ["a.commands DoOne 1", "b.commands DoTwo 1"]);
}

#[tokio::test]
async fn a_failure_between_two_statements_leaves_nothing_behind() {
    let desk = Desk::open("saga_crash", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    let before = (desk.see(key).await.revision, desk.said(key).await, desk.log(key).await);
    // The statement that saves the instance fails at its log entry.
    for statement in [
        "create function fail() returns trigger language plpgsql as $$ begin raise exception 'planted'; end $$",
        "create trigger fail before insert on saga_log execute function fail()",
    ] {
        sqlx::query(statement).execute(desk.pool()).await.unwrap();
    }
    let failed = desk.try_take(vec![(key, done("one"))]).await;
    assert!(matches!(failed, Err(SagaError::Database { operation: "saving instances", .. })), "{failed:?}");
    sqlx::query("drop trigger fail on saga_log").execute(desk.pool()).await.unwrap();
    assert_eq!((desk.see(key).await.revision, desk.said(key).await, desk.log(key).await), before);

    // Everything but the outbox is written, then the connection is cut.
    let (mut tx, mut out) = (desk.pool().begin().await.unwrap(), Vec::<Message>::new());
    let pid: i32 = sqlx::query("select pg_backend_pid()").fetch_one(&mut *tx).await.unwrap().get(0);
    desk.runner.advance(&mut tx, vec![(key, done("one"), cause(key))], &mut out).await.unwrap();
    sqlx::query("select pg_terminate_backend($1, 5000)").bind(pid).execute(desk.pool()).await.unwrap();
    append(&mut tx, "", &out).await.expect_err("the connection is gone");
    drop(tx);
    assert_eq!((desk.see(key).await.revision, desk.said(key).await, desk.log(key).await), before);

    assert!(desk.take(key, done("one")).await.accepted, "the same reply, delivered again");
    assert_eq!(desk.said(key).await, ["a.commands DoOne 1", "b.commands DoTwo 1"]);
}

#[tokio::test]
async fn a_stuck_saga_is_counted_and_an_operator_moves_it() {
    let desk = Desk::open("saga_stuck", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    let failed = || Input::reply("four", Outcome::Failed { reason: "broken".to_owned() });
    for step in ["one", "two"] {
        desk.take(key, done(step)).await;
    }
    desk.take(key, failed()).await;
    let waits = desk.see(key).await;
    assert!(!waits.gated && in_about(waits.due_in_ms, 500), "back-off, nothing to be published: {waits:?}");
    desk.pass(1.0).await;
    assert_eq!(desk.sweep().await.len(), 1);
    let stuck = desk.take(key, failed()).await;
    assert_eq!(stuck.status, Status::Stuck);
    let seen = desk.see(key).await;
    assert_eq!((seen.status.as_str(), seen.due_in_ms, seen.wakes), ("stuck", None, false));
    desk.runner.measure(&mut desk.pool().acquire().await.unwrap()).await.unwrap();
    let metrics = waybill_telemetry::metrics::render();
    assert!(metrics.contains("saga_stuck{saga=\"parcel\"} 1"), "{metrics}");

    let again = desk.take(key, Input::Operator(Verb::Retry)).await;
    assert_eq!(again.effects, [Effect::Command { step: "four", phase: Phase::Act, attempt: 1 }]);
    assert!(desk.see(key).await.wakes);
    desk.take(key, done("four")).await;
    assert_eq!(desk.take(key, done("five")).await.status, Status::Completed);
}

#[tokio::test]
async fn inputs_of_unknown_keys_are_left_out() {
    let desk = Desk::open("saga_unknown", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    let advanced = desk.try_take(vec![(new_id(), done("one")), (key, done("one"))]).await.unwrap();
    assert_eq!(advanced.iter().map(|a| a.key).collect::<Vec<_>>(), [key]);
}
