//! Spans and lines of handled messages, each with its story's ids.

use waybill_messaging::envelope::Envelope;

use super::incoming::Item;

pub(crate) fn batch_span<M>(group: &str, items: &[Item<'_, M>]) -> tracing::Span {
    match items {
        // A batch of one has one story; its lines tell which.
        [Item { delivery: Some(delivery), .. }] => message_span(&delivery.envelope),
        items => tracing::info_span!("batch", group, messages = items.len()),
    }
}

fn message_span(envelope: &Envelope) -> tracing::Span {
    tracing::info_span!(
        "message",
        trace_id = trace_id(envelope),
        correlation_id = %envelope.cause.correlation_id,
        message_id = %envelope.id,
        kind = envelope.kind,
        key = envelope.subject,
    )
}

pub(crate) fn log_handled(envelope: &Envelope) {
    tracing::debug!(
        trace_id = trace_id(envelope),
        correlation_id = %envelope.cause.correlation_id,
        message_id = %envelope.id,
        kind = envelope.kind,
        key = envelope.subject,
        sequence = envelope.sequence,
        "handled"
    );
}

fn trace_id(envelope: &Envelope) -> String {
    envelope.cause.trace.as_ref().map(|trace| trace.trace_id_hex()).unwrap_or_default()
}
