//! The relay's tests: its core explored exhaustively, the program on a real PostgreSQL and a real Kafka.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: a panic is a finding, state counts are printed")]

mod model;
