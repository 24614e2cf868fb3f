//! The Postgres side of messaging: say something in a transaction, hear something once, keep what could not be handled.
//!
//! | module | job |
//! |---|---|
//! | [`append`] | messages into the outbox, in the caller's transaction; the relay publishes them |
//! | [`backlog`] | how much waits to be published |
//! | [`inbox`] | a batch of records in one transaction, each message's effects once |
//! | [`dead_letters`] | what a group could not handle, byte for byte, and its mirror on the dead letter topic |
//! | [`operate`] | what operators look at and change: dead letters, replays, parked keys, audit |
//! | [`retry`] | ordered retry: one head of a key travels, the rest waits |
//! | [`upkeep`] | day partitions made ahead of time, dropped after theirs |
//! | [`republish`] | a part of the outbox published again, same ids, same order |
//! | [`status`] | the relay's position and lease, what waits, the partitions |
//!
//! Tables and their meaning: `migrations/`.

pub mod append;
pub mod backlog;
pub mod dead_letters;
pub mod inbox;
pub mod operate;
pub mod republish;
pub mod retry;
pub mod status;
pub mod upkeep;

/// The tables of this crate (versions 1xx). Run them with `set_ignore_missing(true)`: other crates keep theirs in the same
/// database.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
