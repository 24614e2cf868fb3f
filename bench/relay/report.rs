//! What one run was: its rate, and what it cost.

use std::fmt;
use std::time::Duration;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) rows_per_second: f64,
    seconds: f64,
    /// Processor time of the sending process, all its threads.
    pub(crate) cpu_seconds: f64,
    pub(crate) cost: Option<Cost>,
}

/// What a drain cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wal_bytes: i64,
    pub(crate) peak_memory_mib: f64,
}

/// What idling costs.
#[derive(Clone, Copy, Debug)]
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
