//! The JSON log line: spans remember their fields, an event writes its own and its story's beside them in one flat object.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;

use chrono::{SecondsFormat, Utc};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::story::Story;

/// Fields gathered from a span or an event, by name.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), Value::String(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.0.insert(field.name(), Value::String(text));
    }
}

/// Writes events as JSON lines and remembers span fields for them.
pub(crate) struct JsonLine {
    service: &'static str,
}

impl JsonLine {
    pub(crate) fn new(service: &'static str) -> Self {
        Self { service }
    }

    fn line<S>(&self, event: &Event<'_>, context: &Context<'_, S>) -> Vec<u8>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut all = serde_json::Map::new();
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        all.insert("timestamp".to_owned(), now.into());
        all.insert("level".to_owned(), event.metadata().level().as_str().into());
        all.insert("service".to_owned(), self.service.into());
        all.insert("target".to_owned(), event.metadata().target().into());
        // Root first, so that an inner span's field wins over an outer one's of the same name.
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                all.extend(fields.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            }
        }
        let story = Story::current().into_iter().flat_map(Story::fields);
        all.extend(story.map(|(name, value)| (name.to_owned(), value.into())));
        let mut own = Fields::default();
        event.record(&mut own);
        all.extend(own.0.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut line = Value::Object(all).to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

impl<S> Layer<S> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        remember(attributes, id, &context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        add(id, values, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let line = self.line(event, &context);
        // Standard output is gone when the reader is: there is nobody left to tell.
        let _unread = std::io::stdout().lock().write_all(&line);
    }
}

fn remember<S>(attributes: &Attributes<'_>, id: &Id, context: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut fields = Fields::default();
    attributes.record(&mut fields);
    if let Some(span) = context.span(id) {
        span.extensions_mut().replace(fields);
    }
}

fn add<S>(id: &Id, values: &Record<'_>, context: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if let Some(span) = context.span(id)
        && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
    {
        values.record(fields);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;
    use uuid::Uuid;

    use super::*;
    use crate::trace::TraceContext;

    /// Keeps the lines instead of printing them.
    struct Kept {
        inner: JsonLine,
        lines: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl<S> Layer<S> for Kept
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
            remember(attributes, id, &context);
        }

        fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
            add(id, values, &context);
        }

        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            self.lines.lock().unwrap().push(self.inner.line(event, &context));
        }
    }

    /// The lines that `work` logs.
    fn lines_of(work: impl FnOnce()) -> Vec<Vec<u8>> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Kept { inner: JsonLine::new("orders"), lines: lines.clone() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(kept), work);
        std::mem::take(&mut lines.lock().unwrap())
    }

    #[test]
    fn lines_of_a_batch_carry_the_ids_of_their_own_message() {
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let trace = TraceContext::new_root();
        let lines = lines_of(|| {
            let _batch = tracing::info_span!("batch", group = "orders", trace_id = "of the batch").entered();
            Story::new(first, Some(&trace), Some(second)).tell(|| tracing::warn!("the first"));
            Story::new(second, None, None).tell(|| tracing::warn!(correlation_id = "own", "the second"));
            tracing::warn!("the batch");
        });
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
        assert_eq!(lines[0]["correlation_id"], first.to_string());
        assert_eq!(lines[0]["message_id"], second.to_string());
        assert_eq!(lines[0]["trace_id"], trace.trace_id_hex(), "before the span's");
        assert_eq!(lines[1]["correlation_id"], "own", "an event's own field is the last word");
        assert_eq!(lines[1]["trace_id"], "of the batch", "a story without a trace hides none");
        assert!(lines.iter().all(|line| line["group"] == "orders"));
        assert_eq!(lines[2].get("correlation_id"), None);
    }

    #[test]
    fn a_line_carries_the_ids_of_its_spans_and_stays_one_object() {
        let mut lines = lines_of(|| {
            let outer = tracing::info_span!("request", trace_id = "abc", order_id = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("order_id", "o1");
            let _inner = tracing::info_span!("command", correlation_id = "c1").entered();
            tracing::warn!(attempts = 3, retried = true, "line\nbroken");
        });
        let line = lines.remove(0);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        let line: Value = serde_json::from_slice(&line).unwrap();
        for (name, value) in [
            ("level", "WARN".into()),
            ("service", "orders".into()),
            ("trace_id", "abc".into()),
            ("order_id", "o1".into()),
            ("correlation_id", "c1".into()),
            ("message", "line\nbroken".into()),
            ("attempts", Value::from(3)),
            ("retried", Value::from(true)),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
    }
}
