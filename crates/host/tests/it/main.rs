//! Tests of the process parts that need no Kafka: the operators' API over a real database, failures on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod desk;
mod explain;
mod faults;
mod letters;
mod openapi;
mod outbox;
mod who;
