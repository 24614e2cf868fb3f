//! The saga log read as an auditor would: each history is a path of its saga, and none turns back after the pivot.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::PgConnection;

use super::report::Check;

/// A version of a saga as its log is read.
#[derive(Debug)]
struct Path {
    saga: &'static str,
    version: u64,
    /// In their order, the pivot among them.
    steps: &'static [&'static str],
    /// A local step; none in a saga that only goes forward.
    pivot: Option<&'static str>,
}

const PATHS: [Path; 2] = [
    Path {
        saga: "place-order",
        version: 1,
        steps: &["reserve-stock", "authorize-payment", "confirm", "capture-payment", "commit-stock"],
        pivot: Some("confirm"),
    },
    Path { saga: "cancel-order", version: 1, steps: &["refund-payment", "restock"], pivot: None },
];

/// Reads the log in the order of its primary key, one history at a time.
pub(crate) async fn check(conn: &mut PgConnection) -> anyhow::Result<Check> {
    let mut check = Check::new(
        "saga logs",
        "each history is a path of its saga: forward in order, backward in reverse, never back after the pivot, each compensation once",
    );
    let mut rows = sqlx::query_as::<_, (String, String, String, String)>(
        "select l.saga, l.key::text, coalesce(i.status, 'missing'), l.entry::text
         from saga_log l left join saga_instances i using (saga, key)
         order by l.saga, l.key, l.number",
    )
    .fetch(conn);
    let mut current: Option<History> = None;
    while let Some((saga, key, status, entry)) = rows.try_next().await? {
        let entry: Value = serde_json::from_str(&entry).context("an entry of saga_log is no JSON")?;
        if current.as_ref().is_some_and(|history| history.saga != saga || history.key != key)
            && let Some(done) = current.take()
        {
            done.judge(&mut check);
        }
        current.get_or_insert_with(|| History::new(saga, key, status)).read(&entry);
    }
    if let Some(done) = current {
        done.judge(&mut check);
    }
    Ok(check)
}

/// What is remembered of one instance's entries; bounded by its saga's steps.
struct History {
    saga: String,
    key: String,
    status: String,
    /// The version it began with, when it is one of [`PATHS`].
    path: Option<&'static Path>,
    /// It says that it began, on a version that is none of them.
    unknown: bool,
    started: bool,
    past_pivot: bool,
    turned: bool,
    by_hand: bool,
    /// Step and phase to the last attempt.
    attempts: BTreeMap<(usize, bool), u64>,
    /// The last place acted on, and the last taken back.
    acted: Option<usize>,
    taken_back: Option<usize>,
    ended: Option<String>,
    wrong: Option<String>,
    /// What is wrong whoever has moved it.
    forbidden: Option<String>,
}

impl History {
    fn new(saga: String, key: String, status: String) -> Self {
        Self {
            saga,
            key,
            status,
            path: None,
            unknown: false,
            started: false,
            past_pivot: false,
            turned: false,
            by_hand: false,
            attempts: BTreeMap::new(),
            acted: None,
            taken_back: None,
            ended: None,
            wrong: None,
            forbidden: None,
        }
    }

    fn judge(mut self, check: &mut Check) {
        if self.unknown {
            check.not_judged("sagas of a version that this program does not know", 1);
            return;
        }
        check.judged += 1;
        let is_ended = ["completed", "compensated", "abandoned"].contains(&self.status.as_str());
        let agrees = self.ended.as_deref() == is_ended.then_some(self.status.as_str());
        self.must(agrees, || "the log ends otherwise than the instance".to_owned());
        if self.by_hand {
            check.not_judged("the order of steps of sagas that an operator moved by hand", 1);
            self.wrong = None;
        }
        if let Some(wrong) = self.forbidden.or(self.wrong) {
            check.violation(format!("{} {} ({}): {wrong}", self.saga, self.key, self.status));
        }
    }

    /// Remembers the first thing that is wrong.
    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    /// The same for what holds after an operator's hand too.
    fn must_always(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.forbidden.is_none() {
            self.forbidden = Some(what());
        }
    }

    fn read(&mut self, entry: &Value) {
        self.by_hand |= entry["input"].get("operator").is_some();
        let started = entry["input"].get("started");
        self.must(started.is_some() != self.started, || format!("it starts once, and first: {entry}"));
        self.started = true;
        if let Some(started) = started {
            let began = |path: &&Path| path.saga == self.saga && started["version"] == path.version;
            self.path = PATHS.iter().find(began);
            self.unknown = self.path.is_none();
        }
        let nothing = Vec::new();
        let did = entry["did"].as_array().unwrap_or(&nothing);
        let idle = entry.get("ignored").is_none() || did.is_empty();
        self.must(idle, || format!("what is ignored does nothing: {entry}"));
        for did in did {
            let open = self.ended.is_none();
            self.must_always(open, || format!("nothing follows the end: {entry}"));
            self.follow(did, entry);
        }
    }

    fn follow(&mut self, did: &Value, entry: &Value) {
        if let Some(sent) = did.get("sent") {
            self.sent(sent, entry);
        } else if let Some(local) = did.get("local") {
            let pivot = self.path.and_then(|path| path.pivot);
            let forward =
                pivot.is_some_and(|pivot| local["step"] == pivot) && !self.past_pivot && !self.turned;
            self.must(forward, || format!("the pivot is passed once, forward: {entry}"));
            self.past_pivot = true;
        } else if did.get("finished").is_some() {
            let ending = entry["status"].as_str().unwrap_or_default().to_owned();
            let fits = match ending.as_str() {
                "compensated" => !self.past_pivot,
                "completed" => !self.turned,
                _ => true,
            };
            self.must(fits, || format!("an end that does not follow: {entry}"));
            self.ended = Some(ending);
        } else if did.get("stuck").is_none() {
            // Told when it can no longer turn round: past the pivot, on its way back, or without a way back.
            let only_forward = self.path.is_some_and(|path| path.pivot.is_none());
            let goes_on = self.past_pivot || self.turned || only_forward;
            self.must(did == "overdue" && goes_on, || {
                format!("an overdue saga turns back while it can: {entry}")
            });
        }
    }

    fn sent(&mut self, sent: &Value, entry: &Value) {
        let step = sent["step"].as_str().unwrap_or_default();
        let steps = self.path.map_or(&[][..], |path| path.steps);
        let Some(place) = steps.iter().position(|name| *name == step) else {
            self.must(false, || format!("no such step: {entry}"));
            return;
        };
        let back = sent["phase"] == "compensate";
        let last = self.attempts.entry((place, back)).or_insert(0);
        let counted = sent["attempt"].as_u64() == Some(*last + 1);
        let first = *last == 0;
        *last += 1;
        self.must(counted, || format!("attempts count up: {entry}"));
        if back {
            let may = !self.past_pivot;
            self.must_always(may, || format!("no way back after the pivot: {entry}"));
            self.turned = true;
            let in_order = !first || self.taken_back.is_none_or(|last| place < last);
            self.must(in_order, || format!("backward in order, each step once: {entry}"));
            self.taken_back = Some(place);
        } else {
            let may = !self.turned;
            self.must(may, || format!("no way forward after turning round: {entry}"));
            let in_order = !first || self.acted.is_none_or(|last| place > last);
            self.must(in_order, || format!("forward in order: {entry}"));
            self.acted = Some(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(step: &str, phase: &str, attempt: u64) -> Value {
        json!({"sent": {"step": step, "phase": phase, "attempt": attempt}})
    }

    fn found(status: &str, entries: &[&Value]) -> Check {
        let mut history = History::new("place-order".into(), "k".into(), status.into());
        entries.iter().for_each(|entry| history.read(entry));
        let mut check = Check::new("", "");
        history.judge(&mut check);
        check
    }

    #[test]
    fn paths_are_paths_and_others_are_not() {
        let start = json!({"input": {"started": {"version": 1}}, "did": [sent("reserve-stock", "act", 1)]});
        let pivot =
            json!({"input": {}, "did": [{"local": {"step": "confirm"}}, sent("capture-payment", "act", 1)]});
        let back = json!({"input": {}, "did": [sent("reserve-stock", "compensate", 1)]});
        let end = |status: &str| json!({"input": {}, "did": [{"finished": {}}], "status": status});
        let by_hand =
            json!({"input": {"operator": "skip"}, "did": [{"finished": {}}], "status": "completed"});
        let retried = json!({"input": {"operator": "retry"}, "did": [sent("capture-payment", "act", 2)]});
        for (violations, status, entries) in [
            (0, "running", vec![&start]),
            (0, "completed", vec![&start, &pivot, &end("completed")]),
            (0, "compensated", vec![&start, &back, &end("compensated")]),
            (0, "completed", vec![&start, &pivot, &by_hand]),
            (1, "running", vec![&back]),
            (1, "running", vec![&start, &start]),
            (1, "compensating", vec![&start, &pivot, &back]),
            (1, "compensating", vec![&start, &back, &back]),
            (1, "completed", vec![&start, &back, &end("completed")]),
            (1, "running", vec![&start, &pivot, &end("completed")]),
            (1, "completed", vec![&start]),
            (1, "completed", vec![&start, &pivot, &retried, &back, &end("completed")]),
            (1, "completed", vec![&start, &pivot, &by_hand, &retried]),
        ] {
            assert_eq!(found(status, &entries).violations, violations, "{entries:?}");
        }
    }
    #[test]
    fn a_version_that_is_not_known_is_told_and_not_judged() {
        let start = |version: u64| json!({"input": {"started": {"version": version}}, "did": [sent("weigh-parcel", "act", 1)]});
        assert_eq!(found("running", &[&start(1)]).violations, 1, "version 1 has no such step");
        let newer = found("running", &[&start(2)]);
        assert_eq!((newer.violations, newer.judged, newer.not_judged.len()), (0, 0, 1), "{newer:?}");
    }
}
