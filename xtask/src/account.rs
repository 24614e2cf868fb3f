//! PostgreSQL refuses to run as root: the account it runs as then, and whether that account can reach a folder.
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::{User, geteuid};

use crate::say;

/// The account of Debian's own PostgreSQL packages, used when it is there.
const EXISTING: &str = "postgres";
/// The account that is made when it is not.
const MADE: &str = "waybill-postgres";

/// An account to run a server as when we are root.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    user: User,
}

impl Account {
    /// `None` when this command does not run as root and servers run as its own user.
    pub(crate) fn for_servers() -> Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in [EXISTING, MADE] {
            if let Some(user) = find(name)? {
                return Ok(Some(Self { user }));
            }
        }
        say::progress(&format!("PostgreSQL does not run as root: making the system account {MADE} for it"));
        let shell = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", MADE];
        let made = Command::new("useradd").args(shell).status();
        if !made.as_ref().is_ok_and(std::process::ExitStatus::success) {
            bail!(
                "could not make the account {MADE} with useradd ({made:?}): make one by hand, or run as another user"
            );
        }
        let user = find(MADE)?.with_context(|| format!("useradd made {MADE}, yet it can not be found"))?;
        Ok(Some(Self { user }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.user.name
    }

    /// Makes a command run as this account.
    pub(crate) fn run_as(&self, command: &mut Command) {
        command.uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw());
    }

    /// Whether the account may enter `path` and every folder above it. What does not exist yet is entered.
    pub(crate) fn reaches(&self, path: &Path) -> bool {
        path.ancestors().filter_map(|dir| fs::metadata(dir).ok()).all(|dir| {
            let bit = if dir.uid() == self.user.uid.as_raw() {
                0o100
            } else if dir.gid() == self.user.gid.as_raw() {
                0o010
            } else {
                0o001
            };
            dir.mode() & bit != 0
        })
    }

    /// Makes a folder that belongs to the account and is closed to others.
    pub(crate) fn own_dir(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)
            .and_then(|()| chown(dir, Some(self.user.uid.as_raw()), Some(self.user.gid.as_raw())))
            .with_context(|| format!("could not make {} for the account {}", dir.display(), self.name()))
    }
}

fn find(name: &str) -> Result<Option<User>> {
    User::from_name(name).with_context(|| format!("could not look up the account {name}"))
}
