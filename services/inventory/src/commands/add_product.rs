//! Use case: the catalogue gets a new product, with an empty stock row; `ProductAdded` is said.

use sqlx::PgConnection;
use waybill_events::Sku;
use waybill_http::error::ApiError;
use waybill_http::idempotency::StoredResponse;
use waybill_messaging::envelope::Cause;
use waybill_runtime::clock;

use super::once::Write;
use super::{CommandError, Context, messages};
use crate::domain::price::Price;
use crate::domain::product::{Product, ProductName};
use crate::store::products::product_insert_in_tx;

/// A new product.
#[derive(Debug, Clone)]
pub struct AddProduct {
    /// Its key, for ever.
    pub sku: Sku,
    /// Its name.
    pub name: ProductName,
    /// Its first price.
    pub price: Price,
    /// What made this request.
    pub cause: Cause,
    /// How the product is answered.
    pub answer: fn(&Product) -> Result<StoredResponse, ApiError>,
}

impl Write for AddProduct {
    /// Refuses with [`CommandError::SkuTaken`].
    async fn write(
        &self,
        context: &Context,
        conn: &mut PgConnection,
    ) -> Result<StoredResponse, CommandError> {
        let product =
            Product::new(self.sku.clone(), clock::new_id(), self.name.clone(), self.price, context.now());
        if !product_insert_in_tx(conn, &product).await? {
            return Err(CommandError::SkuTaken(product.sku));
        }
        context.say(conn, messages::product_added(&product)?, product.version, &self.cause).await?;
        Ok((self.answer)(&product)?)
    }
}
