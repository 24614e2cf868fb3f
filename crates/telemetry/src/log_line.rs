//! The JSON log line: spans remember their fields, an event writes its own beside them in one flat object.

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

    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

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

    #[test]
    fn a_line_carries_the_ids_of_its_spans_and_stays_one_object() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Kept { inner: JsonLine::new("orders"), lines: lines.clone() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(kept), || {
            let outer = tracing::info_span!("request", trace_id = "abc", order_id = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("order_id", "o1");
            let _inner = tracing::info_span!("command", correlation_id = "c1").entered();
            tracing::warn!(attempts = 3, retried = true, "line\nbroken");
        });
        let line = lines.lock().unwrap().remove(0);
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
