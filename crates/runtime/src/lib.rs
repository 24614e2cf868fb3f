//! What every process needs to start well, run bounded and stop cleanly.
//!
//! | module | job |
//! |---|---|
//! | [`config`] | settings from the environment; every mistake named at once |
//! | [`lifecycle`] | signals, supervised tasks, bounded shutdown |
//! | [`pool`] | Postgres pools that can not hand out a half-open transaction, with time limits on every statement; one pool for each kind of work |
//! | [`gather`] | calls that come at the same time, done together |
//! | [`retry`] | back-off, the only place that knows the `backoff` crate |
//! | [`clock`] | the wall clock and new ids, as arguments for pure code |
//! | [`failpoints`] | places at which a program kills itself, for tests of crashes |
//! | [`planted`] | bugs on purpose, for tests of the checks |

pub mod clock;
pub mod config;
mod environment;
pub mod failpoints;
pub mod gather;
pub mod lifecycle;
pub mod planted;
pub mod pool;
pub mod retry;
mod statements;
