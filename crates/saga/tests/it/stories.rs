//! Log lines about one saga of a batch carry the ids of its own story.

use std::sync::{Arc, Mutex};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use waybill_messaging::envelope::Cause;
use waybill_runtime::clock::new_id;
use waybill_saga::Input;
use waybill_telemetry::story::Story;
use waybill_telemetry::trace::TraceContext;

use crate::desk::{Desk, done};
use crate::sagas::with_local_pivot;

/// Notes whose story each line of the saga crate tells.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Option<Story>>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("waybill_saga")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        self.0.lock().unwrap().push(Story::current());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_line_about_one_saga_of_many_tells_its_story() {
    let desk = Desk::open("saga_stories", with_local_pivot()).await;
    let key = desk.start(1).await[0];
    let cause = |correlation_id| {
        let trace = Some(TraceContext::new_root());
        Cause { correlation_id, causation_id: Some(new_id()), trace }
    };
    // A reply to what was not asked is ignored, a key that no saga has is dropped: a line each.
    let (ignored, unknown, accepted) = (cause(key), cause(new_id()), cause(key));
    let inputs: Vec<(_, Input, _)> = vec![
        (key, done("two"), ignored.clone()),
        (unknown.correlation_id, done("one"), unknown.clone()),
        (key, done("one"), accepted),
    ];
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(lines.clone());
    let (mut tx, mut out) = (desk.pool().begin().await.unwrap(), Vec::new());
    desk.runner.advance(&mut tx, inputs, &mut out).await.unwrap();
    drop(guard);
    assert_eq!(*lines.0.lock().unwrap(), [Some(ignored.story()), Some(unknown.story())]);
}
