//! Use case: pieces of a product came in; they are available at once, and `StockReceived` is said.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use waybill_events::Sku;
use waybill_http::error::ApiError;
use waybill_http::idempotency::StoredResponse;
use waybill_messaging::envelope::Cause;
use waybill_runtime::clock;

use super::once::Write;
use super::{CommandError, Context, messages};
use crate::domain::shelf::LevelsChange;
use crate::domain::stock::{Levels, MovementKind, Pieces, ReceiptId};
use crate::store::ledger::ledger_receipt_insert_in_tx;
use crate::store::products::{product_lock_in_tx, product_update_in_tx};
use crate::store::stock::{stock_change_in_tx, stock_lock_in_tx};

/// A receipt of pieces.
#[derive(Debug, Clone)]
pub struct ReceiveStock {
    /// Of which product.
    pub sku: Sku,
    /// How many.
    pub pieces: Pieces,
    /// What made this request.
    pub cause: Cause,
    /// How the receipt is answered.
    pub answer: fn(&Receipt) -> Result<StoredResponse, ApiError>,
}

/// A receipt that was recorded.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Its natural key in the ledger.
    pub id: ReceiptId,
    /// Of which product.
    pub sku: Sku,
    /// How many.
    pub pieces: Pieces,
    /// Where the product's pieces are after it.
    pub levels: Levels,
}

impl Write for ReceiveStock {
    /// Refuses with [`CommandError::UnknownSku`] or [`CommandError::Stock`].
    ///
    /// Locks the product's row, for the version, then its stock row: nobody takes the two the other way round.
    async fn write(
        &self,
        context: &Context,
        conn: &mut PgConnection,
    ) -> Result<StoredResponse, CommandError> {
        let unknown = || CommandError::UnknownSku(self.sku.clone());
        let product = product_lock_in_tx(conn, &self.sku).await?.ok_or_else(unknown)?.said(context.now());
        let levels = stock_lock_in_tx(conn, &BTreeSet::from([self.sku.clone()])).await?;
        let levels = levels.get(&self.sku).ok_or_else(unknown)?;
        let levels = levels.after(MovementKind::Receive, self.pieces).map_err(CommandError::Stock)?;
        let receipt =
            Receipt { id: ReceiptId(clock::new_id()), sku: self.sku.clone(), pieces: self.pieces, levels };
        product_update_in_tx(conn, &product).await?;
        let available = i64::from(self.pieces.get());
        let change = LevelsChange { sku: self.sku.clone(), available, reserved: 0, shipped: 0 };
        stock_change_in_tx(conn, &[change]).await?;
        ledger_receipt_insert_in_tx(conn, receipt.id, &self.sku, self.pieces).await?;
        let event = messages::stock_received(&product, self.pieces, levels)?;
        context.say(conn, event, product.version, &self.cause).await?;
        Ok((self.answer)(&receipt)?)
    }
}
