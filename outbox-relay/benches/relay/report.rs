//! What was measured, and whether it is good enough.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    rows_per_second: f64,
    seconds: f64,
    /// Processor time of the sending process, all its threads.
    cpu_seconds: f64,
    pub(crate) cost: Option<Cost>,
}

/// What a drain cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wal_bytes: i64,
    pub(crate) peak_memory_mib: f64,
}

/// What idling costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) queries_per_second: f64,
    pub(crate) wal_bytes_per_second: f64,
}

impl Run {
    pub(crate) fn new(rows: usize, time: Duration, cpu_seconds: f64) -> Self {
        let seconds = time.as_secs_f64();
        Self { rows_per_second: rows as f64 / seconds, seconds, cpu_seconds, cost: None }
    }
}

/// Processor time a process has had, user's and kernel's.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    // The kernel counts hundredths of a second.
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() as f64 / 100.0
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} rows/s ({:.2} s, {:.2} s of processor)",
            self.rows_per_second, self.seconds, self.cpu_seconds
        )?;
        match &self.cost {
            Some(cost) => write!(f, ", WAL {} B, {:.0} MiB at most", cost.wal_bytes, cost.peak_memory_mib),
            None => Ok(()),
        }
    }
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: i64,
    payload_bytes: i32,
    partitions: i32,
    bare_rows_per_second: Vec<f64>,
    relay_rows_per_second: Vec<f64>,
    /// Median of the relay's runs over the median of the bare producer's.
    ratio: f64,
    /// The worst run's.
    wal_bytes_per_row: f64,
    outbox_dead_tuples: i64,
    peak_memory_mib: f64,
    /// Of the sending process, its least run: what other work on the machine disturbs least.
    bare_cpu_us_per_row: f64,
    relay_cpu_us_per_row: f64,
    idle: Idle,
}

impl Report {
    pub(crate) fn new(
        rows: i64,
        payload_bytes: i32,
        partitions: i32,
        bare: &[Run],
        relay: &[Run],
        outbox_dead_tuples: i64,
        idle: Idle,
    ) -> Self {
        let rates = |runs: &[Run]| runs.iter().map(|run| run.rows_per_second.round()).collect::<Vec<_>>();
        let costs: Vec<Cost> = relay.iter().filter_map(|run| run.cost).collect();
        let most = |of: fn(&Cost) -> f64| costs.iter().map(of).fold(0.0, f64::max);
        Self {
            rows,
            payload_bytes,
            partitions,
            bare_rows_per_second: rates(bare),
            relay_rows_per_second: rates(relay),
            ratio: median(relay) / median(bare),
            wal_bytes_per_row: most(|cost| cost.wal_bytes as f64) / rows as f64,
            outbox_dead_tuples,
            peak_memory_mib: most(|cost| cost.peak_memory_mib),
            bare_cpu_us_per_row: least_cpu(bare) * 1e6 / rows as f64,
            relay_cpu_us_per_row: least_cpu(relay) * 1e6 / rows as f64,
            idle,
        }
    }

    pub(crate) fn verdict(&self) -> String {
        let mark = |good: bool| if good { "met" } else { "MISSED" };
        format!(
            "drain {:.0} % of the bare producer (at least 50): {}\nWAL {:.3} B/row (at most 1): {}\n\
             dead tuples of the outbox {} (0): {}\nidle {:.1} queries/s (at most 50): {}",
            self.ratio * 100.0,
            mark(self.ratio >= 0.5),
            self.wal_bytes_per_row,
            mark(self.wal_bytes_per_row <= 1.0),
            self.outbox_dead_tuples,
            mark(self.outbox_dead_tuples == 0),
            self.idle.queries_per_second,
            mark(self.idle.queries_per_second <= 50.0),
        )
    }
}

fn median(runs: &[Run]) -> f64 {
    let mut rates: Vec<f64> = runs.iter().map(|run| run.rows_per_second).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn least_cpu(runs: &[Run]) -> f64 {
    runs.iter().map(|run| run.cpu_seconds).fold(f64::INFINITY, f64::min)
}
