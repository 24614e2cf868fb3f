//! pgbench, which comes with Postgres: the same SQL sent by nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cpu;

/// What a service's pool tells every session, for a turn that is compared with one.
pub const SERVICE_SESSION: &str = "-c enable_seqscan=off";
/// Threads: more than this machine's other work leaves room for would only wait.
const THREADS_MAX: u32 = 2;

/// One turn of it.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Sessions.
    pub clients: u32,
    /// How long, in seconds.
    pub seconds: u64,
    /// Settings of each session, as `PGOPTIONS` takes them.
    pub session: &'a str,
    /// Variables of the script.
    pub variables: &'a [(&'a str, String)],
}

/// What it did.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Transactions per second, without the time of connecting.
    pub per_second: f64,
    /// Transactions.
    pub transactions: i64,
    /// Transactions per second of each whole second, from the first: that one begins the sessions and makes their plans.
    pub by_second: Vec<f64>,
    /// Processor seconds of pgbench itself.
    pub cpu_s: f64,
}

/// Where it is: on the path, or where Debian keeps it.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    dirs.extend(debian.filter_map(Result::ok).map(|entry| entry.path().join("bin")));
    dirs.into_iter().map(|dir| dir.join("pgbench")).find(|file| file.is_file())
}

/// Runs a script with prepared statements.
///
/// # Errors
/// When it can not be started, fails, or one of its transactions does.
pub fn run(pgbench: &Path, url: &str, script: &str, turn: &Turn<'_>) -> Result<Ran> {
    let file = std::env::temp_dir().join(format!("waybill-pgbench-{}.sql", std::process::id()));
    std::fs::write(&file, script).with_context(|| format!("writing {}", file.display()))?;
    let threads = turn.clients.min(THREADS_MAX);
    let mut command = Command::new(pgbench);
    command.args(["--no-vacuum", "--protocol=prepared", &format!("--time={}", turn.seconds)]);
    command.arg("--progress=1");
    command.args([format!("--client={}", turn.clients), format!("--jobs={threads}")]);
    for (name, value) in turn.variables {
        command.arg(format!("--define={name}={value}"));
    }
    let before = cpu::ended_children_s();
    let output = command.arg("--file").arg(&file).arg(url).env("PGOPTIONS", turn.session).output();
    let _gone = std::fs::remove_file(&file);
    let output = output.with_context(|| format!("starting {}", pgbench.display()))?;
    let cpu_s = cpu::ended_children_s() - before;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "pgbench: {errors}");
    let number = |line: &str| -> Option<&str> {
        let rest = text.lines().find_map(|text| text.strip_prefix(line))?;
        rest.split_whitespace().next()
    };
    let read = || {
        Some((
            number("tps = ")?.parse().ok()?,
            number("number of transactions actually processed:")?.parse().ok()?,
        ))
    };
    let (per_second, transactions): (f64, i64) =
        read().with_context(|| format!("pgbench said something else: {text}"))?;
    let failed = number("number of failed transactions:").unwrap_or("0");
    ensure!(failed == "0", "{failed} transactions of pgbench failed: {errors}");
    let by_second = errors.lines().filter_map(rate_of_second).collect();
    Ok(Ran { per_second, transactions, by_second, cpu_s })
}

/// Of a line like `progress: 2.0 s, 6209.4 tps, lat 2.5 ms stddev 0.8, 0 failed`.
fn rate_of_second(line: &str) -> Option<f64> {
    let rest = line.strip_prefix("progress: ")?.split_once(" s, ")?.1;
    rest.split_once(" tps")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_and_nothing_else() {
        let line = "progress: 2.0 s, 6209.4 tps, lat 2.576 ms stddev 0.812, 0 failed";
        assert_eq!(rate_of_second(line), Some(6209.4));
        assert_eq!(rate_of_second("pgbench (18.3)"), None);
    }
}
