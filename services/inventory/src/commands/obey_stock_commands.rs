//! Obeys a wave of orders' commands: two reads that lock, one decision in memory, one write per table.

use sqlx::PgConnection;
use waybill_events::OrderId;
use waybill_runtime::planted::{Bug, is_planted};

use crate::domain::reservation::{Breach, Reservation, StockCommand};
use crate::domain::shelf::Shelf;
use crate::domain::wave::{Answer, Changes, Wave, skus_needed};
use crate::store::ledger::ledger_insert_in_tx;
use crate::store::reservations::{reservations_lock_in_tx, reservations_save_in_tx};
use crate::store::stock::{stock_change_in_tx, stock_lock_in_tx};

/// Decides about every command in the order given and writes what follows, in the caller's transaction: at most five
/// statements however many commands there are. Each order at most once per call.
///
/// Answers one result per command, in the same order. A [`Breach`] has changed nothing, has no reply, and must not be
/// passed over in silence.
///
/// # Errors
/// The database's; the transaction is then to be rolled back.
pub async fn obey_stock_commands(
    conn: &mut PgConnection,
    commands: &[(OrderId, StockCommand)],
) -> Result<Vec<Result<Answer, Breach>>, sqlx::Error> {
    let orders: Vec<OrderId> = commands.iter().map(|(order_id, _)| *order_id).collect();
    let reservations = reservations_lock_in_tx(conn, &orders).await?;
    let skus = skus_needed(commands, &reservations);
    let shelf =
        if skus.is_empty() { Shelf::default() } else { Shelf::new(stock_lock_in_tx(conn, &skus).await?) };
    let mut wave = Wave::new(reservations, shelf);
    let answers = commands.iter().map(|(order_id, command)| wave.obey(*order_id, command)).collect();
    let mut changes = wave.into_changes();
    if is_planted(Bug::TombstoneSkipped) {
        changes.reservations.retain(|(_, kept)| kept.reservation != Reservation::Released { lines: None });
    }
    save(conn, &changes).await?;
    Ok(answers)
}

async fn save(conn: &mut PgConnection, changes: &Changes) -> Result<(), sqlx::Error> {
    if !changes.reservations.is_empty() {
        reservations_save_in_tx(conn, &changes.reservations).await?;
    }
    if !changes.levels.is_empty() {
        stock_change_in_tx(conn, &changes.levels).await?;
    }
    if !changes.movements.is_empty() {
        ledger_insert_in_tx(conn, &changes.movements).await?;
    }
    Ok(())
}
