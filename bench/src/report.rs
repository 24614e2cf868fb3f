//! The figures, for programs: one JSON object.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use crate::audit::Audited;
use crate::phases::closed::Throughput;
use crate::phases::open::OpenLoop;
use crate::phases::single::Single;
use crate::tuples::Tuples;

/// Everything a run found out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What it ran on.
    pub machine: Machine,
    /// Whether `pg_stat_statements` was preloaded; else statements are not told.
    pub statements_counted: bool,
    /// Whether the log could be read; else WAL is not told.
    pub wal_read: bool,
    /// One order alone.
    pub single: Single,
    /// The closed loop.
    pub throughput: Throughput,
    /// The open loop.
    pub open_loop: Option<OpenLoop>,
    /// Row versions at the end, by database.
    pub tuples: Vec<(&'static str, Tuples)>,
    /// What was checked.
    pub audit: Audited,
}

/// What a run ran on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Cores this process may use.
    pub cores: usize,
    /// The processor's own name.
    pub processor: String,
    /// Postgres' version and the settings that decide about commits.
    pub postgres: String,
    /// Folder of the measured programs.
    pub programs: String,
}

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latency {
    /// How many times.
    pub count: usize,
    /// Half took no longer.
    pub p50_ms: f64,
    /// 90 of 100 took no longer.
    pub p90_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// A measured time, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its beginning.
    pub from_us: i64,
    /// Its end, no more part of it.
    pub to_us: i64,
}

impl Report {
    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }
}

impl Machine {
    /// Looks at this machine and at the server.
    ///
    /// # Errors
    /// When the server can not be asked.
    pub async fn look(pool: &PgPool) -> Result<Self> {
        let postgres = sqlx::query_scalar(
            "select 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1)
                    || ', fsync ' || current_setting('fsync')
                    || ', synchronous_commit ' || current_setting('synchronous_commit')
                    || ', full_page_writes ' || current_setting('full_page_writes')
                    || ', shared_buffers ' || current_setting('shared_buffers')",
        )
        .fetch_one(pool)
        .await
        .context("asking for settings")?;
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name =
            info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
        let programs = waybill_testkit::process::binary_path("waybill-orders");
        let folder = programs.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            processor: name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            postgres,
            programs: folder.to_string_lossy().into_owned(),
        })
    }
}

impl Latency {
    /// From times in microseconds, in any order.
    #[must_use]
    pub fn of(mut times_us: Vec<u64>) -> Self {
        times_us.sort_unstable();
        let Some(last) = times_us.len().checked_sub(1) else { return Self::default() };
        // The smallest time that this part of all did not exceed.
        let at = |percent: usize| ms(times_us[((last + 1) * percent).div_ceil(100).saturating_sub(1)]);
        Self {
            count: times_us.len(),
            p50_ms: at(50),
            p90_ms: at(90),
            p99_ms: at(99),
            max_ms: ms(times_us[last]),
        }
    }
}

fn ms(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64() * 1_000.0
}

impl Window {
    /// Whether a moment lies in it.
    #[must_use]
    pub fn holds(&self, at_us: i64) -> bool {
        (self.from_us..self.to_us).contains(&at_us)
    }

    /// Its length.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        crate::costs::real(self.to_us - self.from_us) / 1e6
    }

    /// Orders that became CONFIRMED in it.
    ///
    /// # Errors
    /// When the database can not be asked.
    pub async fn confirmed(&self, pool: &PgPool) -> Result<i64> {
        let (from, to) = self.times()?;
        sqlx::query_scalar(
            "select count(*) from orders where status = 'CONFIRMED' and updated_at >= $1 and updated_at < $2",
        )
        .bind(from)
        .bind(to)
        .fetch_one(pool)
        .await
        .context("counting confirmed orders")
    }

    /// Messages appended to the outbox in it.
    ///
    /// # Errors
    /// When the database can not be asked.
    pub async fn events(&self, pool: &PgPool) -> Result<i64> {
        let (from, to) = self.times()?;
        sqlx::query_scalar("select count(*) from outbox where created_at >= $1 and created_at < $2")
            .bind(from)
            .bind(to)
            .fetch_one(pool)
            .await
            .context("counting messages")
    }

    fn times(&self) -> Result<(DateTime<Utc>, DateTime<Utc>)> {
        let time = |us| DateTime::from_timestamp_micros(us).context("a moment within the calendar");
        Ok((time(self.from_us)?, time(self.to_us)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let latency = Latency::of((1..=200).rev().map(|ms| ms * 1_000).collect());
        let all = [latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms].map(f64::round);
        assert_eq!((latency.count, all), (200, [100.0, 180.0, 198.0, 200.0]));
        assert_eq!(Latency::of(vec![]).count, 0);
        assert!((Latency::of(vec![5_000]).p50_ms - 5.0).abs() < 1e-9);
    }
}
