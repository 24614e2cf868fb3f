//! Kafka topics of its own for each test: a prefix nobody else has, made and removed on the shared broker.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::servers::kafka_bootstrap;

/// Longest wait for one answer of the broker about topics or one delivery.
const BROKER_WAIT: Duration = Duration::from_secs(60);
/// How often `read_all` looks at its condition while no record comes.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// One consumed record, owned and undecoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Full topic name, prefix included.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Offset inside the partition.
    pub offset: i64,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Value bytes; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
}

impl OwnedRecord {
    /// The value of the last header of this name, when it is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().rev().find(|(n, _)| n == name)?;
        std::str::from_utf8(&found.1).ok()
    }

    /// The key as text; empty when there is none or it is not UTF-8.
    #[must_use]
    pub fn key_text(&self) -> &str {
        self.key.as_deref().and_then(|k| std::str::from_utf8(k).ok()).unwrap_or_default()
    }
}

/// A topic prefix of its own; topics made through it are deleted (best effort) together with this value.
pub struct TestTopics {
    /// Put before every topic name and consumer group id, the separating dot included: `t1a2b3c4.`.
    pub prefix: String,
    /// Addresses of the brokers.
    pub bootstrap: String,
    made: Mutex<BTreeMap<String, i32>>,
    producer: FutureProducer,
}

impl TestTopics {
    /// Takes a prefix; makes no topic yet.
    ///
    /// # Panics
    /// When `KAFKA_BOOTSTRAP_SERVERS` is missing.
    #[must_use]
    pub fn new() -> TestTopics {
        Self::on(kafka_bootstrap())
    }

    /// The same on brokers of the test's own.
    ///
    /// # Panics
    /// When the addresses are none.
    #[must_use]
    pub fn on(bootstrap: impl Into<String>) -> TestTopics {
        let bootstrap = bootstrap.into();
        let producer = base_config(&bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            // What a topic takes is the broker's to say.
            .set("message.max.bytes", "10000000")
            .set("linger.ms", "0")
            .create()
            .expect("a producer for KAFKA_BOOTSTRAP_SERVERS");
        let prefix = format!("t{:08x}.", rand::random::<u32>());
        TestTopics { prefix, bootstrap, made: Mutex::default(), producer }
    }

    /// Takes a prefix and makes these topics (`name` without prefix, partitions, replication 1).
    ///
    /// # Panics
    /// When the broker is away or refuses.
    pub async fn create(topics: &[(&str, i32)]) -> TestTopics {
        let this = Self::new();
        this.add(topics).await;
        this
    }

    /// Makes more topics under the same prefix.
    ///
    /// # Panics
    /// When the broker is away or refuses.
    pub async fn add(&self, topics: &[(&str, i32)]) {
        self.add_with(topics, &[]).await;
    }

    /// The same with settings of the topics (`max.message.bytes`, ...); returns when the brokers answer for all of them.
    ///
    /// # Panics
    /// When the broker is away or refuses.
    pub async fn add_with(&self, topics: &[(&str, i32)], settings: &[(&str, &str)]) {
        let named: Vec<(String, i32)> = topics.iter().map(|(n, p)| (self.full(n), *p)).collect();
        let new = named.iter().map(|(name, partitions)| NewTopic {
            name,
            num_partitions: *partitions,
            replication: TopicReplication::Fixed(1),
            config: settings.to_vec(),
        });
        let admin = admin(&self.bootstrap);
        let answers = admin
            .create_topics(&new.collect::<Vec<_>>(), &admin_options())
            .await
            .expect("asking Kafka to make topics");
        for answer in answers {
            answer.unwrap_or_else(|(topic, code)| panic!("making topic {topic}: {code}"));
        }
        for (topic, partitions) in &named {
            known(&admin, topic, *partitions).await;
        }
        self.made.lock().expect("no panic while held").extend(named);
    }

    /// Has these topics (`name` without prefix), which something else makes under this prefix, deleted at the end too.
    pub fn adopt<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let named = names.into_iter().map(|name| (self.full(name), 0));
        self.made.lock().expect("no panic while held").extend(named);
    }

    /// The full name of a topic: prefix and name.
    #[must_use]
    pub fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Sends one record and waits until the broker has it; the partition is the Java client's choice for the key.
    /// Returns partition and offset.
    ///
    /// # Panics
    /// When the broker does not take it within a minute.
    pub async fn produce(
        &self,
        name: &str,
        key: Option<&[u8]>,
        headers: &[(&str, &[u8])],
        payload: Option<&[u8]>,
    ) -> (i32, i64) {
        let topic = self.full(name);
        let mut record = FutureRecord::<[u8], [u8]>::to(&topic);
        record.key = key;
        record.payload = payload;
        record.headers =
            Some(headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: Some(*value) })
            }));
        let delivery = self.producer.send(record, BROKER_WAIT).await;
        let delivery = delivery.unwrap_or_else(|(e, _)| panic!("producing to {topic}: {e}"));
        (delivery.partition, delivery.offset)
    }

    /// Deletes every record that the topic (`name` without prefix) holds at this moment.
    ///
    /// # Panics
    /// When the broker is away or refuses.
    pub async fn delete_records(&self, name: &str) {
        let topic = self.full(name);
        let mut before = TopicPartitionList::new();
        for (partition, end) in ends(&reader(&self.bootstrap, &topic), &topic) {
            before.add_partition_offset(&topic, partition, Offset::Offset(end)).expect("an end is an offset");
        }
        let answers = admin(&self.bootstrap).delete_records(&before, &admin_options()).await;
        for answer in answers.expect("asking Kafka to delete records").elements() {
            answer.error().unwrap_or_else(|error| panic!("deleting records of {topic}: {error}"));
        }
    }

    /// Reads the topic (`name` without prefix) from its beginning, without a group, until `until` says it has seen
    /// enough; records come in order per partition.
    ///
    /// # Panics
    /// When `timeout` passes first, telling how many records there were.
    pub async fn read_all(
        &self,
        name: &str,
        until: impl Fn(&[OwnedRecord]) -> bool,
        timeout: Duration,
    ) -> Vec<OwnedRecord> {
        let topic = self.full(name);
        let started = Instant::now();
        let consumer = reader(&self.bootstrap, &topic);
        let mut records = Vec::new();
        while !until(&records) {
            assert!(
                started.elapsed() < timeout,
                "{topic}: {} records within {timeout:?}, and that is not what the test waits for: {:?}",
                records.len(),
                records.last()
            );
            // A broker that is away, or does not know a new partition yet, is asked again.
            match tokio::time::timeout(READ_PAUSE, consumer.recv()).await {
                Ok(Ok(message)) => records.push(owned(&message)),
                Ok(Err(_)) => tokio::time::sleep(READ_PAUSE).await,
                Err(_) => {}
            }
        }
        records
    }

    /// Reads the topic (`name` without prefix) from its beginning to the end it has at this moment, without a group.
    ///
    /// # Panics
    /// When `timeout` passes first.
    pub async fn read_to_end(&self, name: &str, timeout: Duration) -> Vec<OwnedRecord> {
        let topic = self.full(name);
        let consumer = reader(&self.bootstrap, &topic);
        let mut ends = ends(&consumer, &topic);
        let reading = async {
            let mut records = Vec::new();
            while !ends.is_empty() {
                let Ok(message) = consumer.recv().await else {
                    tokio::time::sleep(READ_PAUSE).await;
                    continue;
                };
                if ends.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                    ends.remove(&message.partition());
                }
                records.push(owned(&message));
            }
            records
        };
        let read = tokio::time::timeout(timeout, reading).await;
        read.unwrap_or_else(|_| panic!("{topic} was not read to its end within {timeout:?}"))
    }
}

impl Default for TestTopics {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestTopics {
    /// Deletes the topics from a thread with its own runtime; topics left over harm nobody.
    fn drop(&mut self) {
        let made = std::mem::take(&mut *self.made.lock().expect("no panic while held"));
        if made.is_empty() {
            return;
        }
        let bootstrap = self.bootstrap.clone();
        let deletion = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            let names: Vec<&str> = made.keys().map(String::as_str).collect();
            runtime.block_on(async {
                let _ = admin(&bootstrap).delete_topics(&names, &admin_options()).await;
            });
        });
        let _ = deletion.join();
    }
}

fn base_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("client.id", "waybill-testkit");
    config
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    base_config(bootstrap).create().expect("an admin client for the test's brokers")
}

/// Waits until the topic is answered for: the controller says that it is made before every broker knows it.
async fn known(admin: &AdminClient<DefaultClientContext>, topic: &str, partitions: i32) {
    let started = Instant::now();
    loop {
        let metadata = admin.inner().fetch_metadata(Some(topic), BROKER_WAIT).expect("Kafka's metadata");
        let led =
            metadata.topics().iter().flat_map(|found| found.partitions()).filter(|one| one.leader() >= 0);
        if led.count() == usize::try_from(partitions).expect("topics have some partitions") {
            return;
        }
        assert!(started.elapsed() < BROKER_WAIT, "{topic} was made, and no broker answers for it");
        tokio::time::sleep(READ_PAUSE).await;
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(BROKER_WAIT)).operation_timeout(Some(BROKER_WAIT))
}

/// A consumer assigned to every partition of the topic from its beginning.
fn reader(bootstrap: &str, topic: &str) -> StreamConsumer {
    let consumer: StreamConsumer = base_config(bootstrap)
        .set("group.id", "waybill-testkit-reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "20")
        .create()
        .expect("a consumer for KAFKA_BOOTSTRAP_SERVERS");
    let started = Instant::now();
    let assignment = loop {
        let assignment = from_beginning(&consumer, topic);
        if assignment.count() > 0 {
            break assignment;
        }
        // Who answers for a topic that was made a moment ago may not know it yet.
        assert!(started.elapsed() < BROKER_WAIT, "{topic} does not exist: make it with TestTopics::create");
        std::thread::sleep(READ_PAUSE);
    };
    consumer.assign(&assignment).expect("assigning partitions");
    consumer
}

/// Every partition of the topic that the brokers know, from its beginning.
fn from_beginning(consumer: &StreamConsumer, topic: &str) -> TopicPartitionList {
    let metadata = consumer.fetch_metadata(Some(topic), BROKER_WAIT).expect("Kafka's metadata");
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|found| found.partitions()) {
        assignment
            .add_partition_offset(topic, partition.id(), Offset::Beginning)
            .expect("the beginning is a valid offset");
    }
    assignment
}

/// The end of each partition that holds anything.
fn ends(consumer: &StreamConsumer, topic: &str) -> BTreeMap<i32, i64> {
    let assignment = consumer.assignment().expect("a reader is assigned");
    let partitions = assignment.elements_for_topic(topic).iter().map(|e| e.partition()).collect::<Vec<_>>();
    let end = |partition| {
        let (low, high) =
            consumer.fetch_watermarks(topic, partition, BROKER_WAIT).expect("a partition's end");
        (high > low).then_some((partition, high))
    };
    partitions.into_iter().filter_map(end).collect()
}

fn owned(message: &impl Message) -> OwnedRecord {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
    });
    OwnedRecord {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        payload: message.payload().map(<[u8]>::to_vec),
    }
}
