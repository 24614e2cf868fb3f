//! What the operating system knows of this process, read from /proc; left out where there is none.

use std::fmt::Write as _;

/// Kernel ticks per second in /proc: `USER_HZ`, 100 on every Linux architecture Rust builds for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends `process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`, `process_threads`.
pub(crate) fn render_into(text: &mut String) {
    if let Some(bytes) = resident_bytes() {
        metric(text, "process_resident_memory_bytes", "gauge", "Resident memory.", bytes as f64);
    }
    if let Some((seconds, threads)) = cpu_and_threads() {
        metric(text, "process_cpu_seconds_total", "counter", "User and system CPU time.", seconds);
        metric(text, "process_threads", "gauge", "Threads.", threads);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metric(text, "process_open_fds", "gauge", "Open file descriptors.", open.count() as f64);
    }
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    // Writing to a String can not fail.
    let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn cpu_and_threads() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in parentheses, may hold spaces: count fields after it (proc(5): utime 14, stime 15, threads 20).
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let user: f64 = fields.get(11)?.parse().ok()?;
    let system: f64 = fields.get(12)?.parse().ok()?;
    let threads: f64 = fields.get(17)?.parse().ok()?;
    Some(((user + system) / TICKS_PER_SECOND, threads))
}
