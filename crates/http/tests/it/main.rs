//! The HTTP crate against real sockets and a real PostgreSQL.

mod auth;
mod bodies;
mod health;
mod idempotency;
mod serve;
mod server;
