//! Use case: a product costs something else from now on; `ProductPriceChanged` is said, unless it is the same price.

use sqlx::PgConnection;
use waybill_events::Sku;
use waybill_http::error::ApiError;
use waybill_http::idempotency::StoredResponse;
use waybill_messaging::envelope::Cause;

use super::once::Write;
use super::{CommandError, Context, messages};
use crate::domain::price::Price;
use crate::domain::product::Product;
use crate::store::products::{product_lock_in_tx, product_update_in_tx};

/// Another price.
#[derive(Debug, Clone)]
pub struct ChangePrice {
    /// Of which product.
    pub sku: Sku,
    /// The price for orders placed from now on; the currency may be another one too.
    pub price: Price,
    /// What made this request.
    pub cause: Cause,
    /// How the product is answered.
    pub answer: fn(&Product) -> Result<StoredResponse, ApiError>,
}

impl Write for ChangePrice {
    /// Refuses with [`CommandError::UnknownSku`].
    async fn write(
        &self,
        context: &Context,
        conn: &mut PgConnection,
    ) -> Result<StoredResponse, CommandError> {
        let product = product_lock_in_tx(conn, &self.sku).await?;
        let product = product.ok_or_else(|| CommandError::UnknownSku(self.sku.clone()))?;
        let Some(changed) = product.clone().with_price(self.price, context.now()) else {
            return Ok((self.answer)(&product)?);
        };
        product_update_in_tx(conn, &changed).await?;
        context.say(conn, messages::product_price_changed(&changed)?, changed.version, &self.cause).await?;
        Ok((self.answer)(&changed)?)
    }
}
