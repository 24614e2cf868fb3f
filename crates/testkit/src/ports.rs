//! Ports of loopback for what a test starts: each belongs to one test process until that process ends.
//!
//! A port that the system names (`bind` to 0) is free only for that moment: the next `bind` to 0, of another test or of
//! any outgoing connection, may be given the same, and while a server is down anybody may take its port. These lie
//! below the ephemeral range, which Linux gives out by itself, and a locked file per port keeps other test processes
//! away; the lock goes with its process, however that ends.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

/// Below those that `cargo xtask` chooses from (17,000), and below Linux's ephemeral ports (32,768 by default).
const PORTS: Range<u16> = 10_000..17_000;

static OF_THIS_PROCESS: LazyLock<Mutex<Ports>> = LazyLock::new(|| {
    // Two processes seldom begin at the same place, so that few tries meet a lock.
    let first = u16::try_from(std::process::id() * 61 % u32::from(PORTS.end - PORTS.start)).unwrap_or(0);
    // Another user's locks can not be opened; what he listens on is seen by trying.
    let user = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
    Mutex::new(Ports::new(std::env::temp_dir().join(format!("waybill-test-ports-{user}")), first))
});

/// A port of loopback that nobody listens on, and that no other test is given while this process lives: a server may
/// be stopped and started on it again.
///
/// # Panics
/// When all of them are taken, or the temporary folder can not be written.
#[must_use]
pub fn free_port() -> u16 {
    let mut ports = OF_THIS_PROCESS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ports.take().unwrap_or_else(|| panic!("no port of {PORTS:?} is free on loopback"))
}

/// The ports that one process has taken.
struct Ports {
    folder: PathBuf,
    /// Where the next search begins, counted from the first port.
    next: u16,
    /// Locked until the process ends; never more than there are ports.
    locks: Vec<File>,
}

impl Ports {
    fn new(folder: PathBuf, next: u16) -> Self {
        std::fs::create_dir_all(&folder)
            .unwrap_or_else(|e| panic!("the folder for locks of ports, {}: {e}", folder.display()));
        Self { folder, next, locks: Vec::new() }
    }

    /// Each port is tried once; `None` when none was left.
    fn take(&mut self) -> Option<u16> {
        let span = PORTS.end - PORTS.start;
        for _ in 0..span {
            let port = PORTS.start + self.next;
            self.next = (self.next + 1) % span;
            if let Some(lock) = self.lock(port)
                && TcpListener::bind(("127.0.0.1", port)).is_ok()
            {
                self.locks.push(lock);
                return Some(port);
            }
        }
        None
    }

    /// `None` when another process, or an earlier call, has it.
    fn lock(&self, port: u16) -> Option<File> {
        let path = self.folder.join(port.to_string());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .unwrap_or_else(|e| panic!("the lock of a port, {}: {e}", path.display()));
        file.try_lock().is_ok().then_some(file)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_however_many_ask_at_once() {
        let asking: Vec<_> = (0..16).map(|_| std::thread::spawn(|| [free_port(), free_port()])).collect();
        let given: Vec<u16> = asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "{given:?}");
        assert!(given.iter().all(|port| PORTS.contains(port)), "{given:?}");
    }

    #[test]
    fn what_another_process_has_taken_or_somebody_listens_on_is_passed_over() {
        let folder = std::env::temp_dir().join(format!("waybill-ports-{}", uuid::Uuid::now_v7().simple()));
        let (mut ours, mut theirs) = (Ports::new(folder.clone(), 6_000), Ports::new(folder.clone(), 6_000));
        let first = theirs.take().unwrap();
        let second = ours.take().unwrap();
        assert_ne!(second, first, "it is locked");

        ours.next = second + 1 - PORTS.start;
        let third = ours.take().unwrap();
        let _listens = TcpListener::bind(("127.0.0.1", third)).unwrap();
        ours.locks.clear();
        ours.next = third - PORTS.start;
        assert_ne!(ours.take().unwrap(), third, "it is listened on");

        drop(theirs);
        ours.next = first - PORTS.start;
        assert_eq!(ours.take(), Some(first), "locks go with their process");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
