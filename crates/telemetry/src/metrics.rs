//! Metrics: one registry a process, a metric is made once by its name, rendered in Prometheus' text format.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder,
};

use crate::process;

/// Buckets for latencies, in seconds: half a millisecond to ten seconds, each about double the one before.
pub const LATENCY_BUCKETS_S: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets for counts of things handled at once.
pub const SIZE_BUCKETS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// Everything made so far, by name: metric handles are cheap clones of the registered one.
static MADE: LazyLock<Mutex<HashMap<String, Made>>> = LazyLock::new(Mutex::default);

#[derive(Clone)]
enum Made {
    Counter(IntCounterVec),
    IntGauge(IntGaugeVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

/// A counter; name it `..._total`. The same name gives the same counter.
///
/// # Panics
/// When the name is taken by a metric of another kind or is not a metric name: a fault of the program, seen at its first start.
#[must_use]
pub fn counter_vec(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let make =
        || IntCounterVec::new(Opts::new(name, help), labels).map(|m| (Made::Counter(m.clone()), boxed(m)));
    match made(name, make) {
        Made::Counter(metric) => metric,
        _ => panic!("metric {name} exists already and is no counter"),
    }
}

/// A gauge of whole numbers. The same name gives the same gauge.
///
/// # Panics
/// As [`counter_vec`].
#[must_use]
pub fn int_gauge_vec(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let make =
        || IntGaugeVec::new(Opts::new(name, help), labels).map(|m| (Made::IntGauge(m.clone()), boxed(m)));
    match made(name, make) {
        Made::IntGauge(metric) => metric,
        _ => panic!("metric {name} exists already and is no gauge of whole numbers"),
    }
}

/// A gauge, for ages in seconds and ratios. The same name gives the same gauge.
///
/// # Panics
/// As [`counter_vec`].
#[must_use]
pub fn gauge_vec(name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    let make = || GaugeVec::new(Opts::new(name, help), labels).map(|m| (Made::Gauge(m.clone()), boxed(m)));
    match made(name, make) {
        Made::Gauge(metric) => metric,
        _ => panic!("metric {name} exists already and is no gauge"),
    }
}

/// A histogram. The same name gives the same histogram.
///
/// # Panics
/// As [`counter_vec`].
#[must_use]
pub fn histogram_vec(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let make = || HistogramVec::new(options, labels).map(|m| (Made::Histogram(m.clone()), boxed(m)));
    match made(name, make) {
        Made::Histogram(metric) => metric,
        _ => panic!("metric {name} exists already and is no histogram"),
    }
}

/// Everything this process measures, in Prometheus' text format, its own memory, CPU time and open files included.
#[must_use]
pub fn render() -> String {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&prometheus::gather(), &mut text) {
        tracing::error!(%error, "metrics could not be rendered");
    }
    let mut text = String::from_utf8(text).unwrap_or_default();
    process::render_into(&mut text);
    text
}

fn boxed(metric: impl Collector + 'static) -> Box<dyn Collector> {
    Box::new(metric)
}

fn made(name: &str, make: impl FnOnce() -> prometheus::Result<(Made, Box<dyn Collector>)>) -> Made {
    let mut all = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(metric) = all.get(name) {
        return metric.clone();
    }
    let (metric, collector) = make().unwrap_or_else(|error| panic!("metric {name}: {error}"));
    prometheus::default_registry()
        .register(collector)
        .unwrap_or_else(|error| panic!("metric {name}: {error}"));
    all.insert(name.to_owned(), metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_metric_and_is_rendered() {
        counter_vec("telemetry_test_total", "For this test.", &["kind"]).with_label_values(&["a"]).inc();
        counter_vec("telemetry_test_total", "For this test.", &["kind"]).with_label_values(&["a"]).inc();
        let text = render();
        assert!(text.contains("telemetry_test_total{kind=\"a\"} 2"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[test]
    #[should_panic(expected = "is no counter")]
    fn a_name_has_one_kind() {
        let _gauge = gauge_vec("telemetry_test_kind", "For this test.", &[]);
        let _counter = counter_vec("telemetry_test_kind", "For this test.", &[]);
    }
}
