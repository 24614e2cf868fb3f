//! What is missing, refused or away: nothing passes a row that can not be published, the reason is told, it mends.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use waybill_testkit::{TestDatabase, TestTopics, eventually, kafka_bootstrap};

use super::audit::audit;
use super::setup::{LEASE_SOON_OVER, Outbox, SOON, TOPIC, append, append_sized, ask, metric};
use super::torture::bulk;

/// Waits until `/ready` is 503 and says this.
async fn not_ready(relay: &waybill_testkit::Process, says: &str) {
    eventually(SOON, async || {
        let (status, body) = ask(relay, "/ready").await;
        (status == 503 && body.contains(says)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_a_row_whose_topic_is_missing() {
    let outbox = Outbox::new("topic_missing").await;
    let (topic, late) = (outbox.topics.full(TOPIC), outbox.topics.full("late.events"));
    let mut connection = outbox.connection().await;
    append(&mut connection, &topic, 1).await;
    append(&mut connection, &late, 2).await;
    append(&mut connection, &topic, 1).await;
    let mut relay = outbox.relay().env("OUTBOX_RELAY_LEASE_MS", LEASE_SOON_OVER).spawn();
    not_ready(&relay, "late.events").await;
    assert_eq!(metric(&relay, "outbox_relay_fault{database=\"db\",kind=\"topic\"}").await, 1.0);
    // The lease outlives three times its length here: waiting for a topic does not lose it.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(metric(&relay, "outbox_relay_lease_held").await, 1.0);
    let kafka = metric(&relay, "outbox_relay_fault{database=\"db\",kind=\"kafka\"}").await;
    assert_eq!(kafka, 0.0, "brokers answer: it is the topic alone");
    let records = outbox.topics.read_all(TOPIC, |records| !records.is_empty(), SOON).await;
    assert_eq!(records.len(), 1, "only what comes before the row is published");
    outbox.topics.add(&[("late.events", 1)]).await;
    relay.wait_ready(SOON).await;
    assert_eq!(audit(&outbox.topics, TOPIC, &outbox.database.pool).await.repeats, 0);
    assert_eq!(audit(&outbox.topics, "late.events", &outbox.database.pool).await.records, 1);
    assert_eq!(relay.terminate().await, Some(0));
    let output = relay.output();
    let errors: Vec<&str> = output.lines().filter(|line| line.contains("\"ERROR\"")).collect();
    assert_eq!(errors.len(), 1, "the reason is told once, and no other: {errors:#?}");
    assert!(errors[0].contains("can not be written"), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_lost_its_lease_with_a_fault_is_well_while_another_publishes() {
    let outbox = Outbox::new("stood_down").await;
    let mut connection = outbox.connection().await;
    append(&mut connection, &outbox.topics.full("late.events"), 1).await;
    let mut relay = outbox.relay().env("OUTBOX_RELAY_LEASE_MS", LEASE_SOON_OVER).spawn();
    not_ready(&relay, "late.events").await;
    let fault = "outbox_relay_fault{database=\"db\",kind=\"topic\"}";
    assert_eq!(metric(&relay, fault).await, 1.0);
    let taken = "update outbox_relay set owner = 'another', epoch = epoch + 1,
                 lease_expires_at = clock_timestamp() + interval '1 hour'";
    sqlx::query(taken).execute(&mut connection).await.unwrap();
    relay.wait_ready(SOON).await;
    assert_eq!(metric(&relay, fault).await, 0.0);
    assert_eq!(
        metric(&relay, "outbox_relay_oldest_unpublished_age_seconds").await,
        0.0,
        "the other tells it"
    );
    assert_eq!(relay.terminate().await, Some(0));
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka_bootstrap()).create().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_a_row_that_the_topic_refuses() {
    let outbox = Outbox::new("too_large").await;
    let small = outbox.topics.full("small.events");
    outbox.topics.add_with(&[("small.events", 1)], &[("max.message.bytes", "2000")]).await;
    let mut connection = outbox.connection().await;
    append(&mut connection, &small, 1).await;
    append_sized(&mut connection, &small, 1, 10_000).await;
    append(&mut connection, &small, 1).await;
    append(&mut connection, &small, 2).await;
    let mut relay = outbox.relay().spawn();
    not_ready(&relay, "was refused by topic").await;
    append(&mut connection, &outbox.topics.full(TOPIC), 3).await;
    assert_eq!(metric(&relay, "outbox_relay_fault{database=\"db\",kind=\"delivery\"}").await, 1.0);
    let behind = metric(&relay, "outbox_relay_produce_errors_total").await;
    // From then on it travels alone: whatever comes behind it, on whatever topic, waits.
    let mut youngest = f64::INFINITY;
    eventually(SOON, async || {
        let age = metric(&relay, "outbox_relay_oldest_unpublished_age_seconds").await;
        youngest = youngest.min(age);
        (metric(&relay, "outbox_relay_produce_errors_total").await >= behind + 3.0).then_some(())
    })
    .await;
    assert!(youngest > 0.0, "its age outlives every tenure: {youngest}");
    let records = outbox.topics.read_all("small.events", |records| !records.is_empty(), SOON).await;
    assert!(
        records.iter().all(|record| record.header("ce_sequence") == Some("1")),
        "nothing passes: {records:?}"
    );
    assert!(outbox.topics.read_to_end(TOPIC, SOON).await.is_empty(), "on no other topic either");
    let wider = AlterConfig::new(ResourceSpecifier::Topic(&small)).set("max.message.bytes", "20000");
    admin().alter_configs([&wider], &AdminOptions::new()).await.unwrap();
    let of_small = audit(&outbox.topics, "small.events", &outbox.database.pool).await;
    println!("refused, then wider: {of_small:?}");
    audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    relay.wait_ready(SOON).await;
    assert_eq!(relay.terminate().await, Some(0));
    let output = relay.output();
    let errors: Vec<&str> = output.lines().filter(|line| line.contains("\"ERROR\"")).collect();
    assert_eq!(errors.len(), 1, "the reason is told once, in our words: {errors:#?}");
    assert!(errors[0].contains("was refused by topic") && errors[0].contains("too large"), "{errors:?}");
}

/// Rows of one piece fill the producer's queue, which has room again before the piece has landed; and a row for which there
/// is no room even when it is empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_smaller_than_a_piece_delays_and_one_that_is_smaller_than_a_row_is_told() {
    let outbox = Outbox::new("queue_full").await;
    bulk(&outbox, 5_000).await;
    let small = "queue.buffering.max.messages=1000;queue.buffering.max.kbytes=100";
    let mut relay = outbox.relay().env("OUTBOX_RELAY_KAFKA_PROPERTIES", small).spawn();
    let backlog = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!((backlog.records, backlog.repeats), (5_000, 0));
    let mut connection = outbox.connection().await;
    append_sized(&mut connection, &outbox.topics.full(TOPIC), 1, 200_000).await;
    append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
    not_ready(&relay, "row 5001 is larger than the producer's whole queue").await;
    let records = outbox.topics.read_to_end(TOPIC, SOON).await;
    assert_eq!(records.len(), 5_000, "nothing passes it");
    assert_eq!(relay.terminate().await, Some(0));
    let mut relay = outbox.relay().spawn();
    assert_eq!(audit(&outbox.topics, TOPIC, &outbox.database.pool).await.records, 5_002);
    assert_eq!(relay.terminate().await, Some(0));
}

/// Brokers know nothing of the producer on a partition that was added: no row goes there before the relay knows of it, and
/// lets the first one travel alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_keeps_its_partition_when_librdkafka_alone_knows_of_more() {
    let outbox = Outbox::new("partition_added").await;
    let (few, topic) = ("few.events", outbox.topics.full("few.events"));
    outbox.topics.add(&[(few, 1)]).await;
    let often = "topic.metadata.refresh.interval.ms=100";
    let mut relay = outbox.relay().env("OUTBOX_RELAY_KAFKA_PROPERTIES", often).spawn();
    let mut connection = outbox.connection().await;
    for aggregate in 1..=8 {
        append(&mut connection, &topic, aggregate).await;
    }
    audit(&outbox.topics, few, &outbox.database.pool).await;
    let more = admin().create_partitions(&[NewPartitions::new(&topic, 2)], &AdminOptions::new()).await;
    more.unwrap().into_iter().for_each(|made| assert!(made.is_ok(), "{made:?}"));
    // Rows without a key go wherever librdkafka knows of.
    let without_key =
        "select outbox_append(array[gen_random_uuid()], array[$1], array[null::bytea], array['{}'],
                                            array[''::bytea])";
    eventually(SOON, async || {
        sqlx::query(without_key).bind(&topic).execute(&mut connection).await.unwrap();
        let records = outbox.topics.read_to_end(few, SOON).await;
        records.iter().any(|record| record.partition == 1).then_some(())
    })
    .await;
    for aggregate in 1..=8 {
        append(&mut connection, &topic, aggregate).await;
    }
    let with_key = async || {
        let records = outbox.topics.read_to_end(few, SOON).await;
        let with_key: Vec<_> = records.into_iter().filter(|record| record.key.is_some()).collect();
        (with_key.len() == 16).then_some(with_key)
    };
    let records = eventually(SOON, with_key).await;
    assert!(records.iter().all(|record| record.partition == 0), "{records:?}");
    assert_eq!(relay.terminate().await, Some(0));
}

/// A broker that knows nothing of a producer on a partition takes any record as its first: one that was sent behind a
/// refused first one, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_the_first_row_of_a_partition_when_it_is_refused() {
    let outbox = Outbox::new("first_too_large").await;
    let small = outbox.topics.full("small.events");
    outbox.topics.add_with(&[("small.events", 1)], &[("max.message.bytes", "2000")]).await;
    let mut connection = outbox.connection().await;
    append_sized(&mut connection, &small, 1, 10_000).await;
    for _ in 0..8 {
        append(&mut connection, &small, 1).await;
    }
    // A request for each row, several on their way at once.
    let mut relay = outbox.relay().env("OUTBOX_RELAY_KAFKA_PROPERTIES", "batch.num.messages=1").spawn();
    not_ready(&relay, "row 1 was refused by topic").await;
    assert!(outbox.topics.read_to_end("small.events", SOON).await.is_empty(), "nothing passes it");
    let wider = AlterConfig::new(ResourceSpecifier::Topic(&small)).set("max.message.bytes", "20000");
    admin().alter_configs([&wider], &AdminOptions::new()).await.unwrap();
    let found = audit(&outbox.topics, "small.events", &outbox.database.pool).await;
    assert_eq!((found.records, found.repeats), (9, 0), "{found:?}");
    relay.wait_ready(SOON).await;
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_tables_is_waited_for_and_holds_up_no_other() {
    let healthy = Outbox::new("other_healthy").await;
    let bare = TestDatabase::create("other_bare").await;
    let databases = format!("bare={},db={}", bare.url, healthy.database.url);
    let mut relay = healthy.relay().env("OUTBOX_RELAY_DATABASES", databases).spawn();
    not_ready(&relay, "the tables outbox and outbox_relay do not exist").await;
    let mut connection = healthy.connection().await;
    append(&mut connection, &healthy.topics.full(TOPIC), 1).await;
    assert_eq!(audit(&healthy.topics, TOPIC, &healthy.database.pool).await.records, 1);
    let late = Outbox { database: bare, topics: TestTopics::new() };
    late.migrate().await;
    relay.wait_ready(SOON).await;
    let mut connection = late.connection().await;
    append(&mut connection, &healthy.topics.full(TOPIC), 2).await;
    healthy.topics.read_all(TOPIC, |records| records.len() == 2, SOON).await;
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test]
async fn servers_that_are_away_are_waited_for_and_the_end_is_bounded() {
    let outbox = Outbox::new("kafka_away").await;
    let mut connection = outbox.connection().await;
    append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
    let nobody = format!("127.0.0.1:{}", waybill_testkit::ports::free_port());
    let mut relay = outbox
        .relay()
        .env("KAFKA_BOOTSTRAP_SERVERS", &nobody)
        .env("WAYBILL_SHUTDOWN_TIMEOUT_MS", "3000")
        .spawn();
    not_ready(&relay, &format!("no broker at {nobody}")).await;
    assert_eq!(relay.terminate().await, Some(0));

    let away = format!("db=postgres://relay@{nobody}/none");
    let mut relay = outbox.relay().env("OUTBOX_RELAY_DATABASES", away).spawn();
    not_ready(&relay, "Postgres is away").await;
    assert_eq!(ask(&relay, "/health").await.0, 200);
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_are_made_again() {
    let outbox = Outbox::new("terminated").await;
    let mut relay = outbox.relay().spawn();
    relay.wait_ready(SOON).await;
    let mut connection = outbox.connection().await;
    for _ in 0..3 {
        append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                     where datname = current_database() and application_name = 'outbox-relay'";
        sqlx::query(ended).execute(&mut connection).await.unwrap();
        append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
        audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
        relay.wait_ready(SOON).await;
    }
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test]
async fn every_mistake_in_the_settings_is_named_and_ends_it_with_two() {
    let mut relay = waybill_testkit::Process::named("outbox-relay")
        .env("OUTBOX_RELAY_DATABASES", "orders=mysql://nowhere")
        .env("OUTBOX_RELAY_LEASE_MS", "soon")
        .spawn();
    assert_eq!(relay.wait_exit(SOON).await, Some(2));
    let output = relay.output();
    assert!(
        output.contains("OUTBOX_RELAY_DATABASES") && output.contains("OUTBOX_RELAY_LEASE_MS"),
        "{output}"
    );
}
