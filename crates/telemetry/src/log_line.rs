//! The JSON log line: spans remember their fields, an event writes its own and its story's beside them in one flat object.

use std::fmt;
use std::io::Write as _;

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::story::Story;

/// Bytes of a usual line.
const LINE_BYTES: usize = 512;

/// Fields gathered from a span or an event: names, and values as JSON. There are a few: looked through, not hashed.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn set(&mut self, field: &Field, value: &(impl Serialize + ?Sized)) {
        // Texts and numbers can always be written.
        let Ok(json) = serde_json::to_string(value) else { return };
        match self.0.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, known)) => *known = json,
            None => self.0.push((field.name(), json)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, &value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.set(field, &text);
    }
}

/// A line being written. Who comes first with a name has it.
struct Line {
    json: String,
    names: Vec<&'static str>,
}

impl Line {
    fn new() -> Self {
        let mut json = String::with_capacity(LINE_BYTES);
        json.push('{');
        Self { json, names: Vec::with_capacity(16) }
    }

    /// A field whose value is JSON already. Names are those of the program's own code: they need no escape.
    fn put(&mut self, name: &'static str, json: &str) {
        if self.names.contains(&name) {
            return;
        }
        if !self.names.is_empty() {
            self.json.push(',');
        }
        self.names.push(name);
        self.json.extend(["\"", name, "\":", json]);
    }

    /// A field whose value needs no escape either.
    fn put_plain(&mut self, name: &'static str, text: &str) {
        self.put(name, &["\"", text, "\""].concat());
    }

    fn put_all(&mut self, fields: &Fields) {
        fields.0.iter().for_each(|(name, json)| self.put(name, json));
    }

    fn end(mut self) -> Vec<u8> {
        self.json.push_str("}\n");
        self.json.into_bytes()
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
        let mut line = Line::new();
        line.put_plain("timestamp", &Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true));
        line.put_plain("level", event.metadata().level().as_str());
        line.put_plain("service", self.service);
        line.put_plain("target", event.metadata().target());
        // An event's own field is the last word, then its story's, then those of its spans, the innermost first.
        let mut own = Fields::default();
        event.record(&mut own);
        line.put_all(&own);
        if let Some(story) = Story::current() {
            story.fields().for_each(|(name, value)| line.put_plain(name, &value));
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.put_all(fields);
            }
        }
        line.end()
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

    use serde_json::Value;
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
            tracing::warn!(attempts = 3, retried = true, share = f64::NAN, quoted = "\"", "line\nbroken");
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
            ("share", Value::Null),
            ("quoted", "\"".into()),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
    }
}
