//! SQL of placed orders: read for callers, locked and saved for commands.

use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, PgConnection, PgExecutor};
use uuid::Uuid;
use waybill_events::{CustomerId, OrderId};
use waybill_http::paging::Page;

use super::rows::{LineColumns, OrderRow};
use crate::domain::order::{Order, PlacedOrder};
use crate::domain::viewer::Viewer;

/// The order with its lines, when `viewer` may see it.
///
/// # Errors
/// Any [`sqlx::Error`].
pub async fn order_find(
    executor: impl PgExecutor<'_>,
    id: OrderId,
    viewer: Viewer,
) -> Result<Option<PlacedOrder>, sqlx::Error> {
    let row = sqlx::query(
        "select o.id, o.customer_id, o.status, o.reason, o.currency, o.total_minor, o.version,
                o.created_at, o.updated_at, l.skus, l.quantities, l.unit_prices_minor
         from orders o
         cross join lateral (
             select array_agg(sku::text order by place) as skus,
                    array_agg(quantity::int order by place) as quantities,
                    array_agg(unit_price_minor::bigint order by place) as unit_prices_minor
             from order_lines where order_id = o.id
         ) l
         -- Ownership is decided here: somebody else's order is not found. Null is a viewer who may see all.
         where o.id = $1 and ($2::uuid is null or o.customer_id = $2)",
    )
    .bind(id.as_uuid())
    .bind(owner(viewer))
    .fetch_optional(executor)
    .await?;
    row.as_ref().map(placed_order).transpose()
}

/// One page of a customer's orders, newest first, each with its lines; at most one more than the page's limit, which
/// tells that there is a next page.
///
/// # Errors
/// Any [`sqlx::Error`].
pub async fn orders_page(
    executor: impl PgExecutor<'_>,
    customer: CustomerId,
    page: &Page,
) -> Result<Vec<PlacedOrder>, sqlx::Error> {
    let (before, before_id) = page.cursor.as_ref().map(|c| (c.created_at, c.id)).unzip();
    let rows = sqlx::query(
        "select o.id, o.customer_id, o.status, o.reason, o.currency, o.total_minor, o.version,
                o.created_at, o.updated_at, l.skus, l.quantities, l.unit_prices_minor
         from (
             select * from orders
             -- A row comparison: the index orders_of_customer is entered right at the cursor.
             where customer_id = $1 and ($2::timestamptz is null or (created_at, id) < ($2, $3))
             order by created_at desc, id desc
             limit $4
         ) o
         cross join lateral (
             select array_agg(sku::text order by place) as skus,
                    array_agg(quantity::int order by place) as quantities,
                    array_agg(unit_price_minor::bigint order by place) as unit_prices_minor
             from order_lines where order_id = o.id
         ) l
         order by o.created_at desc, o.id desc",
    )
    .bind(customer.as_uuid())
    .bind(before)
    .bind(before_id)
    .bind(i64::from(page.limit) + 1)
    .fetch_all(executor)
    .await?;
    rows.iter().map(placed_order).collect()
}

/// Locks these orders, in the order of their ids, waiting for each.
///
/// # Errors
/// Any [`sqlx::Error`]; a lock that is not free within the lock timeout is one.
pub async fn orders_lock(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Order>, sqlx::Error> {
    let rows: Vec<OrderRow> = sqlx::query_as(
        "select * from orders where id = any($1)
         -- Last in the order of locks, after the sagas (src/sagas/mod.rs); sorted, so that no two transactions wait
         -- for each other in a ring.
         order by id for no key update",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Order::try_from).collect()
}

/// Saves changed orders; their rows are locked by this transaction. An order may have gone several versions on.
///
/// # Errors
/// Any [`sqlx::Error`]; [`sqlx::Error::RowNotFound`] when one of them is not there.
pub async fn orders_save(conn: &mut PgConnection, orders: &[&Order]) -> Result<(), sqlx::Error> {
    if orders.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = orders.iter().map(|o| o.id.as_uuid()).collect();
    let statuses: Vec<_> = orders.iter().map(|o| o.state.status().as_str()).collect();
    let reasons: Vec<_> = orders.iter().map(|o| o.state.reason().map(|r| r.as_str())).collect();
    let versions: Vec<_> = orders.iter().map(|o| o.version).collect();
    let times: Vec<_> = orders.iter().map(|o| o.updated_at).collect();
    let saved = sqlx::query(
        "update orders o
         set status = n.status, reason = n.reason, version = n.version, updated_at = n.updated_at
         from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[])
             as n (id, status, reason, version, updated_at)
         -- One look by key for each row. A plan made while the table was small would join by reading all of it, or all
         -- of the batch for each of its rows, and is kept.
         -- The row lock guards the versions; the comparison makes a caller without it fail.
         where o.ctid = (select ctid from orders where id = n.id) and o.version < n.version",
    )
    .bind(ids)
    .bind(statuses)
    .bind(reasons)
    .bind(versions)
    .bind(times)
    .execute(conn)
    .await?;
    if saved.rows_affected() == orders.len() as u64 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

fn owner(viewer: Viewer) -> Option<Uuid> {
    match viewer {
        Viewer::Customer(id) => Some(id.as_uuid()),
        Viewer::Staff => None,
    }
}

fn placed_order(row: &PgRow) -> Result<PlacedOrder, sqlx::Error> {
    let order = OrderRow::from_row(row)?.try_into()?;
    let lines = LineColumns::from_row(row)?.try_into()?;
    Ok(PlacedOrder { order, lines })
}
