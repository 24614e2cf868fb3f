//! Rows of `stock_ledger`: one per movement, only ever added.

use sqlx::PgConnection;
use waybill_events::Sku;

use super::all_written;
use crate::domain::stock::{MovementKind, Pieces, ReceiptId};
use crate::domain::wave::Movement;

/// Adds the movements of a wave in one statement.
///
/// # Errors
/// The database's. A movement that the ledger has already is a unique violation: the reservation's state should have
/// kept it away, so nothing of the wave may be written.
pub async fn ledger_insert_in_tx(conn: &mut PgConnection, movements: &[Movement]) -> Result<(), sqlx::Error> {
    let statement = sqlx::query(
        "insert into stock_ledger (source_id, sku, kind, quantity)
         select m.source_id, m.sku, m.kind, m.quantity
         from unnest($1::uuid[], $2::text[], $3::text[], $4::int[]) as m (source_id, sku, kind, quantity)",
    );
    let statement = statement
        .bind(movements.iter().map(|movement| movement.order_id.as_uuid()).collect::<Vec<_>>())
        .bind(movements.iter().map(|movement| movement.sku.as_str()).collect::<Vec<_>>())
        .bind(movements.iter().map(|movement| movement.kind.as_str()).collect::<Vec<_>>())
        .bind(movements.iter().map(|movement| movement.pieces.get()).collect::<Vec<_>>());
    all_written("stock_ledger", statement.execute(conn).await?.rows_affected(), movements.len())
}

/// Adds a receipt.
///
/// # Errors
/// The database's.
pub async fn ledger_receipt_insert_in_tx(
    conn: &mut PgConnection,
    receipt: ReceiptId,
    sku: &Sku,
    pieces: Pieces,
) -> Result<(), sqlx::Error> {
    let statement =
        sqlx::query("insert into stock_ledger (source_id, sku, kind, quantity) values ($1, $2, $3, $4)")
            .bind(receipt.0)
            .bind(sku.as_str())
            .bind(MovementKind::Receive.as_str())
            .bind(pieces.get());
    all_written("stock_ledger", statement.execute(conn).await?.rows_affected(), 1)
}
