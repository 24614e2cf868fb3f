//! Rows of `stock`: where the pieces are.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{FromRow, PgConnection, PgExecutor};
use waybill_events::Sku;

use super::{all_written, decoded};
use crate::domain::shelf::LevelsChange;
use crate::domain::stock::Levels;

#[derive(FromRow)]
struct StockRow {
    sku: String,
    available: i64,
    reserved: i64,
    shipped: i64,
}

impl StockRow {
    fn levels(&self) -> Levels {
        Levels { available: self.available, reserved: self.reserved, shipped: self.shipped }
    }
}

/// Reads the levels of these SKUs and locks their rows until the transaction ends. A SKU that is not in the answer
/// does not exist.
///
/// # Errors
/// The database's.
pub async fn stock_lock_in_tx(
    conn: &mut PgConnection,
    skus: &BTreeSet<Sku>,
) -> Result<BTreeMap<Sku, Levels>, sqlx::Error> {
    let skus: Vec<&str> = skus.iter().map(Sku::as_str).collect();
    let rows: Vec<StockRow> = sqlx::query_as(
        "select sku, available, reserved, shipped
         from stock where sku = any($1)
         -- Every writer locks in this order, so two batches on the same SKUs wait for each other and never in a ring.
         order by sku
         for update",
    )
    .bind(skus)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((decoded("sku", row.sku.parse::<Sku>())?, row.levels()))).collect()
}

/// Adds the differences to locked rows, all in one statement. The table's checks have the last word against a
/// negative number.
///
/// # Errors
/// The database's; also when a row is missing.
pub async fn stock_change_in_tx(
    conn: &mut PgConnection,
    changes: &[LevelsChange],
) -> Result<(), sqlx::Error> {
    let statement = sqlx::query(
        "update stock
         set available = stock.available + d.available,
             reserved = stock.reserved + d.reserved,
             shipped = stock.shipped + d.shipped
         from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
             as d (sku, available, reserved, shipped)
         -- One look by key for each row. A plan made while the table was small would join by reading all of it, or all
         -- of the batch for each of its rows, and is kept. The rows are locked: they stay where they are.
         where stock.ctid = (select ctid from stock s where s.sku = d.sku)",
    );
    let statement = statement
        .bind(changes.iter().map(|change| change.sku.as_str()).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.available).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.reserved).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.shipped).collect::<Vec<_>>());
    all_written("stock", statement.execute(conn).await?.rows_affected(), changes.len())
}

/// The levels of one SKU, unlocked.
///
/// # Errors
/// The database's.
pub async fn stock_find(executor: impl PgExecutor<'_>, sku: &Sku) -> Result<Option<Levels>, sqlx::Error> {
    let row: Option<StockRow> =
        sqlx::query_as("select sku, available, reserved, shipped from stock where sku = $1")
            .bind(sku.as_str())
            .fetch_optional(executor)
            .await?;
    Ok(row.map(|row| row.levels()))
}
