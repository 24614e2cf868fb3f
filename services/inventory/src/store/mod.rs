//! All SQL of this service, one statement per function, nouns first; `_in_tx` needs the caller's transaction.

pub mod ledger;
pub mod products;
pub mod reservations;
pub mod stock;

use std::error::Error;

/// This service's own tables.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// A row that breaks the rules its table checks: told as what it is, a column that does not decode.
fn decoded<T, E>(column: &'static str, value: Result<T, E>) -> Result<T, sqlx::Error>
where
    E: Error + Send + Sync + 'static,
{
    value.map_err(|source| sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(source) })
}

/// Rows that were locked or just read must all be written.
fn all_written(what: &'static str, written: u64, expected: usize) -> Result<(), sqlx::Error> {
    if u64::try_from(expected) == Ok(written) {
        return Ok(());
    }
    Err(sqlx::Error::InvalidArgument(format!(
        "{written} of {expected} rows of {what} were written: somebody else changed them meanwhile"
    )))
}
