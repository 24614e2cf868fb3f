//! Serving HTTP: limits, error bodies, access tokens, idempotency keys, paging, health. No business words.
//!
//! | module | job |
//! |---|---|
//! | [`serve`] | listens with time limits and caps; drains at the end |
//! | [`request_log`] | one span, one log line and one measurement per request; trace context in and out |
//! | [`error`] | the one error body: RFC 9457 members beside our `error` envelope |
//! | [`json`], [`params`] | strict extractors whose refusals name the field |
//! | [`auth`] | who calls: Ed25519 access tokens checked against a JWKS |
//! | [`idempotency`] | the same key gets the same bytes; its row commits with the work |
//! | [`paging`] | opaque cursors over (created_at, id) |
//! | [`detached`] | a hang-up does not cancel a write |
//! | [`health`], [`openapi`] | what every process answers beside its own paths |

pub mod auth;
mod context;
pub mod detached;
pub mod error;
pub mod health;
pub mod idempotency;
pub mod json;
pub mod jwks;
pub mod openapi;
pub mod paging;
pub mod params;
pub mod request_log;
pub mod serve;
mod verified;

pub use error::ApiError;

/// The tables this crate owns, versions 201 to 299. Run with `set_ignore_missing(true)`: one database holds several migrators' tables.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
