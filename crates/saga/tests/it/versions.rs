//! A changed saga is deployed over running ones: each ends on the version it began with, an unknown version is named.

use waybill_messaging::message::Message;
use waybill_runtime::clock::new_id;
use waybill_saga::{Effect, Input, Outcome, Phase, Runner, SagaError, Sequences, Status};

use crate::desk::{Desk, cause, done};
use crate::sagas::{DEADLINE, second_version, with_local_pivot};

#[tokio::test]
async fn instances_end_on_the_version_they_began_with() {
    let mut desk = Desk::open("saga_versions", with_local_pivot()).await;
    let old = desk.start(1).await[0];
    desk.runner = Runner::new("/test/parcels", vec![second_version(), with_local_pivot()]);
    let new = desk.start(1).await[0];
    let four = Effect::Command { step: "two", phase: Phase::Act, attempt: 1 };
    assert_eq!(desk.take(old, done("one")).await.effects, [four]);
    let five = Effect::Command { step: "five", phase: Phase::Act, attempt: 1 };
    assert_eq!(desk.take(new, done("one")).await.effects, [Effect::Local { step: "pivot" }, five]);
    for step in ["two", "four"] {
        desk.take(old, done(step)).await;
    }
    let ended = desk.try_take(vec![(old, done("five")), (new, done("five"))]).await.unwrap();
    assert!(ended.iter().all(|advanced| advanced.status == Status::Completed));

    desk.runner = Runner::new("/test/parcels", vec![second_version(), with_local_pivot()]).starting(1);
    let held_back = desk.start(1).await[0];
    assert_eq!(
        desk.take(held_back, done("one")).await.effects[0],
        Effect::Command { step: "two", phase: Phase::Act, attempt: 1 }
    );
}

/// Instances of the first version in every kind of wait, when a process that also knows the second takes over: deadlines,
/// replies and operators find them on the version they began with.
#[tokio::test]
async fn old_instances_on_their_way_back_backing_off_and_stuck_go_on_under_a_newer_runner() {
    let mut desk = Desk::open("saga_versions_waiting", with_local_pivot()).await;
    let past = DEADLINE.as_secs_f64() + 1.0;
    let fails = || Input::reply("four", Outcome::Failed { reason: "broken".to_owned() });
    let stuck = desk.start(1).await[0];
    for input in [done("one"), done("two"), fails()] {
        desk.take(stuck, input).await;
    }
    desk.pass(past).await;
    assert_eq!(desk.sweep().await.len(), 1, "its second attempt, which fails too");
    desk.take(stuck, fails()).await;
    let [back, backing_off] = desk.start(2).await[..] else { panic!("two") };
    desk.take(back, done("one")).await;
    desk.take(back, Input::reply("two", Outcome::Refused { reason: "none".to_owned() })).await;
    for input in [done("one"), done("two"), fails()] {
        desk.take(backing_off, input).await;
    }
    let statuses = [desk.see(back).await, desk.see(backing_off).await, desk.see(stuck).await];
    assert_eq!(statuses.map(|seen| seen.status), ["compensating", "running", "stuck"]);

    desk.runner = Runner::new("/test/parcels", vec![second_version(), with_local_pivot()]);
    desk.publish().await;
    desk.pass(past).await;
    // Of the one that goes back the command is only now seen to be published; the back-off is over at once.
    let again = Effect::Command { step: "four", phase: Phase::Act, attempt: 2 };
    let fired = desk.sweep().await;
    assert_eq!((fired.len(), fired[0].key, &fired[0].effects[..]), (1, backing_off, &[again][..]));
    desk.pass(past).await;
    let fired = desk.sweep().await;
    let fired: Vec<_> = fired.iter().filter(|advanced| advanced.key == back).collect();
    let back_again = Effect::Command { step: "one", phase: Phase::Compensate, attempt: 2 };
    assert_eq!(
        fired[0].effects,
        [back_again],
        "the step that the second version does not have was never done"
    );

    assert_eq!(desk.take(back, Input::compensated("one", Outcome::Done)).await.status, Status::Compensated);
    for key in [backing_off, stuck] {
        desk.take(key, done("four")).await;
        assert_eq!(desk.take(key, done("five")).await.status, Status::Completed);
    }
}

#[tokio::test]
async fn an_unknown_version_is_an_error_that_names_it_and_is_not_swept() {
    let mut desk = Desk::open("saga_unknown_version", with_local_pivot()).await;
    let [key, other] = desk.start(2).await[..] else { panic!("two") };
    desk.runner = Runner::new("/test/parcels", vec![second_version()]);
    let new = desk.start(1).await[0];
    let inputs = [other, new, key].map(|key| (key, done("one")));
    let error = desk.try_take(inputs.to_vec()).await.unwrap_err();
    let mut unknown = vec![key, other];
    unknown.sort_unstable();
    assert!(
        matches!(&error, SagaError::UnknownVersion { version: 1, known, keys, .. }
                     if *known == [2] && *keys == unknown),
        "each of them, and no other: {error}"
    );
    let text = error.to_string();
    assert!(text.contains("version 1") && text.contains("[2]") && text.contains(&key.to_string()), "{text}");
    assert_eq!(desk.see(key).await.revision, 1);
    desk.publish().await;
    desk.pass(10_000.0).await;
    assert!(desk.sweep().await.is_empty());
}

#[tokio::test]
async fn a_second_saga_of_a_key_goes_on_counting() {
    let desk = Desk::open("saga_second", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    for step in ["one", "two", "four", "five"] {
        desk.take(key, done(step)).await;
    }
    let mut tx = desk.pool().begin().await.unwrap();
    let first = desk.runner.load(&mut tx, key).await.unwrap().expect("the first saga");
    let after = waybill_saga::Definition::named("return-parcel", 1)
        .without_pivot()
        .retriable(waybill_saga::Step::command(
            "fetch",
            |p: &crate::sagas::Parcel| {
                let (topic, key) = ("a.commands", p.id.to_string());
                Ok(waybill_messaging::message::Draft { topic, key, kind: "Fetch", payload: Vec::new() })
            },
            std::time::Duration::from_secs(1),
            5,
        ))
        .build();
    let second = Runner::new("/test/parcels", vec![after]);
    let now = chrono::Utc::now();
    let started = second.start(key, &first.data, &cause(key), first.sequences, now).unwrap();
    let numbers = |messages: &[Message]| messages.iter().map(|m| m.envelope.sequence).collect::<Vec<_>>();
    assert_eq!(numbers(&started.messages), [3], "DoOne, DoFive, Fetch");
    second.start_in_tx(&mut tx, &[started]).await.unwrap();
    tx.commit().await.unwrap();
    assert!(desk.runner.load(&mut desk.pool().acquire().await.unwrap(), new_id()).await.unwrap().is_none());
    assert_eq!(Sequences::default().last("a.commands"), 0);
}
