//! SQL of the price projection.

use sqlx::PgConnection;

use crate::domain::pricing::PriceNotice;

/// Writes these prices down, except where the catalogue has a newer one. At most one notice per SKU.
///
/// # Errors
/// Any [`sqlx::Error`].
pub async fn prices_record(conn: &mut PgConnection, notices: &[PriceNotice]) -> Result<(), sqlx::Error> {
    if notices.is_empty() {
        return Ok(());
    }
    let skus: Vec<_> = notices.iter().map(|n| n.sku.as_str()).collect();
    let unit_prices: Vec<_> = notices.iter().map(|n| n.price.unit_price_minor).collect();
    let currencies: Vec<_> = notices.iter().map(|n| n.price.currency.as_str()).collect();
    let versions: Vec<_> = notices.iter().map(|n| n.version).collect();
    sqlx::query(
        "insert into catalogue (sku, unit_price_minor, currency, version)
         select * from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[])
             as n (sku, unit_price_minor, currency, version)
         -- Row locks are taken in this order by every batch.
         order by sku
         on conflict (sku) do update
         set unit_price_minor = excluded.unit_price_minor, currency = excluded.currency,
             version = excluded.version, updated_at = now()
         -- A replayed or late event is older than what is known: it changes nothing.
         where catalogue.version < excluded.version",
    )
    .bind(skus)
    .bind(unit_prices)
    .bind(currencies)
    .bind(versions)
    .execute(conn)
    .await?;
    Ok(())
}
