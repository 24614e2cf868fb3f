//! What librdkafka calls: deliveries go to the landing, its log lines to ours.

use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use waybill_runtime::failpoints;

use super::landing::{Failure, Landing, Tag, Weight};

/// The part of librdkafka that tells of a producer's end.
const FATAL: &str = "FATAL";

pub(super) struct Context {
    pub(super) landing: Arc<Landing>,
}

impl ClientContext for Context {
    /// Its lines repeat at every attempt: ours say once what matters, these are for who looks for more. Of a producer's
    /// end, which a refused row means every time it is tried, the landing is told.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            _ if facility == FATAL => tracing::debug!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Asked for: `Producer::notice_end`.
            Some(RDKafkaErrorCode::Fatal) => {}
            // Its text only counts brokers; the one before it says why.
            Some(RDKafkaErrorCode::AllBrokersDown) => self.landing.all_brokers_down(),
            _ => self.landing.trouble(reason),
        }
    }
}

impl ProducerContext for Context {
    /// A packed [`Tag`]: nothing is allocated per row.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, packed: usize) {
        let tag = Tag::unpack(packed);
        match result {
            Ok(_) => {
                self.landing.acknowledged(tag);
                failpoints::reach("acknowledged");
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code();
                let weight = match code {
                    Some(
                        RDKafkaErrorCode::PurgeQueue
                        | RDKafkaErrorCode::PurgeInflight
                        | RDKafkaErrorCode::Fatal,
                    ) => Weight::Purged,
                    _ => Weight::Refused,
                };
                let reason = code.map_or_else(|| error.to_string(), |code| code.to_string());
                let topic = Some(message.topic().to_owned());
                self.landing.fail(weight, Failure { tag: Some(tag), topic, reason });
            }
        }
    }
}
