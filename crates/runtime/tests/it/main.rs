//! Promises of the runtime crate that need a real Postgres.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pool;
