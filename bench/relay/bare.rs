//! The broker's own limit: a threaded producer with the relay's settings, sending the same bytes from memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use waybill_testkit::kafka_bootstrap;

use crate::load::Record;
use crate::report::{Run, cpu_seconds};

struct Counting(Arc<AtomicU64>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        result.as_ref().map_err(|(error, _)| error.clone()).unwrap();
        self.0.fetch_add(1, Ordering::Release);
    }
}

pub(crate) fn run(topic: &str, records: &[Record], linger_ms: u32) -> Run {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut config = waybill_messaging::config::producer(&kafka_bootstrap(), "bare");
    config.set("linger.ms", linger_ms.to_string());
    let (started, cpu_before) = (Instant::now(), cpu_seconds(std::process::id()));
    let producer =
        ThreadedProducer::from_config_and_context(&config, Counting(Arc::clone(&acknowledged))).unwrap();
    for record in records {
        while !send(&producer, topic, record) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while acknowledged.load(Ordering::Acquire) < records.len() as u64 {
        std::thread::sleep(Duration::from_millis(1));
    }
    Run::new(records.len(), started.elapsed(), cpu_seconds(std::process::id()) - cpu_before)
}

/// A producer to send what was just committed by.
pub(crate) struct Bare(ThreadedProducer<Counting>);

impl Bare {
    pub(crate) fn start() -> Self {
        let config = waybill_messaging::config::producer(&kafka_bootstrap(), "bare");
        let counting = Counting(Arc::default());
        Self(ThreadedProducer::from_config_and_context(&config, counting).unwrap())
    }

    /// Does not wait.
    pub(crate) fn send_all(&self, topic: &str, records: &[Record]) {
        for record in records {
            assert!(send(&self.0, topic, record), "the queue is full: the loop is not open");
        }
    }
}

/// `false` when the queue is full.
fn send(producer: &ThreadedProducer<Counting>, topic: &str, record: &Record) -> bool {
    let headers = record
        .headers
        .iter()
        .fold(OwnedHeaders::new_with_capacity(record.headers.len()), |all, (key, value)| {
            all.insert(Header { key, value: Some(value) })
        });
    let message = BaseRecord::to(topic)
        .key(&record.key)
        .payload(&record.payload)
        .timestamp(record.timestamp_ms)
        .headers(headers);
    match producer.send(message) {
        Ok(()) => true,
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => false,
        Err((error, _)) => panic!("the bare producer: {error}"),
    }
}

/// Milliseconds from sending one record to its acknowledgement, one after the other.
pub(crate) fn single_ms(topic: &str, tries: usize) -> Vec<f64> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut config = waybill_messaging::config::producer(&kafka_bootstrap(), "bare");
    config.set("linger.ms", "0");
    let producer =
        ThreadedProducer::from_config_and_context(&config, Counting(Arc::clone(&acknowledged))).unwrap();
    let record = Record {
        key: b"single".to_vec(),
        headers: vec![(crate::topic::TRANSACTION_HEADER.to_owned(), "single".to_owned())],
        payload: vec![7; 200],
        timestamp_ms: 1,
    };
    let mut times = Vec::new();
    for number in 1..=tries as u64 {
        let started = Instant::now();
        assert!(send(&producer, topic, &record), "one record alone fills no queue");
        while acknowledged.load(Ordering::Acquire) < number {
            std::thread::sleep(Duration::from_micros(20));
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times
}
