//! A changed saga is deployed over running ones: each ends on the version it began with, an unknown version is named.

use waybill_messaging::message::Message;
use waybill_runtime::clock::new_id;
use waybill_saga::{Effect, Phase, Runner, SagaError, Sequences, Status};

use crate::desk::{Desk, cause, done};
use crate::sagas::{second_version, with_local_pivot};

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

#[tokio::test]
async fn an_unknown_version_is_an_error_that_names_it_and_is_not_swept() {
    let mut desk = Desk::open("saga_unknown_version", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    desk.runner = Runner::new("/test/parcels", vec![second_version()]);
    let error = desk.try_take(vec![(key, done("one"))]).await.unwrap_err();
    assert!(matches!(&error, SagaError::UnknownVersion { version: 1, known, .. } if *known == [2]));
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
