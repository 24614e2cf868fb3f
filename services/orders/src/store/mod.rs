//! All SQL of this service, one statement per function; whoever calls decides about the transaction.

pub mod catalogue;
pub mod groundwork;
pub mod orders;
pub mod placement;
mod rows;

/// The tables of this service (versions 1xxx); those of the crates it uses are theirs.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
