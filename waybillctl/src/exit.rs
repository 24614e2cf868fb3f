//! What the exit code says. Part of the command line's contract: scripts depend on it.

use std::process::ExitCode;

/// How a command ended. (Usage errors end with 2, before a command starts.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done, and everything is as it should be.
    Done,
    /// 1: it could not be done, or not be looked at.
    Failed,
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
            Exit::Differs => 3,
        })
    }
}
