//! Integration tests of the Kafka side, on a real broker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the functions its cases share")]

mod consumer;
