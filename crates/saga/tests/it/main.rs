//! The saga crate's promises: explored in pure form, and checked on a real Postgres.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and print what they explored"
)]

mod arbitrary;
mod deadlines;
mod desk;
mod example;
mod exploration;
mod operating;
mod runner;
mod sagas;
mod starting;
mod statements;
mod stories;
mod sweeping;
mod versions;
mod world;
