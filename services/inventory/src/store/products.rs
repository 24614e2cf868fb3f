//! Rows of `products`.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;
use waybill_events::{Currency, Sku};

use super::{all_written, decoded};
use crate::domain::price::Price;
use crate::domain::product::{Product, ProductName};

#[derive(FromRow)]
struct ProductRow {
    sku: String,
    id: Uuid,
    name: String,
    unit_price_minor: i64,
    currency: String,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<ProductRow> for Product {
    type Error = sqlx::Error;

    fn try_from(row: ProductRow) -> Result<Self, sqlx::Error> {
        let currency = decoded("currency", row.currency.parse::<Currency>())?;
        Ok(Self {
            sku: decoded("sku", row.sku.parse::<Sku>())?,
            id: row.id,
            name: decoded("name", ProductName::parse(&row.name))?,
            price: decoded("unit_price_minor", Price::new(row.unit_price_minor, currency))?,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Inserts the product and its empty stock row; `false` when the SKU is taken (also by a transaction that just
/// committed, which is waited for).
///
/// # Errors
/// The database's.
pub async fn product_insert_in_tx(conn: &mut PgConnection, product: &Product) -> Result<bool, sqlx::Error> {
    let statement = sqlx::query(
        "with product as (
             insert into products (sku, id, name, unit_price_minor, currency, version, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (sku) do nothing
             returning sku
         )
         insert into stock (sku) select sku from product",
    );
    let statement = statement
        .bind(product.sku.as_str())
        .bind(product.id)
        .bind(product.name.as_str())
        .bind(product.price.minor())
        .bind(product.price.currency().as_str())
        .bind(product.version)
        .bind(product.created_at)
        .bind(product.updated_at);
    Ok(statement.execute(conn).await?.rows_affected() == 1)
}

/// Reads the product and locks its row until the transaction ends.
///
/// # Errors
/// The database's.
pub async fn product_lock_in_tx(conn: &mut PgConnection, sku: &Sku) -> Result<Option<Product>, sqlx::Error> {
    let row: Option<ProductRow> = sqlx::query_as(
        "select sku, id, name, unit_price_minor, currency, version, created_at, updated_at
         from products where sku = $1
         -- Locked: the version must be the next one, and its event appended after the one before it.
         for update",
    )
    .bind(sku.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(Product::try_from).transpose()
}

/// Writes price, version and time of a locked product.
///
/// # Errors
/// The database's; also when the row is not the version before.
pub async fn product_update_in_tx(conn: &mut PgConnection, product: &Product) -> Result<(), sqlx::Error> {
    let statement = sqlx::query(
        "update products set unit_price_minor = $2, currency = $3, version = $4, updated_at = $5
         where sku = $1 and version = $4 - 1",
    );
    let statement = statement
        .bind(product.sku.as_str())
        .bind(product.price.minor())
        .bind(product.price.currency().as_str())
        .bind(product.version)
        .bind(product.updated_at);
    all_written("products", statement.execute(conn).await?.rows_affected(), 1)
}

/// The product, unlocked.
///
/// # Errors
/// The database's.
pub async fn product_find(executor: impl PgExecutor<'_>, sku: &Sku) -> Result<Option<Product>, sqlx::Error> {
    let row: Option<ProductRow> = sqlx::query_as(
        "select sku, id, name, unit_price_minor, currency, version, created_at, updated_at
         from products where sku = $1",
    )
    .bind(sku.as_str())
    .fetch_optional(executor)
    .await?;
    row.map(Product::try_from).transpose()
}

/// At most `limit` products after this one (created at, id), newest first.
///
/// # Errors
/// The database's.
pub async fn product_list(
    executor: impl PgExecutor<'_>,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Product>, sqlx::Error> {
    let (at, id) = after.unzip();
    let rows: Vec<ProductRow> = sqlx::query_as(
        "select sku, id, name, unit_price_minor, currency, version, created_at, updated_at
         from products
         where (created_at, id) < (coalesce($1, 'infinity'), coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         order by created_at desc, id desc
         limit $3",
    )
    .bind(at)
    .bind(id)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(Product::try_from).collect()
}
