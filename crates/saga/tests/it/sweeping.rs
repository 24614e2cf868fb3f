//! The sweeper's loop: what is due moves with the owner's effects; one instance that can not be moved stops no other.

use std::sync::Mutex;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use uuid::Uuid;
use waybill_messaging::message::Message;
use waybill_runtime::lifecycle::Shutdown;
use waybill_saga::Advanced;
use waybill_saga::sweeper::{self, Apply, SweepError, Swept};
use waybill_testkit::eventually;

use crate::desk::Desk;
use crate::sagas::{DEADLINE, Parcel, with_local_pivot};

/// An owner that remembers what it was shown, and can do nothing for one key.
struct Owner {
    shown: Mutex<Vec<Uuid>>,
    unable: Uuid,
}

impl Apply<Parcel> for Owner {
    async fn apply(
        &self,
        _: &mut PgConnection,
        advanced: &[Advanced<Parcel>],
        _: &mut Vec<Message>,
    ) -> Result<(), SweepError> {
        if advanced.iter().any(|advanced| advanced.key == self.unable) {
            return Err(SweepError::Fault("planted".to_owned()));
        }
        self.shown.lock().unwrap().extend(advanced.iter().map(|advanced| advanced.key));
        Ok(())
    }
}

/// A service spawns the sweeper: its future has to be `Send`.
fn spawnable<F: Future + Send>(future: F) -> F {
    future
}

#[tokio::test]
async fn one_that_can_not_be_moved_is_left_alone_and_the_others_move() {
    let desk = Desk::open("saga_sweeper", with_local_pivot()).await;
    let keys = desk.start(5).await;
    sqlx::query("update saga_instances set state = '{\"acting\":{\"step\":\"gone\",\"attempt\":1,\"wait\":\"reply\"}}' where key = $1")
        .bind(keys[0])
        .execute(desk.pool())
        .await
        .unwrap();
    desk.publish().await;
    desk.pass(2.1).await;
    assert!(desk.sweep().await.is_empty(), "publication seen");
    desk.pass(DEADLINE.as_secs_f64() + 0.1).await;

    let owner = Owner { shown: Mutex::default(), unable: keys[1] };
    let shutdown = Shutdown::manual();
    let sweeping = spawnable(sweeper::run(desk.pool().clone(), &desk.runner, "p.", &owner, shutdown.clone()));
    let watching = async {
        eventually(Duration::from_secs(60), async || (owner.shown.lock().unwrap().len() == 3).then_some(()))
            .await;
        shutdown.request();
    };
    tokio::join!(sweeping, watching);
    let mut shown = owner.shown.into_inner().unwrap();
    shown.sort_unstable();
    let mut able = keys[2..].to_vec();
    able.sort_unstable();
    assert_eq!(shown, able);
    assert_eq!(desk.said(keys[2]).await, ["a.commands DoOne 1", "p.a.commands DoOne 2"]);
    for key in &keys[..2] {
        let seen = desk.see(*key).await;
        assert_eq!((seen.revision, seen.wakes), (1, true));
        assert_eq!(desk.said(*key).await, ["a.commands DoOne 1"]);
    }
    assert_eq!(desk.sweep().await.len(), 0, "left alone for a while");
}

/// A sweep that only pushes on what waits for the relay has looked at as many as it may: the loop does not pause behind it.
#[tokio::test]
async fn a_sweep_in_which_nothing_fires_tells_that_there_may_be_more() {
    let desk = Desk::open("saga_sweeper_gated", with_local_pivot()).await;
    let due = desk.start(1).await[0];
    desk.publish().await;
    desk.pass(2.1).await;
    assert!(desk.sweep().await.is_empty(), "publication seen");
    desk.start(200).await;
    // The many that are not published come up first.
    desk.pass(DEADLINE.as_secs_f64() + 0.1).await;
    let first = "update saga_instances set wake_at = wake_at - interval '1 hour' where key <> $1";
    sqlx::query(first).bind(due).execute(desk.pool()).await.unwrap();
    let owner = Owner { shown: Mutex::default(), unable: Uuid::nil() };
    let sweep = async || sweeper::sweep(desk.pool(), &desk.runner, "", &owner, None).await.unwrap();
    assert_eq!(sweep().await, Swept { looked_at: 200, fired: 0 });
    assert_eq!(sweep().await, Swept { looked_at: 1, fired: 1 });
    assert_eq!(*owner.shown.lock().unwrap(), [due]);
}

/// Most looks are short ones; what lies further back is found by the loop all the same.
#[tokio::test]
async fn what_comes_up_late_and_far_back_is_found_by_the_next_whole_sweep() {
    let desk = Desk::open("saga_sweeper_late", with_local_pivot()).await;
    let keys = desk.start(3).await;
    desk.publish().await;
    desk.pass(2.1).await;
    assert!(desk.sweep().await.is_empty(), "publication seen");
    desk.pass(DEADLINE.as_secs_f64() + 0.1).await;
    // Out of the sweeper's sight, as an instance is that others hold locked.
    let set_wake = async |key: Uuid, ahead: &str| {
        let wake = "update saga_instances set wake_at = now() + $2::text::interval where key = $1";
        sqlx::query(wake).bind(key).bind(ahead).execute(desk.pool()).await.unwrap();
    };
    set_wake(keys[0], "-1 hour").await;
    set_wake(keys[1], "1 hour").await;
    set_wake(keys[2], "-1 second").await;

    let owner = Owner { shown: Mutex::default(), unable: Uuid::nil() };
    let short = Some(Duration::from_secs(60));
    let swept = sweeper::sweep(desk.pool(), &desk.runner, "", &owner, short).await.unwrap();
    assert_eq!(swept, Swept { looked_at: 1, fired: 1 });
    assert_eq!(*owner.shown.lock().unwrap(), [keys[2]]);

    let fired = async |key: Uuid| {
        let seen = || owner.shown.lock().unwrap().contains(&key).then_some(());
        eventually(Duration::from_secs(60), async || seen()).await;
    };
    let shutdown = Shutdown::manual();
    let watching = async {
        fired(keys[0]).await;
        set_wake(keys[1], "-1 hour").await;
        fired(keys[1]).await;
        shutdown.request();
    };
    tokio::join!(sweeper::run(desk.pool().clone(), &desk.runner, "", &owner, shutdown.clone()), watching);
}
