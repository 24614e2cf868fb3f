//! Rows as they lie in the database, and their way into the domain's types.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;
use waybill_events::{Currency, CustomerId, OrderId, Sku};

use crate::domain::order::{Order, State, Status};
use crate::domain::pricing::PricedLine;
use crate::domain::reason::Reason;

/// A row that breaks the table's own rules: only a change by hand can make one.
#[derive(Debug, thiserror::Error)]
#[error("the stored {column} {value:?} of {table} can not be read")]
pub(super) struct Unreadable {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    pub(super) value: String,
}

impl Unreadable {
    pub(super) fn error(table: &'static str, column: &'static str, value: &str) -> sqlx::Error {
        sqlx::Error::Decode(Box::new(Self { table, column, value: value.to_owned() }))
    }
}

/// `orders`, whole.
#[derive(Debug, FromRow)]
pub(super) struct OrderRow {
    id: Uuid,
    customer_id: Uuid,
    status: String,
    reason: Option<String>,
    currency: String,
    total_minor: i64,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<OrderRow> for Order {
    type Error = sqlx::Error;

    fn try_from(row: OrderRow) -> Result<Self, sqlx::Error> {
        let state = Status::parse(&row.status)
            .and_then(|status| State::of(status, row.reason.as_deref().map(Reason::new)))
            .ok_or_else(|| Unreadable::error("orders", "status", &row.status))?;
        Ok(Self {
            id: OrderId::from(row.id),
            customer_id: CustomerId::from(row.customer_id),
            state,
            currency: currency("orders", &row.currency)?,
            total_minor: row.total_minor,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// The lines of one order, a column each, in the customer's order.
#[derive(Debug, FromRow)]
pub(super) struct LineColumns {
    skus: Vec<String>,
    quantities: Vec<i32>,
    unit_prices_minor: Vec<i64>,
}

impl TryFrom<LineColumns> for Vec<PricedLine> {
    type Error = sqlx::Error;

    fn try_from(columns: LineColumns) -> Result<Self, sqlx::Error> {
        let amounts = columns.quantities.into_iter().zip(columns.unit_prices_minor);
        columns
            .skus
            .iter()
            .zip(amounts)
            .map(|(text, (quantity, unit_price_minor))| {
                Ok(PricedLine { sku: sku("order_lines", text)?, quantity, unit_price_minor })
            })
            .collect()
    }
}

pub(super) fn sku(table: &'static str, text: &str) -> Result<Sku, sqlx::Error> {
    text.parse().map_err(|_| Unreadable::error(table, "sku", text))
}

pub(super) fn currency(table: &'static str, text: &str) -> Result<Currency, sqlx::Error> {
    text.parse().map_err(|_| Unreadable::error(table, "currency", text))
}
