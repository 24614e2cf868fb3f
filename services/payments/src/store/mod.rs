//! All SQL of this service, one statement per function, nouns first; `_in_tx` needs the caller's transaction.

pub mod payments;
mod rows;
pub mod sandbox;

/// This service's own tables.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
