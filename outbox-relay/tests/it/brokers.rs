//! Kafka denied, hung, restarted, killed, away, and one of three brokers gone, under load: nothing passes a row that can not be
//! published, the reason is told, and it mends by itself.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use waybill_testkit::{OwnKafka, Process, TestDatabase, TestTopics, eventually};

use super::audit::{Audit, audit, audit_to_end};
use super::setup::{Outbox, PARTITIONS, SOON, TOPIC, append, ask, metric};
use super::steady::Steady;

const ACLS: &str = "org.apache.kafka.tools.AclCommand";
/// Longer than librdkafka's and the relay's own waits for an answer.
const AWAY: Duration = Duration::from_secs(10);

/// An outbox on the shared PostgreSQL, its topics on these brokers.
async fn outbox_on(kafka: &OwnKafka, copies: i32) -> Outbox {
    let topics = TestTopics::on(kafka.bootstrap());
    let names = [TOPIC, "other.events", "new.events"].map(|name| topics.full(name));
    let in_sync = if copies > 1 { "2" } else { "1" };
    let new = names.each_ref().map(|name| {
        let copies = TopicReplication::Fixed(copies);
        NewTopic::new(name, PARTITIONS, copies).set("min.insync.replicas", in_sync)
    });
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    for made in admin.create_topics(&new, &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
    let outbox = Outbox { database: TestDatabase::create("brokers").await, topics };
    outbox.migrate().await;
    outbox
}

fn relay_on(outbox: &Outbox, kafka: &OwnKafka) -> Process {
    outbox.relay().env("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap()).spawn()
}

/// Waits until `/ready` is 503 and says this, and the metric of this fault is 1.
async fn not_ready(relay: &Process, kind: &str, says: &str) {
    let name = format!("outbox_relay_fault{{database=\"db\",kind=\"{kind}\"}}");
    eventually(SOON, async || {
        let (status, body) = ask(relay, "/ready").await;
        (status == 503 && body.contains(says) && metric(relay, &name).await == 1.0).then_some(())
    })
    .await;
}

/// With a right of anybody's to read it, and none to write, the topic can not be written any more; without, it can.
async fn read_only(kafka: &OwnKafka, verb: &str, topic: &str) {
    let mut arguments =
        vec![verb, "--allow-principal", "User:ANONYMOUS", "--operation", "Read", "--topic", topic];
    if verb == "--remove" {
        arguments.push("--force");
    }
    kafka.tool(ACLS, &arguments).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_denies_and_hangs_and_is_restarted_and_killed_and_is_away() {
    let mut kafka = OwnKafka::builder()
        .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .property("allow.everyone.if.no.acl.found", "true")
        .start()
        .await;
    let outbox = outbox_on(&kafka, 1).await;
    let (events, others) = (outbox.topics.full(TOPIC), outbox.topics.full("other.events"));
    let mut relay = relay_on(&outbox, &kafka);
    relay.wait_ready(SOON).await;
    let mut connection = outbox.connection().await;
    append(&mut connection, &events, 1).await;
    assert_eq!(audit(&outbox.topics, TOPIC, &outbox.database.pool).await.records, 1);

    // Denied: the row waits, and what comes behind it waits too, whatever its topic.
    read_only(&kafka, "--add", &events).await;
    append(&mut connection, &events, 1).await;
    not_ready(&relay, "delivery", "refused by topic").await;
    append(&mut connection, &others, 2).await;
    append(&mut connection, &events, 1).await;
    eventually(SOON, async || {
        (metric(&relay, "outbox_relay_produce_errors_total").await >= 3.0).then_some(())
    })
    .await;
    assert!(outbox.topics.read_to_end("other.events", SOON).await.is_empty(), "nothing passes the row");
    read_only(&kafka, "--remove", &events).await;
    audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    audit(&outbox.topics, "other.events", &outbox.database.pool).await;
    relay.wait_ready(SOON).await;
    assert_eq!(relay.output().matches("was refused by topic").count(), 1, "told once:\n{}", relay.output());

    // It hangs, and a topic is asked for that was not named before; of a connection that hangs librdkafka tells nothing here.
    assert_eq!(relay.terminate().await, Some(0));
    let patient = outbox.relay().env("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap());
    let mut patient = patient.env("OUTBOX_RELAY_KAFKA_PROPERTIES", "socket.timeout.ms=300000").spawn();
    patient.wait_ready(SOON).await;
    kafka.sigstop(0).await;
    append(&mut connection, &outbox.topics.full("new.events"), 1).await;
    not_ready(&patient, "kafka", "no broker at").await;
    assert_eq!(patient.output().matches("acknowledges").count(), 1, "told once:\n{}", patient.output());
    kafka.sigcont(0).await;
    assert_eq!(patient.terminate().await, Some(0));
    relay.restart();
    relay.wait_ready(SOON).await;
    assert_eq!(audit(&outbox.topics, "new.events", &outbox.database.pool).await.records, 1);

    // Restarted under load: an outage that is short may be none to tell of.
    let steady = Steady::start(&outbox.database.url, &events, 4);
    steady.committed(50).await;
    kafka.stop(0).await;
    kafka.start_again(0);
    kafka.wait_ready(1).await;
    relay.wait_ready(SOON).await;
    steady.committed(50).await;
    let told_before = relay.output().matches("acknowledges").count();
    assert!(told_before <= 1, "told once:\n{}", relay.output());

    // Killed and away.
    kafka.kill9(0).await;
    not_ready(&relay, "kafka", "no broker at").await;
    tokio::time::sleep(AWAY).await;
    steady.committed(50).await;
    kafka.start_again(0);
    kafka.wait_ready(1).await;
    relay.wait_ready(SOON).await;
    steady.committed(20).await;
    steady.end().await;
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    println!("denied, hung, restarted, killed, away: {audit:?}");
    let told = relay.output().matches("acknowledges").count() - told_before;
    assert_eq!(told, 1, "told once:\n{}", relay.output());
    assert_eq!(relay.terminate().await, Some(0));
}

/// Kafka is killed and stays away for so long while a writer goes on: the lease is kept, what is on its way is bounded, the
/// reason is told once; afterwards every row is there, in order.
pub(crate) async fn away_for(absence: Duration) -> Audit {
    let mut kafka = OwnKafka::builder().start().await;
    let outbox = outbox_on(&kafka, 1).await;
    let mut relay = relay_on(&outbox, &kafka);
    relay.wait_ready(SOON).await;
    let steady = Steady::start(&outbox.database.url, &outbox.topics.full(TOPIC), 1);
    steady.committed(20).await;
    kafka.kill9(0).await;
    let since = Instant::now();
    not_ready(&relay, "kafka", "no broker at").await;
    tokio::time::sleep(absence.saturating_sub(since.elapsed())).await;

    not_ready(&relay, "kafka", "no broker at").await;
    let value = async |name: &str| metric(&relay, name).await;
    assert_eq!(value("outbox_relay_leases_total").await, 1.0, "it waits under one lease");
    let age = value("outbox_relay_oldest_unpublished_age_seconds").await;
    assert!(age > absence.as_secs_f64() / 2.0, "the oldest row waits since {age} s");
    let on_their_way = value("outbox_relay_in_flight_rows").await;
    assert!(on_their_way <= 22_000.0, "{on_their_way} rows on their way");
    kafka.start_again(0);
    kafka.wait_ready(1).await;
    relay.wait_ready(SOON).await;
    steady.committed(20).await;
    steady.end().await;
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    let told = relay.output().matches("acknowledges").count();
    assert_eq!(told, 1, "told once:\n{}", relay.output());
    assert_eq!(relay.terminate().await, Some(0));
    audit
}

/// So many of three brokers are killed in turn, under load.
async fn killed_in_turn(brokers: usize) -> Audit {
    let mut kafka = OwnKafka::builder().brokers(3).start().await;
    let outbox = outbox_on(&kafka, 3).await;
    let mut relay = relay_on(&outbox, &kafka);
    relay.wait_ready(SOON).await;
    let steady = Steady::start(&outbox.database.url, &outbox.topics.full(TOPIC), 4);
    for node in 0..brokers {
        steady.committed(100).await;
        kafka.kill9(node).await;
        println!("broker {} is killed", node + 1);
        // Two of three are enough: rows go on to be published, and the relay is ready.
        let before = metric(&relay, "outbox_relay_published_rows_total").await;
        eventually(SOON, async || {
            (metric(&relay, "outbox_relay_published_rows_total").await > before + 100.0).then_some(())
        })
        .await;
        relay.wait_ready(SOON).await;
        kafka.start_again(node);
        kafka.wait_ready(3).await;
    }
    steady.end().await;
    audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!(relay.terminate().await, Some(0));
    audit_to_end(&outbox.topics, TOPIC, &outbox.database.pool).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_brokers_is_killed() {
    println!("one of three brokers killed: {:?}", killed_in_turn(1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the long form: cargo xtask chaos relay-brokers"]
async fn each_of_three_brokers_is_killed() {
    println!("each of three brokers killed in turn: {:?}", killed_in_turn(3).await);
}
