//! Retry and dead letter topics that may not be written, or are not there: nothing is lost and nothing passes, the relay
//! says which topic and why, and all goes on when it is mended.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{OwnKafka, OwnPostgres};

use crate::invariants;
use crate::shop::Shop;
use crate::system::{Servers, Service, Special, System};

/// Every step of an order meets another of the four topics: reservation and authorisation are retried once, capture and
/// commitment are dead letters once; sagas wait for as long as the test mends.
const SETTINGS: [(&str, &str); 3] = [
    (
        "WAYBILL_FAULTS",
        "ReserveStock:retry:1,AuthorizePayment:retry:1,CapturePayment:reject:1,CommitStock:reject:1",
    ),
    ("WAYBILL_RETRY_DELAYS_MS", "100,200,300"),
    ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "240000"),
];
const RETRY_DENIED: &str = "inventory.commands.inventory.retry.1";
const RETRY_DELETED: &str = "payments.commands.payments.retry.1";
const DLQ_DENIED: &str = "payments.commands.payments.dlq";
const DLQ_DELETED: &str = "inventory.commands.inventory.dlq";
/// A broker's answers and the relay's metadata are renewed on their own; the machine may be busy.
const WAIT: Duration = Duration::from_secs(120);
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
/// Whoever may only read these may not write them.
const READING: [&str; 6] =
    ["--allow-principal", "User:*", "--operation", "Read", "--operation", "DescribeConfigs"];

/// Whoever comes without a name may do everything that no rule speaks of.
async fn guarded() -> Special {
    let kafka = OwnKafka::builder()
        .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .property("allow.everyone.if.no.acl.found", "true");
    let (postgres, kafka) = tokio::join!(OwnPostgres::start(), kafka.start());
    Special { servers: Some(Servers { postgres, kafka }), ..Special::default() }
}

impl System {
    /// Lets these topics be read and not be written.
    async fn deny(&self, names: [&str; 2]) {
        let [one, other] = names.map(|name| self.topics.full(name));
        let rule = ["--add", "--topic", &one, "--topic", &other];
        self.own_kafka().tool(ACLS, &[&rule[..], &READING[..]].concat()).await;
    }

    async fn allow(&self, name: &str) {
        let topic = self.topics.full(name);
        self.own_kafka().tool(ACLS, &["--remove", "--force", "--topic", &topic]).await;
    }

    async fn delete(&self, name: &str) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.topics.bootstrap);
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(WAIT));
        let answers = admin.delete_topics(&[&self.topics.full(name)], &options).await.unwrap();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    /// Waits until the relay is not ready because of this kind of fault in this database, and names the topic; and says
    /// so in its metrics and in its log.
    async fn relay_told(&self, database: &str, kinds: &[&str], topic: &str) {
        let topic = self.topics.full(topic);
        let faults = kinds
            .iter()
            .map(|kind| format!("outbox_relay_fault{{database=\"{database}\",kind=\"{kind}\"}} 1"));
        let faults: Vec<String> = faults.collect();
        eventually_named(&format!("a fault about {topic}"), WAIT, async || {
            let ready = reqwest::get(format!("{}/ready", self.relay.url)).await.ok()?;
            let (status, body) = (ready.status(), ready.text().await.ok()?);
            let metrics =
                reqwest::get(format!("{}/metrics", self.relay.url)).await.ok()?.text().await.ok()?;
            let told = metrics.lines().any(|line| faults.iter().any(|fault| fault == line));
            (status == 503 && body.contains(&topic) && told && self.relay.output().contains(&topic))
                .then_some(())
        })
        .await;
    }

    async fn published(&self, name: &str) -> usize {
        self.topics.read_to_end(name, WAIT).await.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_retries_and_dead_letters_are_denied_or_missing() {
    let mut system = System::start_special("e2e_denied", &SETTINGS, guarded().await).await;
    let shop = Shop::new(&system);
    tokio::join!(
        shop.product("tea", 1_250, 100),
        system.deny([RETRY_DENIED, DLQ_DENIED]),
        system.delete(RETRY_DELETED),
    );
    retries(&system, &shop).await;
    let accepted = shop.accepted();
    dead_letters(&mut system).await;
    invariants::hold_beside(&system, &accepted, 4).await;
    let captured = "select count(*) from payments where state = 'captured'";
    let captured: i64 = sqlx::query_scalar(captured).fetch_one(&system.payments_db.pool).await.unwrap();
    assert_eq!(captured, 2, "both orders are paid");
}

/// Two orders through the retries of inventory, whose topic is denied, and of payments, whose topic is gone.
async fn retries(system: &System, shop: &Shop<'_>) {
    shop.order(&[("tea", 1)], "tok_approve").await;
    // The broker refuses the record, or does not let the topic be known: either is told.
    system.relay_told("inventory", &["delivery", "topic"], RETRY_DENIED).await;
    // Whatever inventory says later waits behind it, in its order.
    let said = system.published("inventory.events").await;
    shop.order(&[("tea", 1)], "tok_approve").await;
    waits(system, Service::Inventory, 2).await;
    assert_eq!(system.published("inventory.events").await, said, "nothing passes");
    assert_eq!(system.published(RETRY_DENIED).await, 0);

    system.allow(RETRY_DENIED).await;
    system.relay_told("payments", &["topic", "delivery"], RETRY_DELETED).await;
    waits(system, Service::Payments, 2).await;
    assert_eq!(system.published(DLQ_DENIED).await, 0);
    system.done(&["topics", "apply"]).await;
}

/// The same orders' captures, whose letters are denied, and commitments, whose letters' topic is gone: the letters are in
/// the database, and what the service says later, be it of the other order, waits behind their mirrors.
async fn dead_letters(system: &mut System) {
    // In time: no order comes to its commitment before the captures are replayed.
    system.delete(DLQ_DELETED).await;
    system.relay_told("payments", &["delivery", "topic"], DLQ_DENIED).await;
    letters(system, Service::Payments, 1).await;
    assert_eq!(system.published(DLQ_DENIED).await, 0);
    system.allow(DLQ_DENIED).await;
    letters(system, Service::Payments, 2).await;
    assert_eq!(mirrors(system, DLQ_DENIED).await.len(), 2);
    let replay = ["dead-letters", "replay", "--all", "--apply", "--reason", "the topic can be written again"];
    system.done(&replay).await;

    system.relay_told("inventory", &["topic", "delivery"], DLQ_DELETED).await;
    letters(system, Service::Inventory, 1).await;
    system.done(&["topics", "apply"]).await;
    letters(system, Service::Inventory, 2).await;
    system.all_ready().await;
    assert_eq!(mirrors(system, DLQ_DELETED).await.len(), 2);
    system.done(&replay).await;
}

/// Waits until so many keys of the service wait for their retry.
async fn waits(system: &System, service: Service, keys: i64) {
    eventually_named("parked keys", WAIT, async || {
        let parked = "select count(*) from parked_keys where state = 'retrying'";
        (count(system, service, parked).await == keys).then_some(())
    })
    .await;
}

/// Waits until so many letters of the service are open.
async fn letters(system: &System, service: Service, open: i64) {
    eventually_named("the letters in the database", WAIT, async || {
        let letters = "select count(*) from dead_letters where state = 'open'";
        (count(system, service, letters).await >= open).then_some(())
    })
    .await;
}

async fn count(system: &System, service: Service, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(&system.database(service).pool).await.unwrap()
}

/// The keys on a dead letter topic, once both are there, each once.
async fn mirrors(system: &System, name: &str) -> Vec<String> {
    let both = |records: &[waybill_testkit::OwnedRecord]| records.len() >= 2;
    let records = system.topics.read_all(name, both, WAIT).await;
    let mut keys: Vec<String> = records.iter().map(|record| record.key_text().to_owned()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
