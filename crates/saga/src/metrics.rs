//! What the runner measures. Counted when an input is taken: a transaction that is rolled back and repeated counts again.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};
use waybill_telemetry::metrics::{counter_vec, histogram_vec, int_gauge_vec};

use crate::engine::Effect;
use crate::state::{Ending, Phase};

/// A step is a few milliseconds of work and two hops through the broker; minutes when something is away.
const STEP_BUCKETS_S: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The runner's metrics, labelled by saga.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    saga: &'static str,
    started: IntCounterVec,
    finished: IntCounterVec,
    ignored: IntCounterVec,
    overdue: IntCounterVec,
    stuck: IntGaugeVec,
    step_seconds: HistogramVec,
}

impl Metrics {
    pub(crate) fn new(saga: &'static str) -> Self {
        let overdue = counter_vec(
            "saga_overdue_total",
            "Sagas past their deadline that could no longer turn round.",
            &["saga"],
        );
        // Told from the start: to whoever watches, the step from nothing to 1 is no increase.
        overdue.with_label_values(&[saga]);
        Self {
            saga,
            started: counter_vec("saga_started_total", "Sagas begun.", &["saga"]),
            finished: counter_vec("saga_finished_total", "Sagas ended, by ending.", &["saga", "ending"]),
            ignored: counter_vec("saga_ignored_total", "Late, repeated or misplaced inputs.", &["saga"]),
            overdue,
            stuck: int_gauge_vec("saga_stuck", "Sagas that wait for an operator.", &["saga"]),
            step_seconds: histogram_vec(
                "saga_step_seconds",
                "From a step's first command to its reply, by the database's clock.",
                &["saga", "step", "phase"],
                STEP_BUCKETS_S,
            ),
        }
    }

    pub(crate) fn started(&self) {
        self.started.with_label_values(&[self.saga]).inc();
    }

    pub(crate) fn ignored(&self) {
        self.ignored.with_label_values(&[self.saga]).inc();
    }

    pub(crate) fn step(&self, step: &str, phase: Phase, seconds: f64) {
        self.step_seconds.with_label_values(&[self.saga, step, phase.as_str()]).observe(seconds);
    }

    pub(crate) fn stuck(&self, count: i64) {
        self.stuck.with_label_values(&[self.saga]).set(count);
    }

    pub(crate) fn effect(&self, effect: &Effect) {
        match effect {
            Effect::Finished(ending) => {
                let ending = match ending {
                    Ending::Completed => "completed",
                    Ending::Compensated { .. } => "compensated",
                    Ending::Abandoned => "abandoned",
                };
                self.finished.with_label_values(&[self.saga, ending]).inc();
            }
            Effect::Stuck { .. } => self.stuck.with_label_values(&[self.saga]).inc(),
            Effect::Overdue => self.overdue.with_label_values(&[self.saga]).inc(),
            Effect::Command { .. } | Effect::Local { .. } | Effect::LocalCompensation { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_alerts_is_there() {
        let metrics = Metrics::new("alerts");
        metrics.stuck(0);
        metrics.effect(&Effect::Overdue);
        let there = waybill_telemetry::metrics::render();
        let rules = include_str!("../../../deploy/alerts/sagas.rules.yml");
        let exprs = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
        let names = exprs.flat_map(|expr| expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        let names: Vec<&str> = names.filter(|name| name.starts_with("saga_")).collect();
        assert!(names.len() >= 3, "{names:?}");
        for name in names {
            assert!(there.contains(&format!("# TYPE {name} ")), "{name} is in an alert, and nowhere else");
        }
    }
}
