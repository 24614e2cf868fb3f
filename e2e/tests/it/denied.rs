//! A retry topic that may not be written, a dead letter topic that is not there: nothing is lost and nothing passes, the
//! relay says which topic and why, and all goes on when it is mended.

use std::time::Duration;

use waybill_testkit::polling::eventually_named;
use waybill_testkit::{OwnKafka, OwnPostgres};

use crate::invariants;
use crate::shop::Shop;
use crate::system::{Servers, Special, System};

/// Every reservation is retried once, every capture is a dead letter once; sagas wait for as long as the test mends.
const SETTINGS: [(&str, &str); 3] = [
    ("WAYBILL_FAULTS", "ReserveStock:retry:1,CapturePayment:reject:1"),
    ("WAYBILL_RETRY_DELAYS_MS", "100,200,300"),
    ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "240000"),
];
const RETRY: &str = "inventory.commands.inventory.retry.1";
const DLQ: &str = "payments.commands.payments.dlq";
/// A broker's answers and the relay's metadata are renewed on their own; the machine may be busy.
const WAIT: Duration = Duration::from_secs(120);
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

/// Whoever comes without a name may do everything that no rule speaks of.
async fn guarded() -> Special {
    let kafka = OwnKafka::builder()
        .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .property("allow.everyone.if.no.acl.found", "true");
    let (postgres, kafka) = tokio::join!(OwnPostgres::start(), kafka.start());
    Special { servers: Some(Servers { postgres, kafka }), ..Special::default() }
}

impl System {
    async fn kafka(&mut self, class: &str, arguments: &[&str]) -> String {
        self.servers().kafka.tool(class, arguments).await
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
    Shop::new(&system).product("tea", 1_250, 100).await;

    let retry = system.topics.full(RETRY);
    let rule = ["--topic", &retry, "--allow-principal", "User:*", "--operation", "All"];
    system.kafka(ACLS, &[&["--add"], &rule[..]].concat()).await;
    let denial = ["--topic", &retry, "--deny-principal", "User:ANONYMOUS", "--operation", "Write"];
    system.kafka(ACLS, &[&["--add"], &denial[..]].concat()).await;
    Shop::new(&system).order(&[("tea", 1)], "tok_approve").await;
    // The broker refuses the record, or does not let the topic be known: either is told.
    system.relay_told("inventory", &["delivery", "topic"], RETRY).await;
    // Whatever inventory says later waits behind it, in its order.
    let said = system.published("inventory.events").await;
    Shop::new(&system).order(&[("tea", 1)], "tok_approve").await;
    waits(&system, 2).await;
    assert_eq!(system.published("inventory.events").await, said, "nothing passes");
    assert_eq!(system.published(RETRY).await, 0);

    // The orders go on now, to captures that are dead letters, whose topic is gone: the letter is in the database, and what
    // payments says later, be it of the other order, waits behind its mirror.
    let dlq = system.topics.full(DLQ);
    system.kafka(TOPICS, &["--delete", "--topic", &dlq]).await;
    system.kafka(ACLS, &[&["--remove", "--force"], &denial[..]].concat()).await;
    system.relay_told("payments", &["topic", "delivery"], DLQ).await;
    letters(&system, 1).await;
    let (code, said) = system.operator(&["topics", "apply"]).await;
    assert_eq!(code, Some(0), "{said}");
    letters(&system, 2).await;
    system.all_ready().await;
    assert_eq!(mirrors(&system).await.len(), 2);

    let replay = ["dead-letters", "replay", "--all", "--apply", "--reason", "the topic is there again"];
    let (code, said) = system.operator(&replay).await;
    assert_eq!(code, Some(0), "{said}");
    invariants::hold_beside(&system, &[], 2).await;
    let captured = "select count(*) from payments where state = 'captured'";
    let captured: i64 = sqlx::query_scalar(captured).fetch_one(&system.payments_db.pool).await.unwrap();
    assert_eq!(captured, 2, "both orders are paid");
}

/// Waits until so many keys of inventory wait for their retry.
async fn waits(system: &System, keys: i64) {
    eventually_named("parked keys", WAIT, async || {
        let parked = "select count(*) from parked_keys where state = 'retrying'";
        (invariants::count_in_all(system, parked).await == keys).then_some(())
    })
    .await;
}

/// Waits until so many letters are open, or more.
async fn letters(system: &System, least: i64) {
    eventually_named("the letters in the database", WAIT, async || {
        let open = "select count(*) from dead_letters where state = 'open'";
        (invariants::count_in_all(system, open).await >= least).then_some(())
    })
    .await;
}

/// The keys on the dead letter topic, once both are there, each once.
async fn mirrors(system: &System) -> Vec<String> {
    let both = |records: &[waybill_testkit::OwnedRecord]| records.len() >= 2;
    let records = system.topics.read_all(DLQ, both, WAIT).await;
    let mut keys: Vec<String> = records.iter().map(|record| record.key_text().to_owned()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
