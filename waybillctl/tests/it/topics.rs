//! `waybillctl topics` and the check that services make, against a real broker under a prefix of the test's own.

use std::process::Output;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use waybill_events::topics::{manifest_parsed, topic};
use waybill_messaging::config;
use waybill_messaging::topics::{TopicAdmin, TopicsError};
use waybill_testkit::{TestTopics, kafka_bootstrap};

use crate::{text, waybillctl};

/// A prefix of its own; what `apply` created under it is deleted at the end of the test.
struct Corner {
    topics: TestTopics,
    bootstrap: String,
}

impl Corner {
    fn new() -> Self {
        Self { topics: TestTopics::new(), bootstrap: kafka_bootstrap() }
    }

    /// `waybillctl topics VERB` in this corner.
    fn topics(&self, verb: &str, more: &[&str]) -> Output {
        let here = ["topics", verb, "--prefix", &self.topics.prefix, "--bootstrap-servers", &self.bootstrap];
        waybillctl(&[&here, more].concat())
    }

    fn json(&self, verb: &str, code: i32) -> Value {
        let run = self.topics(verb, &["--json"]);
        assert_eq!(run.status.code(), Some(code), "{}", text(&run.stderr));
        serde_json::from_slice(&run.stdout).unwrap()
    }

    fn admin(&self) -> TopicAdmin {
        TopicAdmin::new(&config::admin(&self.bootstrap, "waybillctl-test"), &self.topics.prefix).unwrap()
    }

    async fn cleared(self) {
        let admin: AdminClient<DefaultClientContext> =
            config::admin(&self.bootstrap, "waybillctl-test").create().unwrap();
        let names: Vec<String> = topic::ALL.iter().map(|name| self.topics.full(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        admin.delete_topics(&names, &AdminOptions::new()).await.unwrap();
    }
}

/// How many topics of this report are in this state.
fn count(report: &Value, state: &str) -> usize {
    report["topics"].as_array().unwrap().iter().filter(|topic| topic["state"] == state).count()
}

#[tokio::test]
async fn plan_shows_apply_creates_and_twice_does_no_harm() {
    let corner = Corner::new();
    let all = topic::ALL.len();

    let plan = corner.json("plan", 3);
    assert_eq!((plan["as_declared"].as_bool(), count(&plan, "missing")), (Some(false), all));
    assert_eq!(count(&corner.json("plan", 3), "missing"), all, "plan creates nothing");

    let said = corner.topics("plan", &[]);
    let missing: String =
        topic::ALL.iter().map(|name| format!("missing  {}{name}\n", corner.topics.prefix)).collect();
    let sum = format!("{all} declared: 0 as declared, {all} missing, 0 drifted\n");
    let mend = "create what is missing with `waybillctl topics apply` and the same options\n";
    assert_eq!(text(&said.stdout), format!("{missing}{sum}{mend}"));

    let applied = corner.topics("apply", &[]);
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));
    insta::assert_snapshot!("topics_apply", text(&applied.stdout).replace(&corner.topics.prefix, ""));
    corner.cleared().await;

    let corner = Corner::new();
    let first = corner.json("apply", 0);
    let created: Vec<String> = topic::ALL.iter().map(|name| corner.topics.full(name)).collect();
    assert_eq!(first["created"], serde_json::json!(created));
    let again = corner.json("apply", 0);
    assert_eq!(again["created"], serde_json::json!([]));
    assert_eq!(count(&corner.json("plan", 0), "as_declared"), all);

    let run = corner.topics("plan", &["--replication", "1"]);
    let prefix = &corner.topics.prefix;
    let lines: String = topic::ALL.iter().map(|name| format!("ok       {prefix}{name}\n")).collect();
    assert_eq!(
        text(&run.stdout),
        format!("{lines}{all} declared: {all} as declared, 0 missing, 0 drifted\n"),
    );
    corner.cleared().await;
}

#[tokio::test]
async fn two_at_the_same_time_both_succeed() {
    let corner = Corner::new();
    let manifest = manifest_parsed().unwrap();
    let (one, other) = (corner.admin(), corner.admin());
    let (one, other) = tokio::join!(one.apply(&manifest, None), other.apply(&manifest, None));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.plan.is_as_declared() && other.plan.is_as_declared());
    assert_eq!(one.created.len() + other.created.len(), topic::ALL.len(), "each topic is created once");
    corner.cleared().await;
}

#[tokio::test]
async fn a_topic_in_another_shape_is_named_and_left_alone() {
    let corner = Corner::new();
    corner.topics.add(&[(topic::ORDERS_EVENTS, 3)]).await;
    let name = corner.topics.full(topic::ORDERS_EVENTS);

    let applied = corner.json("apply", 3);
    assert_eq!((count(&applied, "drifted"), count(&applied, "as_declared")), (1, topic::ALL.len() - 1));
    let drifted = &applied["topics"][0];
    assert_eq!(drifted["name"], name);
    let settings: Vec<&str> = drifted["drifts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|drift| drift["setting"].as_str().unwrap())
        .collect();
    assert_eq!(settings, ["partitions", "retention.ms"]);
    assert_eq!(drifted["drifts"][0]["found"], "3");

    let run = corner.topics("plan", &["--replication", "2"]);
    assert_eq!(run.status.code(), Some(3));
    let said = text(&run.stdout);
    assert!(
        said.contains(&format!("drifted  {name}\n         topic {name} has partitions = 3, declared is 6: "))
    );
    assert!(said.contains("has replication = 1, declared is 2: "));
    assert!(said.contains(&format!("--entity-name {name} --add-config retention.ms=2592000000")));
    corner.cleared().await;
}

#[tokio::test]
async fn a_service_learns_which_of_its_topics_are_wrong() {
    let corner = Corner::new();
    let manifest = manifest_parsed().unwrap();
    corner.topics.add(&[(topic::PAYMENTS_EVENTS, 6)]).await;
    let admin = corner.admin();

    let error = admin.check(&manifest, &[topic::INVENTORY_EVENTS, topic::PAYMENTS_EVENTS]).await.unwrap_err();
    assert!(!error.is_transient());
    let said = error.to_string();
    let (missing, drifted) =
        (corner.topics.full(topic::INVENTORY_EVENTS), corner.topics.full(topic::PAYMENTS_EVENTS));
    assert!(
        said.contains(&format!("topic {missing} is missing: create it with `waybillctl topics apply`")),
        "{said}"
    );
    assert!(said.contains(&format!("topic {drifted} has retention.ms = ")), "{said}");

    let undeclared = admin.check(&manifest, &["orders.rumours"]).await;
    assert!(matches!(undeclared, Err(TopicsError::Undeclared { .. })));

    admin.apply(&manifest, Some(1)).await.unwrap();
    admin.check(&manifest, &[topic::INVENTORY_EVENTS, topic::ORDERS_EVENTS]).await.unwrap();
    corner.cleared().await;
}

#[tokio::test]
async fn more_copies_than_brokers_are_refused_by_name() {
    let corner = Corner::new();
    let run = corner.topics("apply", &["--replication", "100"]);
    assert_eq!(run.status.code(), Some(1));
    let said = text(&run.stderr);
    assert!(said.contains(&format!("refused to create {}orders.events", corner.topics.prefix)), "{said}");
}

#[tokio::test]
async fn brokers_that_are_away_are_worth_another_try() {
    let admin = TopicAdmin::new(&config::admin("127.0.0.1:1", "waybillctl-test"), "").unwrap();
    let error = admin.check(&manifest_parsed().unwrap(), &[topic::ORDERS_EVENTS]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}
