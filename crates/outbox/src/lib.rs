//! The Postgres side of messaging: say something in a transaction, hear something once, keep what could not be handled.
//!
//! | module | job |
//! |---|---|
//! | [`append`] | messages into the outbox, in the caller's transaction; the relay publishes them |
//! | [`inbox`] | a batch of records in one transaction, each message's effects once |
//! | [`dead_letters`] | what a group could not handle, byte for byte, and its mirror on the dead letter topic |
//! | [`retry`] | ordered retry: one head of a key travels, the rest waits |
//! | [`upkeep`] | day partitions made ahead of time |
//!
//! Tables and their meaning: `migrations/`.

pub mod append;
pub mod dead_letters;
pub mod inbox;
pub mod retry;
pub mod upkeep;

/// The tables of this crate (versions 1xx). Run them with `set_ignore_missing(true)`: other crates keep theirs in the same
/// database.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
