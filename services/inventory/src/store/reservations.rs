//! Rows of `reservations`: one per order, whatever became of it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use thiserror::Error;
use uuid::Uuid;
use waybill_events::{OrderId, Sku};

use super::{all_written, decoded};
use crate::domain::reservation::{Refusal, Reservation};
use crate::domain::shelf::Lines;
use crate::domain::stock::{Line, Pieces};
use crate::domain::wave::Numbered;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LineRow {
    sku: String,
    quantity: i32,
}

#[derive(FromRow)]
struct ReservationRow {
    order_id: Uuid,
    version: i64,
    state: String,
    lines: Option<Json<Vec<LineRow>>>,
    refusal: Option<String>,
    refusal_sku: Option<String>,
}

/// A row whose columns do not make a reservation, though the table's checks passed.
#[derive(Debug, Error)]
#[error("state {state:?} with refusal {refusal:?} and {lines} lines makes no reservation")]
struct NoReservation {
    state: String,
    refusal: Option<String>,
    lines: &'static str,
}

impl TryFrom<ReservationRow> for Numbered {
    type Error = sqlx::Error;

    fn try_from(row: ReservationRow) -> Result<Self, sqlx::Error> {
        let version = row.version;
        let lines = row.lines.map(|Json(rows)| lines_from_rows(rows)).transpose()?;
        let refusal_sku =
            row.refusal_sku.map(|sku| decoded("refusal_sku", sku.parse::<Sku>())).transpose()?;
        let reservation = match (row.state.as_str(), lines, row.refusal.as_deref(), refusal_sku) {
            ("reserved", Some(lines), None, None) => Reservation::Reserved { lines },
            ("rejected", None, Some("insufficient_stock"), Some(sku)) => {
                Reservation::Rejected { refusal: Refusal::InsufficientStock(sku) }
            }
            ("rejected", None, Some("unknown_sku"), Some(sku)) => {
                Reservation::Rejected { refusal: Refusal::UnknownSku(sku) }
            }
            ("rejected", None, Some("cancelled"), None) => {
                Reservation::Rejected { refusal: Refusal::Cancelled }
            }
            ("released", lines, None, None) => Reservation::Released { lines },
            ("committed", Some(lines), None, None) => Reservation::Committed { lines },
            ("restocked", Some(lines), None, None) => Reservation::Restocked { lines },
            (_, lines, _, _) => {
                let lines = if lines.is_some() { "some" } else { "no" };
                let what = NoReservation { state: row.state, refusal: row.refusal, lines };
                return decoded("state", Err(what));
            }
        };
        Ok(Self { version, reservation })
    }
}

fn lines_from_rows(rows: Vec<LineRow>) -> Result<Lines, sqlx::Error> {
    let line = |row: LineRow| {
        let sku = decoded("lines", row.sku.parse::<Sku>())?;
        Ok(Line { sku, pieces: decoded("lines", Pieces::ordered(row.quantity))? })
    };
    let lines = rows.into_iter().map(line).collect::<Result<Vec<_>, sqlx::Error>>()?;
    decoded("lines", Lines::new(lines))
}

fn rows_from_lines(lines: &Lines) -> Json<Vec<LineRow>> {
    let row = |line: &Line| LineRow { sku: line.sku.as_str().to_owned(), quantity: line.pieces.get() };
    Json(lines.iter().map(row).collect())
}

/// Reads the reservations of these orders and locks their rows until the transaction ends. An order that is not in the
/// answer has none yet.
///
/// # Errors
/// The database's.
pub async fn reservations_lock_in_tx(
    conn: &mut PgConnection,
    orders: &[OrderId],
) -> Result<HashMap<OrderId, Numbered>, sqlx::Error> {
    let orders: Vec<Uuid> = orders.iter().map(|order| order.as_uuid()).collect();
    let rows: Vec<ReservationRow> = sqlx::query_as(
        "select order_id, version, state, lines, refusal, refusal_sku
         from reservations where order_id = any($1)
         -- Locked: the next reply's version is decided here, and its row appended after the one before it.
         order by order_id
         for update",
    )
    .bind(orders)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((OrderId::from_uuid(row.order_id), Numbered::try_from(row)?))).collect()
}

/// Writes the reservations of a wave in one statement: new ones with version 1, known ones one version on.
///
/// # Errors
/// The database's; also when an order's first reservation was made by somebody else since it was looked for.
pub async fn reservations_save_in_tx(
    conn: &mut PgConnection,
    reservations: &[(OrderId, Numbered)],
) -> Result<(), sqlx::Error> {
    let refusal = |numbered: &Numbered| match &numbered.reservation {
        Reservation::Rejected { refusal } => Some(refusal.clone()),
        _ => None,
    };
    let refusals: Vec<Option<Refusal>> = reservations.iter().map(|(_, numbered)| refusal(numbered)).collect();
    let states = reservations.iter().map(|(_, numbered)| numbered.reservation.state());
    let lines = reservations.iter().map(|(_, numbered)| numbered.reservation.lines().map(rows_from_lines));
    let refusal_skus =
        refusals.iter().map(|refusal| refusal.as_ref().and_then(Refusal::sku).map(Sku::as_str));
    let statement = sqlx::query(
        "insert into reservations (order_id, version, state, lines, refusal, refusal_sku)
         select r.order_id, r.version, r.state, r.lines, r.refusal, r.refusal_sku
         from unnest($1::uuid[], $2::bigint[], $3::text[], $4::jsonb[], $5::text[], $6::text[])
             as r (order_id, version, state, lines, refusal, refusal_sku)
         on conflict (order_id) do update
         set version = excluded.version, state = excluded.state, lines = excluded.lines, updated_at = now()
         -- Locked rows always pass; a row that appeared after the lock does not, and the batch is done again.
         where reservations.version = excluded.version - 1",
    );
    let statement = statement
        .bind(reservations.iter().map(|(order, _)| order.as_uuid()).collect::<Vec<_>>())
        .bind(reservations.iter().map(|(_, numbered)| numbered.version).collect::<Vec<_>>())
        .bind(states.collect::<Vec<_>>())
        .bind(lines.collect::<Vec<_>>())
        .bind(refusals.iter().map(|refusal| refusal.as_ref().map(Refusal::reason)).collect::<Vec<_>>())
        .bind(refusal_skus.collect::<Vec<_>>());
    all_written("reservations", statement.execute(conn).await?.rows_affected(), reservations.len())
}
