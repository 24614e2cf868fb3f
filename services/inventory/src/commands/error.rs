//! Why an HTTP command was not done. Nothing is written then.

use thiserror::Error;
use waybill_events::Sku;
use waybill_http::error::ApiError;
use waybill_messaging::codec::CodecError;

use crate::domain::stock::LevelsError;

/// A command that did not happen.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The catalogue has this SKU already.
    #[error("there is a product with SKU {0} already")]
    SkuTaken(Sku),
    /// The catalogue has no such SKU.
    #[error("there is no product with SKU {0}")]
    UnknownSku(Sku),
    /// The stock can not take the receipt.
    #[error("the receipt does not fit")]
    Stock(#[source] LevelsError),
    /// Answered already in HTTP's words: the idempotency key was used for another request, or its first one still runs.
    #[error("the request was refused")]
    Http(#[from] ApiError),
    /// A message could not be encoded: a fault of this program.
    #[error("the event could not be encoded")]
    Codec(#[from] CodecError),
    /// The database's.
    #[error("the database did not do it")]
    Database(#[from] sqlx::Error),
}
