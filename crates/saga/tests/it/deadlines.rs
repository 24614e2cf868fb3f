//! Deadlines by the database's clock: they start when the command is published, and pass over what others have locked.

use waybill_saga::{Effect, Input, Phase, Status};

use crate::desk::{Desk, done, in_about};
use crate::sagas::{DEADLINE, with_local_pivot};

/// The first look at a command comes after a quarter of its deadline.
const LOOK_S: f64 = 2.0;

#[tokio::test]
async fn a_step_has_its_full_deadline_from_the_publication_of_its_command() {
    let desk = Desk::open("saga_gate", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    assert!(in_about(desk.see(key).await.due_in_ms, 2_000));

    // The relay is away for longer than all deadlines together: nothing fires, and the saga's clock stands still.
    for away_s in [LOOK_S + 0.1, 100.0, 3_600.0] {
        desk.pass(away_s).await;
        assert!(desk.sweep().await.is_empty(), "fired before the command was published");
        let seen = desk.see(key).await;
        assert!(seen.gated && seen.due_in_ms.is_some_and(|ms| (-4_000..=60_000).contains(&ms)), "{seen:?}");
        assert!(in_about(seen.deadline_in_ms, 600_000), "the saga's clock went on: {seen:?}");
    }

    desk.publish().await;
    desk.pass(60.0).await;
    assert!(desk.sweep().await.is_empty(), "the deadline only begins now");
    let seen = desk.see(key).await;
    assert!(!seen.gated && in_about(seen.due_in_ms, 8_000), "{seen:?}");
    desk.pass(3.0).await;
    assert!(desk.sweep().await.is_empty());
    desk.pass(5.1).await;
    let fired = desk.sweep().await;
    assert_eq!(fired[0].effects, [Effect::Command { step: "one", phase: Phase::Act, attempt: 2 }]);
    assert_eq!(desk.said(key).await, ["a.commands DoOne 1", "a.commands DoOne 2"]);
}

#[tokio::test]
async fn an_unknown_outcome_before_the_pivot_is_taken_back() {
    let desk = Desk::open("saga_unknown_outcome", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    desk.take(key, done("one")).await;
    let waits = [
        (DEADLINE.as_secs_f64(), Phase::Act, 2),
        (DEADLINE.as_secs_f64(), Phase::Act, 3),
        // As long again as it took to be published.
        (LOOK_S + 0.3, Phase::Compensate, 1),
    ];
    for (wait_s, phase, attempt) in waits {
        desk.publish().await;
        desk.pass(LOOK_S + 0.1).await;
        assert!(desk.sweep().await.is_empty());
        desk.pass(wait_s - 0.5).await;
        assert!(desk.sweep().await.is_empty(), "before its time: {attempt}");
        desk.pass(0.6).await;
        assert_eq!(desk.sweep().await[0].effects, [Effect::Command { step: "two", phase, attempt }]);
    }
    assert_eq!(desk.see(key).await.status, "compensating");
    let log = desk.log(key).await;
    assert_eq!(log.last().unwrap()["input"], "deadline");
}

#[tokio::test]
async fn the_whole_sagas_deadline_turns_it_round_before_the_pivot_and_only_alerts_after_it() {
    let desk = Desk::open("saga_deadline", with_local_pivot()).await;
    let keys = desk.start(2).await;
    for step in ["one", "two"] {
        desk.take(keys[1], done(step)).await;
    }
    desk.publish().await;
    desk.pass(LOOK_S + 0.1).await;
    assert!(desk.sweep().await.is_empty(), "publication seen");
    // Only the saga's deadline is over: the steps' are moved out of the way.
    sqlx::query(
        "update saga_instances set due_at = now() + interval '1 hour', deadline_at = now(), wake_at = now()",
    )
    .execute(desk.pool())
    .await
    .unwrap();
    let mut fired = desk.sweep().await;
    fired.sort_by_key(|advanced| advanced.status == Status::Running);
    assert_eq!(fired.len(), 2);
    assert_eq!(fired[0].effects, [Effect::Command { step: "one", phase: Phase::Act, attempt: 2 }]);
    assert_eq!(fired[1].effects, [Effect::Overdue]);
    let overdue = desk.see(keys[1]).await;
    assert_eq!((overdue.status.as_str(), overdue.deadline_in_ms), ("running", None));
    assert!(in_about(overdue.due_in_ms, 3_600_000), "the step's own deadline stays: {overdue:?}");
    assert!(desk.sweep().await.is_empty(), "told once");

    // The last call is out, and nobody answers that either.
    desk.publish().await;
    desk.pass(LOOK_S + 0.1).await;
    assert!(desk.sweep().await.is_empty(), "publication seen");
    desk.pass(LOOK_S + 0.5).await;
    let fired = desk.sweep().await;
    assert_eq!(fired[0].effects, [Effect::Command { step: "one", phase: Phase::Compensate, attempt: 1 }]);
    assert_eq!(desk.see(keys[0]).await.state["compensating"]["reason"], "timed_out");
}

/// The answer was said in time and waits in the participant's outbox, as the last call does in the saga's own.
#[tokio::test]
async fn silence_counts_only_when_a_command_sent_after_it_is_published() {
    let desk = Desk::open("saga_last_call", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    let mut said = 1;
    for _ in 0..2 {
        desk.publish().await;
        desk.pass(LOOK_S + 0.1).await;
        assert!(desk.sweep().await.is_empty(), "publication seen");
        desk.pass(DEADLINE.as_secs_f64() + 0.1).await;
        assert_eq!(desk.sweep().await.len(), 1);
        said += 1;
        assert_eq!(desk.said(key).await.len(), said);
    }
    assert_eq!(desk.see(key).await.state["acting"]["wait"], "last_call");
    for away_s in [LOOK_S + 0.1, 100.0, 3_600.0] {
        desk.pass(away_s).await;
        assert!(desk.sweep().await.is_empty(), "fired though nothing was published since");
    }
    desk.publish().await;
    desk.pass(60.0).await;
    assert!(desk.sweep().await.is_empty(), "what is published with it gets the time to come");
    assert!(in_about(desk.see(key).await.due_in_ms, 8_000), "all of it, since it was held up for long");
    let next = desk.take(key, done("one")).await;
    assert_eq!(next.effects, [Effect::Command { step: "two", phase: Phase::Act, attempt: 1 }]);
}

#[tokio::test]
async fn what_a_reply_is_moving_is_passed_over() {
    let desk = Desk::open("saga_skip", with_local_pivot()).await;
    let keys = desk.start(3).await;
    desk.publish().await;
    desk.pass(LOOK_S + 0.1).await;
    desk.sweep().await;
    desk.pass(DEADLINE.as_secs_f64() + 0.1).await;
    let mut moving = desk.pool().begin().await.unwrap();
    desk.runner.load(&mut moving, keys[1]).await.unwrap().expect("an instance");
    let mut fired: Vec<_> = desk.sweep().await.iter().map(|advanced| advanced.key).collect();
    fired.sort_unstable();
    let mut free = vec![keys[0], keys[2]];
    free.sort_unstable();
    assert_eq!(fired, free);
    moving.rollback().await.unwrap();
    assert_eq!(desk.sweep().await.len(), 1);
    // A deadline that lost its race is late, like any other input.
    let ended = desk.take(keys[0], Input::reply("one", waybill_saga::Outcome::Done)).await;
    assert!(ended.accepted);
}

#[tokio::test]
async fn a_saga_that_runs_without_delay_is_never_looked_at() {
    let desk = Desk::open("saga_quick", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    let wake = || async {
        sqlx::query_scalar::<_, Option<String>>("select wake_at::text from saga_instances where key = $1")
            .bind(key)
            .fetch_one(desk.pool())
            .await
            .unwrap()
    };
    let first = wake().await;
    for step in ["one", "two", "four"] {
        desk.take(key, done(step)).await;
        assert_eq!(wake().await, first, "the indexed column is left alone");
    }
    desk.take(key, done("five")).await;
    assert_eq!(wake().await, None);
}
