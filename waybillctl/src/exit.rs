//! What the exit code says. Part of the command line's contract: scripts depend on it.

use std::fmt;
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done, and everything is as it should be.
    Done,
    /// 1: it could not be done, or not be looked at.
    Failed,
    /// 2: nobody was asked, since the command line or a setting is wrong. (What clap can see ends so before a command starts.)
    WrongUsage,
    /// 3: it was looked at, and is not as declared.
    Differs,
}

/// For the end of `--help`.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  done, and everything is as declared
  1  it could not be done, or not be looked at; the reason is on standard error
  2  wrong usage, or wrong settings
  3  looked at, and not as declared: a drift, a message that does not decode, a dry run that does not go well, a replay \
that stopped, had failures or skipped letters, a broken promise";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::WrongUsage => 2,
            Exit::Differs => 3,
        })
    }
}

/// What is wrong with the command line or a setting: an error of its own kind, because it ends with another exit code than
/// what was tried in vain.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl Usage {
    /// An error that only the command line or a setting can be the cause of.
    pub(crate) fn of(error: impl Into<anyhow::Error>) -> Self {
        Self(format!("{:#}", error.into()))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

impl From<&anyhow::Error> for Exit {
    fn from(error: &anyhow::Error) -> Self {
        if error.is::<Usage>() { Self::WrongUsage } else { Self::Failed }
    }
}
