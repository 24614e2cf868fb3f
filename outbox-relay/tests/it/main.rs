//! The relay's tests: its core explored exhaustively, the program on a real PostgreSQL and a real Kafka.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests: a panic is a finding, counts are printed"
)]

mod audit;
mod brokers;
mod crash;
mod examples;
mod faults;
mod lease;
mod model;
mod outages;
mod plans;
mod privileges;
mod reload;
mod restore;
mod retention;
mod rounds;
mod secure;
mod setup;
mod sharing;
mod steady;
mod torture;
mod unread;
