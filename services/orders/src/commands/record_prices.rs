//! Use case: inventory told new prices; orders placed from now on are priced by them.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use waybill_runtime::failpoints;

use crate::domain::pricing::PriceNotice;
use crate::store;

/// Writes the newest of these notices per SKU down, unless the catalogue knows a newer one: order and repetition of
/// notices do not matter. One statement, none without notices.
///
/// # Errors
/// Any [`sqlx::Error`].
pub async fn record_prices(
    conn: &mut PgConnection,
    notices: impl IntoIterator<Item = PriceNotice>,
) -> Result<(), sqlx::Error> {
    let mut newest: BTreeMap<_, PriceNotice> = BTreeMap::new();
    for notice in notices {
        if newest.get(&notice.sku).is_none_or(|known| known.version < notice.version) {
            newest.insert(notice.sku.clone(), notice);
        }
    }
    let newest: Vec<_> = newest.into_values().collect();
    store::catalogue::prices_record(conn, &newest).await?;
    if !newest.is_empty() {
        failpoints::reach("prices_recorded");
    }
    Ok(())
}
