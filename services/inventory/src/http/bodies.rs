//! JSON as it is on the wire, and its way from the domain's types.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_events::Sku;

use crate::commands::receive_stock::Receipt;
use crate::domain::product::Product;
use crate::domain::stock::Levels;

/// A new product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProduct {
    /// Stock keeping unit: the product's key for ever.
    #[schema(example = "TEA-GREEN-100", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub sku: String,
    /// What people call it.
    #[schema(example = "Green tea, 100 g", min_length = 1, max_length = 200)]
    pub name: String,
    /// Price of one piece, in minor units of the currency (cents for EUR).
    #[schema(example = 899, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub unit_price_minor: i64,
    /// ISO 4217 code of a currency in use.
    #[schema(example = "EUR", min_length = 3, max_length = 3)]
    pub currency: String,
}

/// Another price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPrice {
    /// Price of one piece from now on, in minor units of the currency.
    #[schema(example = 949, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub unit_price_minor: i64,
    /// ISO 4217 code of a currency in use.
    #[schema(example = "EUR", min_length = 3, max_length = 3)]
    pub currency: String,
}

/// Pieces that came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewReceipt {
    /// How many.
    #[schema(example = 50, minimum = 1, maximum = 1_000_000_000)]
    pub quantity: i64,
}

/// A product as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProductBody {
    /// Stock keeping unit.
    #[schema(example = "TEA-GREEN-100")]
    pub sku: String,
    /// What people call it.
    #[schema(example = "Green tea, 100 g")]
    pub name: String,
    /// Price of one piece for orders placed from now on, in minor units.
    #[schema(example = 899)]
    pub unit_price_minor: i64,
    /// ISO 4217 code of the price.
    #[schema(example = "EUR")]
    pub currency: String,
    /// How often something was said about the SKU, from 1; `ce_sequence` of its last event.
    #[schema(example = 1)]
    pub version: i64,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: String,
    /// When something was last said about it.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: String,
}

/// A receipt that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptBody {
    /// The receipt.
    pub id: Uuid,
    /// Stock keeping unit.
    #[schema(example = "TEA-GREEN-100")]
    pub sku: String,
    /// How many pieces came in.
    #[schema(example = 50)]
    pub quantity: i32,
    /// Pieces available for new orders after it.
    #[schema(example = 50)]
    pub available: i64,
}

/// Where the pieces of one SKU are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StockBody {
    /// Stock keeping unit.
    #[schema(example = "TEA-GREEN-100")]
    pub sku: String,
    /// Free for new orders.
    #[schema(example = 48)]
    pub available: i64,
    /// Promised to orders that are not yet confirmed.
    #[schema(example = 2)]
    pub reserved: i64,
    /// Gone with confirmed orders.
    #[schema(example = 0)]
    pub shipped: i64,
}

/// A page of products, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProductPage {
    /// At most as many as were asked for.
    pub items: Vec<ProductBody>,
    /// `cursor` of the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl From<&Product> for ProductBody {
    fn from(product: &Product) -> Self {
        Self {
            sku: product.sku.to_string(),
            name: product.name.as_str().to_owned(),
            unit_price_minor: product.price.minor(),
            currency: product.price.currency().to_string(),
            version: product.version,
            created_at: time(product.created_at),
            updated_at: time(product.updated_at),
        }
    }
}

impl From<&Receipt> for ReceiptBody {
    fn from(receipt: &Receipt) -> Self {
        Self {
            id: receipt.id.0,
            sku: receipt.sku.to_string(),
            quantity: receipt.pieces.get(),
            available: receipt.levels.available,
        }
    }
}

impl StockBody {
    /// The levels of this SKU.
    #[must_use]
    pub fn new(sku: &Sku, levels: Levels) -> Self {
        let Levels { available, reserved, shipped } = levels;
        Self { sku: sku.to_string(), available, reserved, shipped }
    }
}

/// RFC 3339, always to the microsecond, so that texts of equal length compare like the times they tell.
fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
