//! One set of running processes with its folder: data, logs, keys, the state file and the lock of its owner.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A folder under `target/` that one command at a time owns.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    dir: PathBuf,
}

/// Held by the command that owns an instance; the kernel drops it with the process, however it ends.
#[derive(Debug)]
pub(crate) struct Owned {
    _lock: File,
}

impl Instance {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.dir.join("run/state.json")
    }

    pub(crate) fn ports_file(&self) -> PathBuf {
        self.dir.join("ports.json")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The log of one process; `up` is the owner's own when it runs detached.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// Takes the instance; `None` when another command owns it.
    pub(crate) fn own(&self) -> Result<Option<Owned>> {
        let path = self.dir.join("run/lock");
        self.make_dirs()?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = file.with_context(|| format!("could not open the lock file {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Owned { _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("could not lock {}", path.display()))
            }
        }
    }

    /// Removes data, logs, keys and ports. What stays: the lock, and `up`'s own log, which somebody may be reading.
    pub(crate) fn wipe(&self) -> Result<()> {
        self.make_dirs()?;
        remove_entries(&self.dir, &["run", "logs"])?;
        remove_entries(&self.logs(), &["up.log"])
    }

    fn make_dirs(&self) -> Result<()> {
        for dir in [self.dir.join("run"), self.logs()] {
            fs::create_dir_all(&dir)
                .with_context(|| format!("could not make the folder {}", dir.display()))?;
        }
        Ok(())
    }
}

/// Removes what is in a folder, save the named entries.
fn remove_entries(dir: &Path, kept: &[&str]) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("could not read {}", dir.display()))? {
        let entry = entry.context("could not read a folder's entry")?;
        if kept.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("could not remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh instance in a folder of its own under the build output.
    pub(crate) fn scratch(test: &str) -> Instance {
        let dir = std::env::temp_dir().join(format!("waybill-xtask-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Instance::new(dir)
    }

    #[test]
    fn one_owner_at_a_time() {
        let instance = scratch("owner");
        let first = instance.own().unwrap();
        assert!(first.is_some());
        assert!(instance.own().unwrap().is_none(), "a second owner is refused");
        drop(first);
        assert!(instance.own().unwrap().is_some(), "the lock goes with its owner");
        fs::remove_dir_all(instance.dir()).unwrap();
    }

    #[test]
    fn wipe_keeps_the_lock_and_the_log_of_up() {
        let instance = scratch("wipe");
        let _owned = instance.own().unwrap();
        fs::write(instance.ports_file(), "{}").unwrap();
        fs::create_dir_all(instance.dir().join("kafka/data")).unwrap();
        for log in ["up", "orders"] {
            fs::write(instance.log(log), "line").unwrap();
        }
        instance.wipe().unwrap();
        assert!(instance.log("up").exists() && !instance.log("orders").exists());
        assert!(!instance.ports_file().exists());
        assert!(!instance.dir().join("kafka").exists());
        assert!(instance.own().unwrap().is_none(), "still owned");
        fs::remove_dir_all(instance.dir()).unwrap();
    }
}
