//! WAL by database, exactly: the records between two points, read with `pg_walinspect`.
//!
//! `pg_stat_statements` leaves out the records of commits, and the position of the log knows no databases. Here each
//! record belongs to the database of the pages it changes, or of the transaction it ends. A transaction that touches
//! `outbox_relay` is the relay's: nobody else writes there.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::{FromRow, PgPool};

use crate::costs::real;

/// Most WAL read after a run, in bytes: reading the records of more would take minutes.
const READ_BYTES_MAX: i64 = 2 << 30;

/// A point in the log.
#[derive(Debug, Clone)]
pub struct Point(String);

/// A database with the file of its `outbox_relay`.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    database: i64,
    relay_file: i64,
    /// Every file with its table: indexes and partitions count as the table they belong to.
    files: Vec<(i64, String)>,
}

/// WAL of one table with its indexes, by order.
#[derive(Debug, Clone, Serialize)]
pub struct TableBytes {
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// Bytes, page images left out.
    pub bytes: f64,
}

/// What was written in one database.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Written {
    /// The service's WAL in bytes, full page images left out.
    pub service_bytes: i64,
    /// The relay's.
    pub relay_bytes: i64,
    /// Records of the relay.
    pub relay_records: i64,
    /// Images of whole pages, written at the first change of a page after a checkpoint: they depend on when
    /// checkpoints are, not on the order.
    pub page_image_bytes: i64,
}

#[derive(FromRow)]
struct WrittenRow {
    database: i64,
    relay: bool,
    records: i64,
    bytes: i64,
    page_image_bytes: i64,
}

/// Makes the extension usable; `false` when this server or this account may not.
pub async fn available(pool: &PgPool) -> bool {
    sqlx::query("create extension if not exists pg_walinspect").execute(pool).await.is_ok()
}

impl Place {
    /// Asks a database for its names in the log.
    ///
    /// # Errors
    /// When it can not be asked.
    pub async fn of(pool: &PgPool) -> Result<Self> {
        let files = sqlx::query_as(
            "select pg_relation_filenode(c.oid)::bigint,
                    coalesce(parent.inhparent, index.indrelid, c.oid)::regclass::text
             from pg_class c
             left join pg_index index on index.indexrelid = c.oid
             left join pg_inherits parent on parent.inhrelid = coalesce(index.indrelid, c.oid)
             where pg_relation_filenode(c.oid) is not null",
        );
        let files = files.fetch_all(pool).await.context("asking for the files of tables")?;
        let (name, database, relay_file) = sqlx::query_as(
            "select datname::text, oid::bigint, pg_relation_filenode('outbox_relay')::bigint
             from pg_database where datname = current_database()",
        )
        .fetch_one(pool)
        .await
        .context("asking for the file of outbox_relay")?;
        Ok(Self { name, database, relay_file, files })
    }
}

impl Point {
    /// The end of the log, flushed: the relay's commits do not wait for the disk.
    ///
    /// # Errors
    /// When the server can not be asked.
    pub async fn now(pool: &PgPool) -> Result<Self> {
        sqlx::query("select pg_logical_emit_message(true, 'waybill-bench', '')")
            .execute(pool)
            .await
            .context("flushing the log")?;
        let at = sqlx::query_scalar("select pg_current_wal_flush_lsn()::text").fetch_one(pool).await;
        Ok(Self(at.context("asking for the end of the log")?))
    }

    /// Bytes of the log between two points, of every database and everybody on the server.
    ///
    /// # Errors
    /// When the server can not be asked.
    pub async fn bytes_since(&self, pool: &PgPool, earlier: &Self) -> Result<i64> {
        sqlx::query_scalar("select ($1::text::pg_lsn - $2::text::pg_lsn)::bigint")
            .bind(&self.0)
            .bind(&earlier.0)
            .fetch_one(pool)
            .await
            .context("subtracting points of the log")
    }
}

/// What was written between two points in each of these places, in their order.
///
/// # Errors
/// When there is too much to read, or the server has already recycled some of it.
pub async fn written(
    pool: &PgPool,
    places: &[Place],
    from: &Point,
    to: &Point,
) -> Result<Vec<(String, Written)>> {
    let bytes = to.bytes_since(pool, from).await?;
    anyhow::ensure!(bytes <= READ_BYTES_MAX, "{bytes} bytes of WAL are too many to look at one by one");
    let rows: Vec<WrittenRow> = sqlx::query_as(
        "with block as materialized (
             select b.start_lsn, min(b.reldatabase::bigint) as database, min(b.xid::text) as xid,
                    coalesce(bool_or(r.file is not null), false) as relay
             from pg_get_wal_block_info($1::text::pg_lsn, $2::text::pg_lsn, false) b
             left join unnest($3::bigint[], $4::bigint[]) as r (database, file)
                    on r.database = b.reldatabase::bigint and r.file = b.relfilenode::bigint
             group by b.start_lsn
         ), writer as materialized (
             select xid, min(database) as database, bool_or(relay) as relay from block where xid <> '0' group by xid
         )
         select coalesce(block.database, writer.database) as database,
                coalesce(writer.relay, block.relay, false) as relay,
                count(*) as records, sum(record.record_length - record.fpi_length)::bigint as bytes,
                sum(record.fpi_length)::bigint as page_image_bytes
         from pg_get_wal_records_info($1::text::pg_lsn, $2::text::pg_lsn) as record
         left join block using (start_lsn)
         left join writer on writer.xid = record.xid::text
         where coalesce(block.database, writer.database) = any($3)
         group by 1, 2",
    )
    .bind(&from.0)
    .bind(&to.0)
    .bind(places.iter().map(|place| place.database).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.relay_file).collect::<Vec<_>>())
    .fetch_all(pool)
    .await
    .context("reading the records of the log")?;
    Ok(places.iter().map(|place| (place.name.clone(), place.sum(&rows))).collect())
}

/// The tables that most was written for between two points, by order, most first.
///
/// # Errors
/// When the server has already recycled some of it.
pub async fn by_table(
    pool: &PgPool,
    places: &[Place],
    from: &Point,
    to: &Point,
    orders: f64,
) -> Result<Vec<TableBytes>> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "select database, file, sum(bytes)::bigint
         from (
             select reldatabase::bigint as database,
                    (array_agg(relfilenode::bigint order by block_id))[1] as file,
                    max(record_length) - coalesce(sum(block_fpi_length), 0) as bytes
             from pg_get_wal_block_info($1::text::pg_lsn, $2::text::pg_lsn, false)
             where reldatabase::bigint = any($3)
             group by start_lsn, reldatabase
         ) record
         group by 1, 2",
    )
    .bind(&from.0)
    .bind(&to.0)
    .bind(places.iter().map(|place| place.database).collect::<Vec<_>>())
    .fetch_all(pool)
    .await
    .context("reading the blocks of the log")?;
    let mut tables: BTreeMap<(String, String), i64> = BTreeMap::new();
    for (database, file, bytes) in rows {
        let Some(place) = places.iter().find(|place| place.database == database) else { continue };
        let table = place.files.iter().find(|(of, _)| *of == file);
        let table = table.map_or_else(|| "(catalogue)".to_owned(), |(_, table)| table.clone());
        *tables.entry((place.name.clone(), table)).or_default() += bytes;
    }
    let by_order = |((database, table), bytes)| TableBytes { database, table, bytes: real(bytes) / orders };
    let mut all: Vec<TableBytes> = tables.into_iter().map(by_order).collect();
    all.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
    Ok(all)
}

impl Place {
    fn sum(&self, rows: &[WrittenRow]) -> Written {
        let mut written = Written::default();
        for row in rows.iter().filter(|row| row.database == self.database) {
            written.page_image_bytes += row.page_image_bytes;
            if row.relay {
                written.relay_bytes += row.bytes;
                written.relay_records += row.records;
            } else {
                written.service_bytes += row.bytes;
            }
        }
        written
    }
}
