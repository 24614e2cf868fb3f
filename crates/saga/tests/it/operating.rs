//! Stuck sagas mended by each verb, what refuses a verb, lists, and what is deleted after its time.

use std::time::Duration;

use uuid::Uuid;
use waybill_outbox::append::append;
use waybill_outbox::operate::{Change, PageRequest, Reason};
use waybill_runtime::clock::new_id;
use waybill_runtime::pool;
use waybill_saga::operate::{self, OperateError, SagaFilter};
use waybill_saga::retention::{self, Retention};
use waybill_saga::{Advanced, Effect, Ending, Input, Outcome, Phase, Status, Verb};
use waybill_testkit::TcpSwitch;

use crate::desk::{Desk, done};
use crate::sagas::{Parcel, with_local_pivot};

fn failed(step: &'static str) -> Input {
    Input::reply(step, Outcome::Failed { reason: "broken".to_owned() })
}

/// As many sagas, stuck at a step after the pivot.
async fn stuck(desk: &Desk, count: usize) -> Vec<Uuid> {
    let keys = desk.start(count).await;
    for key in &keys {
        for input in [done("one"), done("two"), failed("four")] {
            desk.take(*key, input).await;
        }
    }
    desk.pass(1.0).await;
    assert_eq!(desk.sweep().await.len(), count);
    for key in &keys {
        assert_eq!(desk.take(*key, failed("four")).await.status, Status::Stuck);
    }
    keys
}

async fn mend(desk: &Desk, key: Uuid, verb: Verb) -> Result<Advanced<Parcel>, OperateError> {
    let change = Change::new("op", "the carrier was called", None).unwrap();
    let (mut tx, mut out) = (desk.pool().begin().await.unwrap(), Vec::new());
    let advanced = operate::operate(&desk.runner, &mut tx, key, verb, &change, &mut out).await?;
    append(&mut tx, "", &out).await.unwrap();
    tx.commit().await.unwrap();
    Ok(advanced)
}

async fn audited(desk: &Desk) -> Vec<(String, String, String)> {
    sqlx::query_as("select action, target, outcome from operator_audit order by id")
        .fetch_all(desk.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn each_verb_mends_a_stuck_saga_and_is_audited() {
    let desk = Desk::open("saga_operate", with_local_pivot()).await;
    let keys = stuck(&desk, 3).await;
    let view = operate::show(desk.pool(), "parcel", keys[0]).await.unwrap();
    let saga = &view.saga;
    assert_eq!(
        (saga.status, saga.step.as_deref(), saga.phase),
        (Status::Stuck, Some("four"), Some(Phase::Act))
    );
    assert_eq!((saga.stuck_why.as_deref(), saga.attempts), (Some("broken"), None));
    assert_eq!(view.log.len(), desk.log(keys[0]).await.len());

    let again = mend(&desk, keys[0], Verb::Retry).await.unwrap();
    assert_eq!(again.effects, [Effect::Command { step: "four", phase: Phase::Act, attempt: 1 }]);
    desk.take(keys[0], done("four")).await;
    assert_eq!(desk.take(keys[0], done("five")).await.status, Status::Completed);

    let skipped = mend(&desk, keys[1], Verb::Skip).await.unwrap();
    assert_eq!(skipped.effects, [Effect::Command { step: "five", phase: Phase::Act, attempt: 1 }]);
    assert_eq!(desk.take(keys[1], done("five")).await.status, Status::Completed);

    let given_up = mend(&desk, keys[2], Verb::Abandon).await.unwrap();
    assert_eq!(given_up.effects, [Effect::Finished(Ending::Abandoned)]);
    assert!(!desk.take(keys[2], done("four")).await.accepted, "a late reply changes nothing");

    let rows = audited(&desk).await;
    let wanted = [("retry", 0, "running"), ("skip", 1, "running"), ("abandon", 2, "abandoned")];
    let wanted = wanted.map(|(verb, place, outcome)| {
        (format!("sagas.{verb}"), format!("parcel/{}", keys[place]), outcome.to_owned())
    });
    assert_eq!(rows, wanted);
}

#[tokio::test]
async fn a_verb_in_the_wrong_state_changes_nothing() {
    let desk = Desk::open("saga_operate_state", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    let before = desk.see(key).await.revision;
    for verb in [Verb::Retry, Verb::Skip] {
        let error = mend(&desk, key, verb).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Conflict, "{error}");
        assert!(error.to_string().contains("is running, not stuck"), "{error}");
    }
    assert_eq!((desk.see(key).await.revision, desk.log(key).await.len()), (before, 1));
    assert_eq!(mend(&desk, new_id(), Verb::Retry).await.unwrap_err().reason(), Reason::NotFound);
    assert_eq!(mend(&desk, key, Verb::Abandon).await.unwrap().status, Status::Abandoned, "a live one too");
    assert_eq!(mend(&desk, key, Verb::Abandon).await.unwrap_err().reason(), Reason::Conflict, "it has ended");
    assert_eq!(audited(&desk).await.len(), 1);
}

#[tokio::test]
async fn sagas_are_listed_in_pages_by_state() {
    let desk = Desk::open("saga_list", with_local_pivot()).await;
    let mut running = desk.start(5).await;
    running.sort_unstable();
    mend(&desk, running[4], Verb::Abandon).await.unwrap();
    let page = |cursor| PageRequest { limit: 3, cursor };
    let live = SagaFilter { state: Some(Status::Running), ..SagaFilter::default() };
    let first = operate::list(desk.pool(), &live, &page(None)).await.unwrap();
    let second = operate::list(desk.pool(), &live, &page(first.next_cursor)).await.unwrap();
    let keys = |items: Vec<operate::SagaView>| items.into_iter().map(|saga| saga.key).collect::<Vec<_>>();
    assert_eq!(second.next_cursor, None);
    assert_eq!([keys(first.items), keys(second.items)].concat(), running[..4]);
    let all = operate::list(desk.pool(), &SagaFilter::default(), &PageRequest::default()).await.unwrap();
    assert_eq!(keys(all.items), running);
    let stuck = SagaFilter { state: Some(Status::Stuck), ..SagaFilter::default() };
    assert!(operate::list(desk.pool(), &stuck, &page(None)).await.unwrap().items.is_empty());
    let one = SagaFilter { name: Some("parcel".to_owned()), key: Some(running[2]), state: None };
    assert_eq!(keys(operate::list(desk.pool(), &one, &page(None)).await.unwrap().items), [running[2]]);
    let wrong = operate::list(desk.pool(), &one, &page(Some("?".to_owned()))).await.unwrap_err();
    assert_eq!(wrong.reason(), Reason::Invalid);
}

#[tokio::test]
async fn ended_sagas_go_after_their_time_and_no_live_one() {
    let desk = Desk::open("saga_retention", with_local_pivot()).await;
    let stuck = stuck(&desk, 1).await[0];
    let (running, old, young) = (desk.start(1).await[0], desk.start(1).await[0], desk.start(1).await[0]);
    for key in [old, young] {
        mend(&desk, key, Verb::Abandon).await.unwrap();
    }
    sqlx::query("update saga_instances set created_at = now() - interval '9 days', updated_at = now() - interval '8 days' where key <> $1")
        .bind(young)
        .execute(desk.pool())
        .await
        .unwrap();
    let days = |days: u64| Retention(Duration::from_secs(days * 86_400));
    assert_eq!(retention::prune(desk.pool(), days(10)).await.unwrap(), 0);
    assert_eq!(retention::prune(desk.pool(), days(7)).await.unwrap(), 1);
    assert!(desk.log(old).await.is_empty());
    for key in [stuck, running, young] {
        assert!(!desk.see(key).await.status.is_empty());
        assert!(!desk.log(key).await.is_empty());
    }
}

/// Until when ended sagas may be missing, in whole days before now; `None` before anything was pruned.
async fn horizon_days(desk: &Desk) -> Option<i32> {
    let horizon = "select round(extract(epoch from now() - ended_before) / 86400)::int from saga_horizon";
    sqlx::query_scalar(horizon).fetch_optional(desk.pool()).await.unwrap()
}

#[tokio::test]
async fn the_sagas_of_a_key_go_together_and_the_horizon_tells_up_to_when() {
    let desk = Desk::open("saga_horizon", with_local_pivot()).await;
    let [followed, alone] = desk.start(2).await[..] else { panic!("two") };
    for key in [followed, alone] {
        mend(&desk, key, Verb::Abandon).await.unwrap();
    }
    // A second saga of the first key, of another name, that is still at work.
    let follows =
        "insert into saga_instances (saga, key, version, status, state, data, sequences, correlation_id)
                   select 'return', key, version, 'stuck', state, data, sequences, correlation_id
                   from saga_instances where key = $1";
    sqlx::query(follows).bind(followed).execute(desk.pool()).await.unwrap();
    let older = "update saga_instances set created_at = created_at - interval '9 days', updated_at = updated_at - interval '8 days'";
    sqlx::query(older).execute(desk.pool()).await.unwrap();
    assert_eq!(horizon_days(&desk).await, None);
    let days = |days: u64| Retention(Duration::from_secs(days * 86_400));

    assert_eq!(retention::prune(desk.pool(), days(7)).await.unwrap(), 1);
    assert_eq!((desk.log(alone).await.len(), horizon_days(&desk).await), (0, Some(7)));
    assert!(!desk.log(followed).await.is_empty(), "its saga is kept while the one that follows lives");

    // Ended, but not long enough ago: still both; the horizon does not go back.
    let ends = "update saga_instances set status = 'completed', updated_at = now() where saga = 'return'";
    sqlx::query(ends).execute(desk.pool()).await.unwrap();
    assert_eq!(retention::prune(desk.pool(), days(8)).await.unwrap(), 0);
    assert_eq!(horizon_days(&desk).await, Some(7));
    sqlx::query(older).execute(desk.pool()).await.unwrap();
    assert_eq!(retention::prune(desk.pool(), days(7)).await.unwrap(), 2);
}

#[tokio::test]
async fn retention_gives_up_a_database_that_fell_silent() {
    let desk = Desk::open("saga_retention_silent", with_local_pivot()).await;
    let (switch, through) = TcpSwitch::in_front_of(&desk.database.url).await;
    let mut other = desk.pool().begin().await.unwrap();
    sqlx::query("lock table saga_horizon").execute(&mut *other).await.unwrap();
    let pool = pool::connect(&through, 1, "saga-test").unwrap();
    let pruning = tokio::spawn(async move { retention::prune(&pool, Retention::default()).await });
    desk.database.locks_waited_for(1).await;
    switch.fall_silent();
    assert!(pool::is_transient(&pruning.await.unwrap().unwrap_err()));
}
