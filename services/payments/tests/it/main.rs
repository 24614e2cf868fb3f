//! Promises of payments, on a real Postgres: commands, the worker, the sandbox, the API.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod commands;
mod http;
mod permutations;
mod world;
