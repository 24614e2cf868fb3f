//! The HTTP crate against real sockets and a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test that can not go on panics")]

mod auth;
mod bodies;
mod health;
mod idempotency;
mod serve;
mod server;
