//! Integration tests of outbox and inbox, on a real Postgres and a real broker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the functions its cases share")]

mod append;
mod backlog;
mod dry_run;
mod facts;
mod flaky;
mod frozen;
mod halves;
mod inbox;
mod kafka;
mod ledger;
mod letters;
mod members;
mod membership;
mod mending;
mod partitions;
mod progress;
mod replays;
mod republish;
mod retention;
mod retry;
mod retry_model;
mod timeouts;
