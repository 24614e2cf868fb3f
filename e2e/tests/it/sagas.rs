//! The saga log read as an auditor would: each history is a path of its saga, and none turns back after the pivot.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::PgPool;

/// Steps in their order, the pivot among them.
const STEPS: [(&str, &[&str]); 2] = [
    ("place-order", &["reserve-stock", "authorize-payment", "confirm", "capture-payment", "commit-stock"]),
    ("cancel-order", &["refund-payment", "restock"]),
];
/// The pivot, a local step.
const PIVOT: &str = "confirm";

/// Reads every instance's history.
///
/// # Panics
/// When one is not a path of its saga.
pub(crate) async fn were_paths(pool: &PgPool) {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("select saga, key::text, entry::text from saga_log order by saga, key, number")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut histories: BTreeMap<(String, String), History> = BTreeMap::new();
    for (saga, key, entry) in rows {
        let entry: Value = serde_json::from_str(&entry).unwrap();
        histories.entry((saga.clone(), key.clone())).or_default().read(&saga, &key, &entry);
    }
    let instances: Vec<(String, String, String)> =
        sqlx::query_as("select saga, key::text, status from saga_instances").fetch_all(pool).await.unwrap();
    assert_eq!(instances.len(), histories.len(), "each instance has its history");
    for (saga, key, status) in instances {
        let ended = &histories[&(saga.clone(), key.clone())].ended;
        assert_eq!(ended.as_deref(), Some(status.as_str()), "{saga} {key} ended as its history says");
    }
}

#[derive(Default)]
struct History {
    started: bool,
    past_pivot: bool,
    turned: bool,
    /// Step and phase to the last attempt.
    attempts: BTreeMap<(String, String), u64>,
    /// The places of steps acted on and taken back, in order.
    acted: Vec<usize>,
    taken_back: Vec<usize>,
    compensated: BTreeSet<String>,
    ended: Option<String>,
}

impl History {
    fn read(&mut self, saga: &str, key: &str, entry: &Value) {
        let told = format!("{saga} {key}: {entry}");
        assert_eq!(self.started, entry["input"].get("started").is_none(), "it starts once: {told}");
        self.started = true;
        let nothing = Vec::new();
        let did = entry["did"].as_array().unwrap_or(&nothing);
        if entry.get("ignored").is_some() {
            assert!(did.is_empty(), "what is ignored does nothing: {told}");
        }
        for did in did {
            assert!(self.ended.is_none(), "nothing after the end: {told}");
            if let Some(sent) = did.get("sent") {
                self.sent(saga, sent, &told);
            } else if let Some(local) = did.get("local") {
                assert_eq!(local["step"], PIVOT, "{told}");
                assert!(!self.past_pivot && !self.turned, "{told}");
                self.past_pivot = true;
            } else if did.get("finished").is_some() {
                self.ended = Some(entry["status"].as_str().unwrap().to_owned());
                let back = entry["status"] == "compensated";
                assert!(if back { !self.past_pivot } else { !self.turned }, "{told}");
            } else if did == "overdue" {
                // Told when it can no longer turn round: past the pivot, on its way back, or without a way back.
                let goes_on = self.past_pivot || self.turned || saga == "cancel-order";
                assert!(goes_on, "an overdue saga turns back while it can: {told}");
            } else {
                panic!("stuck: {told}");
            }
        }
    }

    fn sent(&mut self, saga: &str, sent: &Value, told: &str) {
        let (step, phase) = (sent["step"].as_str().unwrap(), sent["phase"].as_str().unwrap());
        let steps = STEPS.iter().find(|(name, _)| *name == saga).unwrap().1;
        let place =
            steps.iter().position(|name| *name == step).unwrap_or_else(|| panic!("no such step: {told}"));
        let last = self.attempts.entry((step.to_owned(), phase.to_owned())).or_insert(0);
        let attempt = sent["attempt"].as_u64().unwrap();
        assert_eq!(attempt, *last + 1, "attempts count up: {told}");
        *last = attempt;
        if phase == "compensate" {
            assert!(!self.past_pivot, "no way back after the pivot: {told}");
            self.turned = true;
            if attempt == 1 {
                assert!(self.compensated.insert(step.to_owned()), "a step is taken back once: {told}");
                assert!(
                    self.taken_back.last().is_none_or(|last| place < *last),
                    "backwards in order: {told}"
                );
                self.taken_back.push(place);
            }
        } else {
            assert!(!self.turned, "no way forward after turning round: {told}");
            if attempt == 1 {
                assert!(self.acted.last().is_none_or(|last| place > *last), "forward in order: {told}");
                self.acted.push(place);
            }
        }
    }
}
