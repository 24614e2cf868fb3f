//! Row versions of the outbox and of the relay's row, by the server's own statistics.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::{FromRow, PgPool};

/// Backends report their counters at most once a second: after this pause all of them have.
const REPORT_PAUSE: Duration = Duration::from_millis(2_500);

/// Counters of one database since its tables were made.
#[derive(Debug, Clone, Copy, Default, Serialize, FromRow)]
pub struct Tuples {
    /// Rows appended to the outbox.
    pub outbox_inserted: i64,
    /// Rows of the outbox updated or deleted: must be 0.
    pub outbox_changed: i64,
    /// Dead rows in the outbox: must be 0.
    pub outbox_dead: i64,
    /// Updates of the relay's row.
    pub relay_updated: i64,
    /// Of these, HOT ones: no index touched, space used again without vacuum.
    pub relay_hot_updated: i64,
    /// Versions of the relay's row that wait for pruning at the moment.
    pub relay_dead: i64,
    /// Size of the table of that row, in bytes.
    pub relay_table_bytes: i64,
}

/// Waits until the counters are told.
pub async fn settle() {
    tokio::time::sleep(REPORT_PAUSE).await;
}

/// Reads them.
///
/// # Errors
/// When the database can not be asked.
pub async fn look(pool: &PgPool) -> Result<Tuples> {
    sqlx::query_as(
        "select coalesce(sum(n_tup_ins) filter (where outbox), 0)::bigint as outbox_inserted,
                coalesce(sum(n_tup_upd + n_tup_del) filter (where outbox), 0)::bigint as outbox_changed,
                coalesce(sum(n_dead_tup) filter (where outbox), 0)::bigint as outbox_dead,
                coalesce(sum(n_tup_upd) filter (where relay), 0)::bigint as relay_updated,
                coalesce(sum(n_tup_hot_upd) filter (where relay), 0)::bigint as relay_hot_updated,
                coalesce(sum(n_dead_tup) filter (where relay), 0)::bigint as relay_dead,
                pg_total_relation_size('outbox_relay') as relay_table_bytes
         from (
             select *, relname = 'outbox_relay' as relay,
                    exists (select from pg_inherits where inhrelid = relid and inhparent = 'outbox'::regclass) as outbox
             from pg_stat_user_tables
         ) tables",
    )
    .fetch_one(pool)
    .await
    .context("reading pg_stat_user_tables")
}
