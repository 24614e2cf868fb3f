//! The consumer's promises, on a real broker: order, offsets after effects, pause and go on, rebalance, bounded end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use tokio::task::JoinHandle;
use waybill_messaging::consumer::{
    self, Batch, BatchError, BatchHandler, ConsumerConfig, ConsumerError, ConsumerStatus, Due,
};
use waybill_runtime::lifecycle::Shutdown;
use waybill_telemetry::metrics;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{TestTopics, kafka_bootstrap};

/// Far beyond anything these tests wait for on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const TOPIC: &str = "orders.events";
const GROUP: &str = "billing";

/// What a handler saw: key and number of each record of each batch it took.
type Seen = Arc<Mutex<Vec<Vec<(String, usize)>>>>;

/// Remembers batches; fails or panics first as often as told.
#[derive(Clone, Default)]
struct Remembers {
    seen: Seen,
    failures_left: Arc<AtomicUsize>,
    always_fails: bool,
    panics: Arc<AtomicBool>,
    /// Does not answer, once.
    hangs: Arc<AtomicBool>,
}

impl BatchHandler for Remembers {
    async fn handle(&self, batch: &Batch) -> Result<(), BatchError> {
        if self.panics.swap(false, Ordering::SeqCst) {
            panic!("as planned");
        }
        if self.hangs.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let left = |n: usize| n.checked_sub(1);
        if self.always_fails
            || self.failures_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
        {
            return Err(BatchError::new("the database is away, as planned"));
        }
        let records = batch.records.iter().map(|r| {
            let key = String::from_utf8(r.key.as_ref().unwrap().to_vec()).unwrap();
            let number = std::str::from_utf8(r.payload.as_ref().unwrap()).unwrap().parse().unwrap();
            (key, number)
        });
        self.seen.lock().unwrap().push(records.collect());
        Ok(())
    }
}

impl Remembers {
    fn all(&self) -> Vec<(String, usize)> {
        self.seen.lock().unwrap().concat()
    }

    async fn wait_for(&self, count: usize) {
        eventually_named("records", LIMIT, async || (self.all().len() >= count).then_some(())).await;
    }
}

struct Member {
    shutdown: Shutdown,
    status: ConsumerStatus,
    task: JoinHandle<Result<(), ConsumerError>>,
}

impl Member {
    fn start(topics: &TestTopics, handler: Remembers) -> Self {
        let mut config = ConsumerConfig::new(&kafka_bootstrap(), &topics.prefix, GROUP, &[TOPIC]);
        config.batch_records_max = 50;
        config.retry_wait_first = Duration::from_millis(60);
        config.close_timeout = LIMIT;
        Self::start_with(config, handler)
    }

    fn start_with(config: ConsumerConfig, handler: Remembers) -> Self {
        let (shutdown, status) = (Shutdown::manual(), config.status.clone());
        let task = tokio::spawn(consumer::run(config, handler, shutdown.clone()));
        Self { shutdown, status, task }
    }

    async fn assigned(&self, partitions: usize) {
        let has = async || (self.status.partitions() == Some(partitions)).then_some(());
        eventually_named("assignment", LIMIT, has).await;
    }

    async fn stop(self) {
        self.shutdown.request();
        self.task.await.unwrap().unwrap();
    }
}

/// Sends `count` numbered records over `keys` keys, numbers growing from `from`.
async fn produce(topics: &TestTopics, from: usize, count: usize, keys: usize) {
    for number in from..from + count {
        let (key, payload) = (format!("key-{}", number % keys), number.to_string());
        topics.produce(TOPIC, Some(key.as_bytes()), &[], Some(payload.as_bytes())).await;
    }
}

/// Every number is there, and each key's first appearances are in order.
fn assert_complete_and_in_order(seen: &[(String, usize)], count: usize) {
    let mut first: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (key, number) in seen {
        let numbers = first.entry(key).or_default();
        if !numbers.contains(number) {
            numbers.push(*number);
        }
    }
    for (key, numbers) in &first {
        assert!(numbers.is_sorted(), "{key} out of order: {numbers:?}");
    }
    assert_eq!(first.values().map(Vec::len).sum::<usize>(), count, "records lost");
}

#[tokio::test]
async fn records_come_in_bounded_batches_in_order_and_once_over_a_restart() {
    let topics = TestTopics::create(&[(TOPIC, 3)]).await;
    produce(&topics, 0, 200, 7).await;
    let first = Remembers::default();
    let member = Member::start(&topics, first.clone());
    first.wait_for(200).await;
    assert_eq!(member.status.check(), Ok(()));
    member.stop().await;
    assert_eq!(first.all().len(), 200, "nothing twice");
    assert_complete_and_in_order(&first.all(), 200);
    assert!(first.seen.lock().unwrap().iter().all(|batch| (1..=50).contains(&batch.len())));

    // The offsets were committed when the first one closed.
    produce(&topics, 200, 5, 7).await;
    let second = Remembers::default();
    let member = Member::start(&topics, second.clone());
    second.wait_for(5).await;
    member.stop().await;
    let mut numbers: Vec<_> = second.all().into_iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [200, 201, 202, 203, 204]);
}

#[tokio::test]
async fn a_batch_that_was_not_handled_comes_again_to_the_next_member() {
    let topics = TestTopics::create(&[(TOPIC, 2)]).await;
    produce(&topics, 0, 30, 5).await;
    let fails = Remembers { always_fails: true, ..Remembers::default() };
    let member = Member::start(&topics, fails.clone());
    let failing = async || member.status.check().err().filter(|why| why.contains("as planned"));
    eventually_named("failing status", LIMIT, failing).await;
    member.stop().await;
    let works = Remembers::default();
    let member = Member::start(&topics, works.clone());
    works.wait_for(30).await;
    member.stop().await;
    assert_eq!(works.all().len(), 30);
    assert_complete_and_in_order(&works.all(), 30);
}

#[tokio::test]
async fn failures_and_panics_pause_and_then_everything_goes_on() {
    let topics = TestTopics::create(&[(TOPIC, 3)]).await;
    produce(&topics, 0, 400, 11).await;
    let handler = Remembers::default();
    handler.failures_left.store(3, Ordering::SeqCst);
    handler.panics.store(true, Ordering::SeqCst);
    let member = Member::start(&topics, handler.clone());
    handler.wait_for(400).await;
    handler.failures_left.store(2, Ordering::SeqCst);
    produce(&topics, 400, 100, 11).await;
    handler.wait_for(500).await;
    assert_eq!(member.status.check(), Ok(()), "the failure is over");
    member.stop().await;
    assert_complete_and_in_order(&handler.all(), 500);
}

#[tokio::test]
async fn members_that_come_and_go_lose_nothing_and_keep_each_keys_order() {
    let topics = TestTopics::create(&[(TOPIC, 6)]).await;
    let handler = Remembers::default();
    let one = Member::start(&topics, handler.clone());
    one.assigned(6).await;
    produce(&topics, 0, 100, 13).await;
    let two = Member::start(&topics, handler.clone());
    produce(&topics, 100, 100, 13).await;
    two.assigned(3).await;
    one.assigned(3).await;
    produce(&topics, 200, 100, 13).await;
    one.stop().await;
    produce(&topics, 300, 100, 13).await;
    two.assigned(6).await;
    let complete = async || {
        let mut numbers: Vec<_> = handler.all().into_iter().map(|(_, number)| number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        (numbers.len() == 400).then_some(())
    };
    eventually_named("all records", LIMIT, complete).await;
    two.stop().await;
    assert_complete_and_in_order(&handler.all(), 400);
}

#[tokio::test]
async fn a_rebalance_while_a_batch_fails_drops_it_here_and_handles_it_there() {
    let topics = TestTopics::create(&[(TOPIC, 2)]).await;
    produce(&topics, 0, 60, 9).await;
    let handler = Remembers::default();
    handler.failures_left.store(usize::MAX, Ordering::SeqCst);
    let one = Member::start(&topics, handler.clone());
    eventually_named("failing status", LIMIT, async || {
        one.status.check().err().filter(|w| w.contains("planned"))
    })
    .await;
    let two = Member::start(&topics, handler.clone());
    two.assigned(1).await;
    one.assigned(1).await;
    handler.failures_left.store(0, Ordering::SeqCst);
    handler.wait_for(60).await;
    one.stop().await;
    two.stop().await;
    assert_eq!(handler.all().len(), 60, "the first member forgot what went to the second");
    assert_complete_and_in_order(&handler.all(), 60);
}

/// Whether partition 0 is due in the test below.
static PARTITION_0_DUE: AtomicBool = AtomicBool::new(false);

#[tokio::test]
async fn a_partition_that_is_not_due_waits_over_a_rebalance_and_others_go_on() {
    let topics = TestTopics::create(&[(TOPIC, 2)]).await;
    let start = |handler: &Remembers| {
        let mut config = ConsumerConfig::new(&kafka_bootstrap(), &topics.prefix, GROUP, &[TOPIC]);
        config.close_timeout = LIMIT;
        config.due = Some(Due::new(|record| record.partition != 0 || PARTITION_0_DUE.load(Ordering::SeqCst)));
        Member::start_with(config, handler.clone())
    };
    let mut others = 0;
    for number in 0..60 {
        let (key, payload) = (format!("key-{}", number % 9), number.to_string());
        let (partition, _) = topics.produce(TOPIC, Some(key.as_bytes()), &[], Some(payload.as_bytes())).await;
        others += usize::from(partition != 0);
    }
    assert!((1..60).contains(&others), "both partitions have keys");
    let handler = Remembers::default();
    let one = start(&handler);
    handler.wait_for(others).await;
    let two = start(&handler);
    two.assigned(1).await;
    one.assigned(1).await;
    assert_eq!(handler.all().len(), others, "nothing before its time");
    assert_eq!((one.status.check(), two.status.check()), (Ok(()), Ok(())), "waiting is no failure");
    PARTITION_0_DUE.store(true, Ordering::SeqCst);
    handler.wait_for(60).await;
    one.stop().await;
    two.stop().await;
    assert_eq!(handler.all().len(), 60, "nothing twice");
    assert_complete_and_in_order(&handler.all(), 60);
}

/// A metric of the group, when it has been told.
fn metric(topics: &TestTopics, name: &str) -> Option<u64> {
    let line = format!(r#"{name}{{group="{}{GROUP}"}} "#, topics.prefix);
    metrics::render().lines().find_map(|found| found.strip_prefix(&line)?.parse().ok())
}

#[tokio::test]
async fn a_handler_that_does_not_answer_is_given_up_and_its_batch_comes_again() {
    let topics = TestTopics::create(&[(TOPIC, 2)]).await;
    produce(&topics, 0, 20, 5).await;
    let handler = Remembers::default();
    handler.hangs.store(true, Ordering::SeqCst);
    let mut config = ConsumerConfig::new(&kafka_bootstrap(), &topics.prefix, GROUP, &[TOPIC]);
    config.batch_time_max = Duration::from_millis(500);
    config.close_timeout = LIMIT;
    let member = Member::start_with(config, handler.clone());
    handler.wait_for(20).await;
    assert!(metric(&topics, "consumer_batch_timeouts_total").is_some_and(|count| count >= 1));
    member.stop().await;
    assert_complete_and_in_order(&handler.all(), 20);
}

/// The shortest time without a poll after which a group may drop its member.
const POLL_INTERVAL: Duration = Duration::from_secs(6);
/// When the records of the test below are due, in milliseconds since 1970: not in our days, until it says so.
static DUE_MS: AtomicI64 = AtomicI64::new(32_000_000_000_000);

#[tokio::test]
async fn a_partition_that_is_not_due_for_long_causes_no_rebalance() {
    let topics = TestTopics::create(&[(TOPIC, 2)]).await;
    produce(&topics, 0, 12, 5).await;
    let handler = Remembers::default();
    let mut config = ConsumerConfig::new(&kafka_bootstrap(), &topics.prefix, GROUP, &[TOPIC]);
    config.max_poll_interval = POLL_INTERVAL;
    config.batch_time_max = POLL_INTERVAL / 2;
    config.close_timeout = LIMIT;
    config.due = Some(Due::new(|_| chrono::Utc::now().timestamp_millis() >= DUE_MS.load(Ordering::SeqCst)));
    let member = Member::start_with(config, handler.clone());
    member.assigned(2).await;
    let due = chrono::Utc::now() + 2 * POLL_INTERVAL + Duration::from_secs(1);
    DUE_MS.store(due.timestamp_millis(), Ordering::SeqCst);
    assert!(handler.all().is_empty(), "nothing before its time");
    handler.wait_for(12).await;
    assert_eq!(metric(&topics, "consumer_assignments_total"), Some(1), "it stayed in its group");
    member.stop().await;
    assert_eq!(handler.all().len(), 12, "nothing twice");
}

#[tokio::test]
async fn the_lag_is_told_also_while_nothing_can_be_handled() {
    let topics = TestTopics::create(&[(TOPIC, 1)]).await;
    let metric = format!(
        r#"consumer_lag_records{{group="{0}{GROUP}",partition="0",topic="{0}{TOPIC}"}} "#,
        topics.prefix
    );
    let lag = || {
        let text = metrics::render();
        text.lines().find_map(|line| line.strip_prefix(&metric)?.parse::<i64>().ok())
    };
    produce(&topics, 0, 30, 3).await;
    let handler = Remembers::default();
    handler.failures_left.store(usize::MAX, Ordering::SeqCst);
    let member = Member::start(&topics, handler.clone());
    eventually_named("lag of a new group", LIMIT, async || (lag() == Some(30)).then_some(())).await;
    handler.failures_left.store(0, Ordering::SeqCst);
    eventually_named("no lag", LIMIT, async || (lag() == Some(0)).then_some(())).await;
    member.stop().await;
    assert_eq!(lag(), None, "whoever has the partition tells its lag");

    produce(&topics, 30, 12, 3).await;
    let fails = Remembers { always_fails: true, ..Remembers::default() };
    let member = Member::start(&topics, fails);
    eventually_named("lag of a known group", LIMIT, async || lag().filter(|lag| *lag == 12)).await;
    member.stop().await;
}

#[tokio::test]
async fn a_missing_topic_is_not_ready_and_is_found_when_it_is_made() {
    let topics = TestTopics::new();
    let handler = Remembers::default();
    let member = Member::start(&topics, handler.clone());
    let missing = async || member.status.check().err().filter(|why| why.contains("topic is missing"));
    eventually_named("status that tells of the topic", LIMIT, missing).await;
    topics.add(&[(TOPIC, 2)]).await;
    produce(&topics, 0, 10, 3).await;
    handler.wait_for(10).await;
    assert_eq!(member.status.check(), Ok(()));
    member.stop().await;
}

#[tokio::test]
async fn without_kafka_it_waits_says_so_and_stops_in_time() {
    // A port that takes connections and never answers, and one that refuses them.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for bootstrap in [deaf.local_addr().unwrap().to_string(), "127.0.0.1:1".to_owned()] {
        let member =
            Member::start_with(ConsumerConfig::new(&bootstrap, "", GROUP, &[TOPIC]), Remembers::default());
        let polls = async || member.status.check().err().filter(|why| why != "not started yet");
        eventually_named("status", LIMIT, polls).await;
        tokio::time::timeout(LIMIT, member.stop()).await.expect("the shutdown is bounded");
    }
}

#[tokio::test]
async fn when_kafka_goes_away_in_the_middle_it_still_stops_in_time() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 2, 1).unwrap();
    let config = ConsumerConfig::new(&cluster.bootstrap_servers(), "", GROUP, &[TOPIC]);
    let member = Member::start_with(config, Remembers::default());
    member.assigned(2).await;
    cluster.broker_down(1).unwrap();
    let down = async || member.status.check().err().filter(|why| why.contains("Kafka does not answer"));
    eventually_named("status that tells Kafka is away", LIMIT, down).await;
    tokio::time::timeout(LIMIT, member.stop()).await.expect("the shutdown is bounded");
}

#[tokio::test]
async fn a_configuration_that_can_not_work_is_refused() {
    let usable = ConsumerConfig::new("127.0.0.1:1", "", GROUP, &[TOPIC]);
    let no_topic = ConsumerConfig { topics: Vec::new(), ..usable.clone() };
    let (max_poll_interval, batch_time_max) = (Duration::from_secs(5), Duration::from_secs(2));
    let too_short = ConsumerConfig { max_poll_interval, batch_time_max, ..usable.clone() };
    let too_long = ConsumerConfig { batch_time_max: usable.max_poll_interval, ..usable };
    for config in [no_topic, too_short, too_long] {
        let refused = consumer::run(config, Remembers::default(), Shutdown::manual()).await;
        assert!(matches!(refused, Err(ConsumerError::Config(_))), "{refused:?}");
    }
}
