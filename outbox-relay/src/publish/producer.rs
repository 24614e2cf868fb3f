//! A threaded librdkafka producer, told to keep order and to give nothing up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};
use tokio::task::JoinHandle;

use super::context::Context;
use super::headers::headers;
use super::landing::{Failure, Landing, Tag, Weight};
use super::partitions::Partitions;
use crate::store::{Row, StoreError};

/// How long a question about a topic or the cluster may take; asked on a thread of its own.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How the reason of a producer's end begins that no row explains.
pub(crate) const PRODUCER_ENDED: &str = "the producer can not go on";

/// Why a row could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// librdkafka does not accept the settings.
    #[error("the Kafka settings are not accepted")]
    Settings(#[source] KafkaError),
    /// librdkafka does not take the row.
    #[error("row {id} can not be handed to Kafka")]
    Refused {
        /// The row's id.
        id: i64,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// The row is not what the table promises.
    #[error("row {id} can not be read")]
    BadRow {
        /// The row's id.
        id: i64,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// It would not fit even if the producer's queue were empty.
    #[error("row {id} is larger than the producer's whole queue: raise queue.buffering.max.kbytes")]
    TooLarge {
        /// The row's id.
        id: i64,
    },
    /// Its headers are no JSON object.
    #[error("the headers of row {id} are no JSON object")]
    BadHeaders {
        /// The row's id.
        id: i64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What became of a row handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// Taken.
    Taken,
    /// The producer's queue is full: try again in a moment. Or the producer has ended: the landing tells why.
    Full,
}

/// Where a row goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The partition of its key; without a key any.
    partition: Option<i32>,
    /// Whether it must travel alone, for the broker may know nothing of this producer there: its acknowledgement is to be
    /// waited for before any other row is sent.
    pub alone: bool,
}

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicCheck {
    /// It exists and may be described; so many partitions.
    Exists(usize),
    /// The broker says why not.
    Missing(String),
    /// Nobody answers.
    Away(String),
}

/// One producer's life: until a delivery fails or the lease is lost.
pub struct Producer {
    inner: Arc<ThreadedProducer<Context>>,
    landing: Arc<Landing>,
    topics: HashMap<String, Partitions>,
}

impl Producer {
    /// Starts librdkafka's threads; connects in the background.
    ///
    /// # Errors
    /// [`ProducerError::Settings`].
    pub fn start(config: &ClientConfig, landing: Landing) -> Result<Self, ProducerError> {
        let landing = Arc::new(landing);
        let context = Context { landing: Arc::clone(&landing) };
        let inner =
            ThreadedProducer::from_config_and_context(config, context).map_err(ProducerError::Settings)?;
        Ok(Self { inner: Arc::new(inner), landing, topics: HashMap::new() })
    }

    /// What landed.
    #[must_use]
    pub fn landing(&self) -> &Arc<Landing> {
        &self.landing
    }

    /// Asks the broker about a topic, so that a missing one is found before anything passes it. Tell
    /// [`Producer::learn`] of one that exists.
    pub fn check_topic(
        &mut self,
        topic: &str,
    ) -> impl Future<Output = TopicCheck> + std::marker::Send + use<> {
        // Known by its name from now on: what a probe asks for.
        self.topics.entry(topic.to_owned()).or_default();
        let (producer, name) = (Arc::clone(&self.inner), topic.to_owned());
        let question = tokio::task::spawn_blocking(move || topic_check(&producer, &name));
        async move { question.await.unwrap_or_else(|error| TopicCheck::Away(error.to_string())) }
    }

    /// The topic exists, with so many partitions.
    pub fn learn(&mut self, topic: &str, partitions: usize) {
        self.topics.entry(topic.to_owned()).or_default().learn(partitions, Instant::now());
    }

    /// Asks in the background whether a broker answers; one that does is told to the landing.
    pub fn probe(&self) -> JoinHandle<()> {
        let (producer, landing) = (Arc::clone(&self.inner), Arc::clone(&self.landing));
        let topic = self.topics.keys().next().cloned();
        tokio::task::spawn_blocking(move || {
            let answers = match topic {
                Some(topic) => producer.client().fetch_metadata(Some(&topic), QUESTION_TIMEOUT).is_ok(),
                // Once known it is not asked for again: it tells of the first answer only.
                None => producer.client().fetch_cluster_id(QUESTION_TIMEOUT).is_some(),
            };
            if answers {
                landing.brokers_answer();
            }
        })
    }

    /// Where a row goes, asked once for each before it is sent; `None` when its topic is to be asked for first, by
    /// [`Producer::check_topic`]. The partition is chosen here, so that librdkafka, which learns of partitions that were
    /// added at another time, chooses no other than the one that `alone` speaks of.
    ///
    /// # Errors
    /// When the row's key can not be read.
    pub fn destination(&mut self, row: &Row, topic: &str) -> Result<Option<Destination>, ProducerError> {
        let now = Instant::now();
        let Some(partitions) = self.topics.get_mut(topic).filter(|known| known.are_fresh(now)) else {
            return Ok(None);
        };
        let key = row.key().map_err(|source| ProducerError::BadRow { id: row.id(), source })?;
        // Without a key it has no order to keep.
        let Some(key) = key else { return Ok(Some(Destination { partition: None, alone: false })) };
        let partition = partitions.of(key);
        Ok(Some(Destination { partition: Some(partition), alone: partitions.send(partition, now) }))
    }

    /// Hands a row over without waiting; topic and destination are the row's.
    ///
    /// # Errors
    /// When the row can never be taken; a full queue is no error.
    pub fn send(&self, row: &Row, topic: &str, to: Destination, tag: Tag) -> Result<Send, ProducerError> {
        let id = row.id();
        let bad_row = |source| ProducerError::BadRow { id, source };
        let headers = headers(row.headers().map_err(bad_row)?);
        let record = BaseRecord::<[u8], [u8], usize> {
            topic,
            partition: to.partition,
            payload: row.payload().map_err(bad_row)?,
            key: row.key().map_err(bad_row)?,
            timestamp: Some(row.created_at_us() / 1000),
            headers: headers.map_err(|source| ProducerError::BadHeaders { id, source })?,
            delivery_opaque: tag.pack(),
        };
        let sent = match self.inner.send(record) {
            // Full with nothing in it: it became empty since, or is too small for this row.
            Err((error, record)) if is_full(&error) && self.inner.in_flight_count() == 0 => {
                match self.inner.send(record) {
                    Err((error, _)) if is_full(&error) => return Err(ProducerError::TooLarge { id }),
                    sent => sent,
                }
            }
            sent => sent,
        };
        match sent {
            Ok(()) => Ok(Send::Taken),
            Err((error, _)) if is_full(&error) => Ok(Send::Full),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::Fatal), _)) => {
                self.notice_end();
                Ok(Send::Full)
            }
            Err((source, _)) => Err(ProducerError::Refused { id, source }),
        }
    }

    /// Tells the landing when librdkafka has given this producer up: it answers to no row any more.
    pub fn notice_end(&self) {
        let Some((code, text)) = self.inner.client().fatal_error() else { return };
        let reason = match code {
            RDKafkaErrorCode::ClusterAuthorizationFailed => {
                format!("{PRODUCER_ENDED}: its user may write to no topic: {text}")
            }
            _ => format!("{PRODUCER_ENDED}: {text}"),
        };
        self.landing.fail(Weight::Producer, Failure { tag: None, topic: None, reason });
    }

    /// Throws away what is still in it; each of these rows is answered, as failed.
    pub fn purge(&self) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
    }

    /// Ends its life: what is still in it is thrown away. Returns at once, librdkafka ends on another thread.
    pub fn end(self) {
        self.purge();
        tokio::task::spawn_blocking(move || drop(self));
    }
}

fn is_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}

fn topic_check(producer: &ThreadedProducer<Context>, name: &str) -> TopicCheck {
    let metadata = match producer.client().fetch_metadata(Some(name), QUESTION_TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) => return TopicCheck::Away(error.to_string()),
    };
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return TopicCheck::Missing("the broker does not know it".to_owned());
    };
    match topic.error() {
        None if topic.partitions().is_empty() => TopicCheck::Missing("it has no partitions yet".to_owned()),
        None => TopicCheck::Exists(topic.partitions().len()),
        Some(code) => TopicCheck::Missing(RDKafkaErrorCode::from(code).to_string()),
    }
}
