//! A command's error becomes an answer.

use waybill_http::error::{ApiError, FieldError};

use crate::commands::CommandError;
use crate::domain::stock::LevelsError;

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::SkuTaken(sku) => {
                let message = format!("there is a product with SKU {sku} already: take another SKU");
                let details = vec![FieldError::new("sku", "sku_taken", message.as_str())];
                Self { details, ..Self::conflict("sku_taken", message) }
            }
            CommandError::UnknownSku(sku) => unknown_sku(sku.as_str()),
            CommandError::Stock(error @ LevelsError::TooMany { .. }) => {
                let message = error.to_string();
                let details = vec![FieldError::new("quantity", "stock_overflow", message.as_str())];
                Self { details, ..Self::conflict("stock_overflow", message) }
            }
            CommandError::Stock(error @ LevelsError::TooFew { .. }) => Self::internal(&error),
            CommandError::Http(answer) => answer,
            CommandError::Codec(error) => Self::internal(&error),
            CommandError::Database(error) => Self::from(error),
        }
    }
}

/// 404: the catalogue has no such SKU.
pub(super) fn unknown_sku(sku: &str) -> ApiError {
    ApiError::not_found("unknown_sku", format!("there is no product with SKU {sku}"))
}
