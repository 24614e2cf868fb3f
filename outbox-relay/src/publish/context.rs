//! What librdkafka calls: deliveries go to the landing, its log lines to ours.

use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use waybill_runtime::failpoints;

use super::landing::{Failure, Landing, Tag};

pub(super) struct Context {
    pub(super) landing: Arc<Landing>,
}

impl ClientContext for Context {
    /// Its lines repeat at every attempt to connect: ours say once what matters, these are for who looks for more.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.landing.fail(Failure {
                tag: None,
                topic: None,
                reason: format!("the producer can not go on: {reason}"),
            }),
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
                let reason =
                    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
                self.landing.fail(Failure {
                    tag: Some(tag),
                    topic: Some(message.topic().to_owned()),
                    reason,
                });
            }
        }
    }
}
