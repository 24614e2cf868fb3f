//! How many statements an order costs: counted, because it is promised.

use std::cell::RefCell;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::participants::Say;
use crate::world::World;

thread_local! {
    /// The statements of a test that listens: its runtime has one thread, so all that it does is heard, and no more.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Listens to sqlx's log of statements, for the whole process: which threads are heard is decided per statement.
struct Statements;

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            event.record(&mut Summary);
        }
    }
}

struct Summary;

impl Visit for Summary {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            HEARD.with_borrow_mut(|heard| heard.iter_mut().for_each(|heard| heard.push(value.to_owned())));
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}

/// Begins to listen, or forgets what was heard.
fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Statements);
        tracing::subscriber::set_global_default(subscriber).expect("no other test listens");
    });
    HEARD.set(Some(Vec::new()));
}

/// What a pool sends before it hands out a connection for a transaction.
const GUARD: &str = "begin; rollback";

/// The statements since [`listen`]; the pool's guard is none of ours.
fn heard() -> Vec<String> {
    round_trips().into_iter().filter(|statement| statement != GUARD).collect()
}

/// The same, with the guard.
fn round_trips() -> Vec<String> {
    HEARD.take().unwrap_or_default()
}

#[tokio::test]
async fn an_order_is_placed_in_one_and_in_two_when_its_prices_are_not_known() {
    let world = World::new("trips_place").await;
    for statements in [2, 1] {
        listen();
        world.place().await;
        let placed = heard();
        assert_eq!(placed.len(), statements, "{placed:#?}");
    }
}

/// No guard, no begin, no commit: each is one statement on a pool that offers nothing else.
#[tokio::test]
async fn an_order_whose_prices_are_known_and_a_read_cost_one_round_trip() {
    let world = World::new("trips_guard").await;
    let order = world.place().await;
    listen();
    world.place().await;
    let placed = round_trips();
    assert_eq!(placed.len(), 1, "{placed:#?}");
    for path in [format!("/orders/{order}"), "/orders".to_owned()] {
        listen();
        world.get(&path).await;
        let read = round_trips();
        assert_eq!(read.len(), 1, "{read:#?}");
    }
    listen();
    world.cancel(order).await;
    assert!(round_trips().iter().any(|statement| statement == GUARD), "a transaction has its guard");
}

#[tokio::test]
async fn a_batch_of_replies_takes_the_same_few_whatever_its_size() {
    let world = World::new("trips_batch").await;
    let mut counts = Vec::new();
    for orders in [1, 25] {
        let mut placed = Vec::new();
        for _ in 0..orders {
            placed.push(world.place().await);
        }
        let mut count = Vec::new();
        for say in [Say::Reserved, Say::Authorized, Say::Captured, Say::Committed] {
            let replies: Vec<_> = placed.iter().map(|order| say.of(*order)).collect();
            listen();
            world.hear(&replies).await;
            count.push(heard().len());
        }
        counts.push(count);
    }
    assert_eq!(counts[0], counts[1], "set-wise");
    // Inbox, two for the saga, append, commit (begin is not in the log). The pivot also locks and saves the orders,
    // the end only looks whether they are being cancelled.
    assert_eq!(counts[0], [5, 7, 5, 6]);
}
