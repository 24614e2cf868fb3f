//! One outbox row as it came from Postgres: read where it lies, nothing is copied.

use sqlx::postgres::{PgRow, PgValueFormat};
use sqlx::{Row as _, ValueRef as _};

use super::StoreError;

/// Microseconds from 1970, where Unix counts from, to 2000, where Postgres does.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A row of the outbox: `id, topic, key, headers, payload, created_at` are its first columns.
#[derive(Debug)]
pub struct Row {
    row: PgRow,
    id: i64,
    created_at_us: i64,
    size: usize,
}

impl Row {
    /// Takes the row apart as far as every row is needed.
    pub(super) fn new(row: PgRow) -> Result<Self, sqlx::Error> {
        let id = row.try_get_unchecked::<i64, _>(0)?;
        let since_2000 = bytes(&row, 5)?.and_then(|raw| raw.try_into().ok()).map(i64::from_be_bytes);
        let since_2000 =
            since_2000.ok_or_else(|| sqlx::Error::Decode("created_at is no timestamp".into()))?;
        let mut size = 0;
        for column in [2, 3, 4] {
            size += bytes(&row, column)?.map_or(0, <[u8]>::len);
        }
        Ok(Self { row, id, created_at_us: since_2000.saturating_add(POSTGRES_EPOCH_US), size })
    }

    /// Its id: what orders it.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Microseconds since 1970, by the database's clock.
    #[must_use]
    pub fn created_at_us(&self) -> i64 {
        self.created_at_us
    }

    /// The topic's full name.
    ///
    /// # Errors
    /// When the column does not hold text: another table than ours.
    pub fn topic(&self) -> Result<&str, StoreError> {
        let raw = bytes(&self.row, 1)?.ok_or_else(|| wrong("topic"))?;
        std::str::from_utf8(raw).map_err(|_| wrong("topic"))
    }

    /// The record's key.
    ///
    /// # Errors
    /// When the column does not exist.
    pub fn key(&self) -> Result<Option<&[u8]>, StoreError> {
        Ok(bytes(&self.row, 2)?)
    }

    /// The headers: the text of one JSON object.
    ///
    /// # Errors
    /// When the column does not exist.
    pub fn headers(&self) -> Result<&[u8], StoreError> {
        Ok(bytes(&self.row, 3)?.unwrap_or(b"{}"))
    }

    /// The record's value; `None` is a tombstone.
    ///
    /// # Errors
    /// When the column does not exist.
    pub fn payload(&self) -> Result<Option<&[u8]>, StoreError> {
        Ok(bytes(&self.row, 4)?)
    }

    /// Key, headers and payload together.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

/// The raw bytes of a column in Postgres' binary format; `None` for null.
fn bytes(row: &PgRow, column: usize) -> Result<Option<&[u8]>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(None);
    }
    debug_assert!(value.format() == PgValueFormat::Binary, "prepared statements answer in binary");
    value.as_bytes().map(Some).map_err(sqlx::Error::Decode)
}

fn wrong(column: &str) -> StoreError {
    StoreError::Unreadable(format!("column {column} of the outbox is not what it should be"))
}
