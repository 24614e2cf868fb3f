//! How many statements an order costs: counted, because it is promised.

use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::participants::Say;
use crate::world::World;

/// Listens to sqlx's log of statements on this thread: with the runtime of one thread, on everything a test does.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            event.record(&mut Summary(&self.0));
        }
    }
}

struct Summary<'a>(&'a Mutex<Vec<String>>);

impl Visit for Summary<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            self.0.lock().unwrap().push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}

impl Statements {
    fn listen(&self) -> DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    /// The statements since the last call, without the pool's guard.
    fn take(&self) -> Vec<String> {
        let mut taken = std::mem::take(&mut *self.0.lock().unwrap());
        taken.retain(|statement| statement != "begin; rollback");
        taken
    }
}

#[tokio::test]
async fn an_order_is_placed_in_two() {
    let statements = Statements::default();
    let _listening = statements.listen();
    let world = World::new("trips_place").await;
    statements.take();
    world.place().await;
    let placed = statements.take();
    assert_eq!(placed.len(), 2, "{placed:#?}");
}

#[tokio::test]
async fn a_batch_of_replies_takes_the_same_few_whatever_its_size() {
    let statements = Statements::default();
    let _listening = statements.listen();
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
            statements.take();
            world.hear(&replies).await;
            count.push(statements.take().len());
        }
        counts.push(count);
    }
    assert_eq!(counts[0], counts[1], "set-wise");
    // Inbox, three for the saga, append, commit (begin is not in the log). The pivot also locks and saves the orders,
    // the end only looks whether they are being cancelled.
    assert_eq!(counts[0], [6, 8, 6, 7]);
}
