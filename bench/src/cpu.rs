//! CPU seconds and memory of processes, read from /proc: ours by their ids, the servers by the ports they listen on.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;
use waybill_testkit::process::peak_memory_kib;

/// Ticks per second in /proc: what Linux shows to programs is fixed at 100 whatever the kernel's own clock.
const TICKS_PER_S: f64 = 100.0;
/// State of a listening socket in /proc/net/tcp.
const LISTENING: &str = "0A";

/// What one process (with its children, for a server that has some) has used.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Use {
    /// CPU seconds since it started; in a report: within the measured time.
    pub cpu_s: f64,
    /// Largest resident set so far, in bytes; absent where children share memory and the sum would be wrong.
    pub peak_rss_bytes: Option<u64>,
}

/// The processes that are looked at.
#[derive(Debug, Clone, Default)]
pub struct Watched(Vec<(&'static str, u32, Whole)>);

/// Whether a process works alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// It is all there is; children of it are others.
    Alone,
    /// Its children are its work, as with Postgres' backends.
    WithChildren,
}

/// One look at all of them.
#[derive(Debug, Clone, Default)]
pub struct Look {
    uses: BTreeMap<&'static str, Use>,
    machine_busy_s: f64,
}

/// What was used between two looks.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Spent {
    /// By process.
    pub processes: BTreeMap<&'static str, Use>,
    /// CPU seconds of everything else on this machine: far from 0 means that the run was disturbed.
    pub others_cpu_s: f64,
}

impl Watched {
    /// Adds a process by its id; one that is not known (a server elsewhere) is passed over.
    pub fn add(&mut self, name: &'static str, pid: Option<u32>, whole: Whole) {
        self.0.extend(pid.map(|pid| (name, pid, whole)));
    }

    /// Reads what each has used so far.
    #[must_use]
    pub fn look(&self) -> Look {
        let children = children();
        let below = |pid, whole| match whole {
            Whole::Alone => None,
            Whole::WithChildren => Some(children.get(pid).map(Vec::as_slice).unwrap_or_default()),
        };
        let uses = self.0.iter().map(|(name, pid, whole)| (*name, used(*pid, below(pid, *whole)))).collect();
        Look { uses, machine_busy_s: machine_busy_s().unwrap_or_default() }
    }
}

impl Look {
    /// What was used since an earlier look; the peak is the one of now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Spent {
        let processes: BTreeMap<_, _> = self
            .uses
            .iter()
            .map(|(name, now)| {
                let before = earlier.uses.get(name).map_or(0.0, |before| before.cpu_s);
                (*name, Use { cpu_s: (now.cpu_s - before).max(0.0), ..*now })
            })
            .collect();
        let ours: f64 = processes.values().map(|used| used.cpu_s).sum();
        let others_cpu_s = (self.machine_busy_s - earlier.machine_busy_s - ours).max(0.0);
        Spent { processes, others_cpu_s }
    }
}

/// CPU seconds of this process's children that have ended and were waited for.
#[must_use]
pub fn ended_children_s() -> f64 {
    let stat = stat(std::process::id()).unwrap_or_default();
    stat.get(13..=14).into_iter().flatten().filter_map(|text| text.parse::<f64>().ok()).sum::<f64>()
        / TICKS_PER_S
}

/// The process that listens on a port of this machine, when it can be seen (one's own, or as root).
#[must_use]
pub fn listener(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        fs::read_to_string(table).ok()?.lines().skip(1).find_map(|line| listening_inode(line, port))
    })?;
    let wanted = format!("socket:[{inode}]");
    let holds = |pid: &u32| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
    };
    let holders: Vec<u32> = processes().filter(holds).collect();
    // A server's children have its socket too, and their ids may be smaller: ids begin anew.
    let parent = |pid: u32| stat(pid).and_then(|stat| stat.get(1)?.parse::<u32>().ok());
    holders.iter().copied().find(|pid| parent(*pid).is_none_or(|parent| !holders.contains(&parent)))
}

fn listening_inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let matches = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTENING;
    matches.then(|| (*fields.get(9)?).to_owned().into()).flatten()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").ok().into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every process's children.
fn children() -> BTreeMap<u32, Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in processes() {
        if let Some(parent) = stat(pid).and_then(|stat| stat.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

fn used(pid: u32, children: Option<&[u32]>) -> Use {
    let ticks = |pid: u32, fields: std::ops::RangeInclusive<usize>| -> f64 {
        let stat = stat(pid).unwrap_or_default();
        stat.get(fields).into_iter().flatten().filter_map(|text| text.parse::<f64>().ok()).sum()
    };
    let Some(children) = children else {
        return Use { cpu_s: ticks(pid, 11..=12) / TICKS_PER_S, peak_rss_bytes: peak_rss_bytes(pid) };
    };
    // 13 and 14: user and system time of children that have ended.
    let below: f64 = children.iter().map(|child| ticks(*child, 11..=12)).sum();
    Use { cpu_s: (ticks(pid, 11..=14) + below) / TICKS_PER_S, peak_rss_bytes: None }
}

/// The fields of /proc/PID/stat after the name: state, parent, ...
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, its closing parenthesis is the last one.
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn peak_rss_bytes(pid: u32) -> Option<u64> {
    Some(peak_memory_kib(pid)? * 1024)
}

/// Seconds in which a core of this machine worked (user, nice, system, interrupts), summed over cores.
fn machine_busy_s() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields = text.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    let busy = |place: usize| ticks.get(place).copied().unwrap_or_default();
    Some((busy(0) + busy(1) + busy(2) + busy(5) + busy(6)) / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_port_and_has_used_something() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let pid = listener(socket.local_addr().unwrap().port());
        assert_eq!(pid, Some(std::process::id()));
        let mut watched = Watched::default();
        watched.add("this", pid, Whole::Alone);
        let look = watched.look();
        assert!(look.uses["this"].peak_rss_bytes.unwrap() > 100_000);
        assert!(look.machine_busy_s > 0.0);
    }
}
