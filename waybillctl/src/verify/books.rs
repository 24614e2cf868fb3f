//! Orders against payments and reservations: three databases, three streams in the order of order ids, merged.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr};
use uuid::Uuid;

use super::Around;
use super::databases::Owner;
use super::report::Check;
use super::sagas::GONE;

/// What looks wrong is remembered and looked at once more; far more of it than anybody reads.
const CANDIDATES_MAX: usize = 10_000;

/// An order as its own database has it.
#[derive(Debug, sqlx::FromRow)]
struct Order {
    id: Uuid,
    status: String,
    total_minor: i64,
    currency: String,
    version: i64,
    /// `SKUxPIECES` of each line, sorted.
    lines: Option<String>,
    /// An operator has ended one of its sagas as it stood, and settled the rest by hand.
    abandoned: bool,
    /// Its sagas have ended by themselves, so that every participant has answered for the last time.
    settled: bool,
}

#[derive(Debug, sqlx::FromRow)]
struct Payment {
    id: Uuid,
    /// One in a sound book.
    attempts: i64,
    state: String,
    captured: i64,
    refunded: i64,
    currency: Option<String>,
    /// The provider is to be asked.
    moves: bool,
}

#[derive(Debug, sqlx::FromRow)]
struct Reservation {
    id: Uuid,
    state: String,
    lines: Option<String>,
}

/// What an operator abandoned is known from the audit when the saga itself is deleted.
fn orders() -> String {
    format!(
        "select o.id, o.status, o.total_minor, o.currency, o.version,
       (select string_agg(l.sku || 'x' || l.quantity, ',' order by l.sku collate \"C\") from order_lines l where l.order_id = o.id)
           as lines,
       coalesce(p.status = 'abandoned', false) or coalesce(c.status = 'abandoned', false) or a.key is not null as abandoned,
       (o.status in ('CONFIRMED', 'REJECTED', 'CANCELLED') and coalesce(p.status in ('completed', 'compensated'), false)
           and coalesce(c.status in ('completed', 'compensated'), true)) or {GONE} as settled
from orders o
left join saga_instances p on p.saga = 'place-order' and p.key = o.id
left join saga_instances c on c.saga = 'cancel-order' and c.key = o.id
left join (select distinct split_part(target, '/', 2) as key from operator_audit where action = 'sagas.abandon') a
    on a.key = o.id::text
order by o.id"
    )
}
const PAYMENTS: &str = "select order_id as id, count(*) as attempts, string_agg(state, '+' order by attempt) as state,
       sum(captured_minor)::bigint as captured, sum(refunded_minor)::bigint as refunded, max(currency) as currency,
       bool_or(due_at is not null) as moves
from payments group by order_id order by order_id";
const RESERVATIONS: &str = "select order_id as id, state,
       (select string_agg((l->>'sku') || 'x' || (l->>'quantity'), ',' order by (l->>'sku') collate \"C\")
        from jsonb_array_elements(lines) l) as lines
from reservations order by order_id";
/// The same orders, later.
const AGAIN: &str = "select id, version from orders where id = any($1)";

/// Orders first, participants after: whatever a settled order was answered is in their snapshots. What looks wrong is
/// judged only when the order is still the same afterwards.
pub(crate) async fn check(around: &Around<'_>) -> anyhow::Result<Check> {
    let mut check = Check::new(
        "books",
        "captured - refunded = total of a confirmed order and nothing of any other; stock is shipped for it, held for none that has ended; nothing without an order",
    );
    let mut orders_conn = around.databases.look(Owner::Orders).await?;
    let mut payments_conn = around.databases.look(Owner::Payments).await?;
    let mut inventory_conn = around.databases.look(Owner::Inventory).await?;
    let mut orders = Merged::<Order>::start(AssertSqlSafe(orders()), &mut orders_conn, |row| row.id).await?;
    let mut payments = Merged::<Payment>::start(PAYMENTS, &mut payments_conn, |row| row.id).await?;
    let mut reservations =
        Merged::<Reservation>::start(RESERVATIONS, &mut inventory_conn, |row| row.id).await?;
    let mut candidates = Vec::new();
    loop {
        let heads = [orders.id(), payments.id(), reservations.id()];
        let Some(id) = heads.into_iter().flatten().min() else { break };
        let order = orders.take(id).await?;
        let payment = payments.take(id).await?;
        let reservation = reservations.take(id).await?;
        judge(&mut check, &mut candidates, id, order, payment, reservation);
    }
    drop((orders, payments, reservations));
    confirm(around, check, candidates).await
}

/// Something that looks wrong: the order, its version then (none: it was not there), and what it is.
type Candidate = (Uuid, Option<i64>, String);

fn judge(
    check: &mut Check,
    candidates: &mut Vec<Candidate>,
    id: Uuid,
    order: Option<Order>,
    payment: Option<Payment>,
    reservation: Option<Reservation>,
) {
    let version = order.as_ref().map(|order| order.version);
    let wrong = match &order {
        None => Some("there is no such order".to_owned()),
        Some(order) if order.abandoned => {
            check.not_judged("orders whose saga an operator abandoned", 1);
            return;
        }
        Some(order) if !order.settled => {
            check.not_judged("orders under way", 1);
            return;
        }
        Some(_) if payment.as_ref().is_some_and(|payment| payment.moves) => {
            check.not_judged("orders whose payment provider is being asked", 1);
            return;
        }
        Some(order) => wrong(order, payment.as_ref(), reservation.as_ref()),
    };
    check.judged += 1;
    let Some(wrong) = wrong else { return };
    if candidates.len() == CANDIDATES_MAX {
        check.not_judged("orders that look wrong too, beyond the first 10,000", 1);
        return;
    }
    candidates.push((id, version, format!("order {id}: {wrong}")));
}

/// What is wrong with a settled order.
fn wrong(order: &Order, payment: Option<&Payment>, reservation: Option<&Reservation>) -> Option<String> {
    let (state, captured, refunded) = payment
        .map_or(("none", 0, 0), |payment| (payment.state.as_str(), payment.captured, payment.refunded));
    let stock = reservation.map_or("none", |reservation| reservation.state.as_str());
    let unpaid = ["none", "declined", "voided", "failed"].contains(&state);
    let unheld = ["none", "rejected", "released"].contains(&stock);
    let (fits, owed) = match order.status.as_str() {
        "CONFIRMED" => (state == "captured" && stock == "committed" && refunded == 0, order.total_minor),
        "REJECTED" => (unpaid && unheld, 0),
        _ => ((unpaid && unheld) || (state == "refunded" && stock == "restocked"), 0),
    };
    let same_money = payment.is_none_or(|payment| {
        payment.attempts == 1 && payment.currency.as_ref().is_none_or(|currency| *currency == order.currency)
    });
    let same_lines = reservation.is_none_or(|held| held.lines.is_none() || held.lines == order.lines);
    let holds = fits && captured - refunded == owed && same_money && same_lines;
    (!holds).then(|| {
        format!(
            "{} over {} {} ({}); payment {state}, captured {captured}, refunded {refunded}; stock {stock} ({})",
            order.status,
            order.total_minor,
            order.currency,
            order.lines.as_deref().unwrap_or("no lines"),
            reservation.and_then(|held| held.lines.as_deref()).unwrap_or("nothing"),
        )
    })
}

/// An order that has changed since, or is there by now, was in motion.
async fn confirm(around: &Around<'_>, mut check: Check, candidates: Vec<Candidate>) -> anyhow::Result<Check> {
    if candidates.is_empty() {
        return Ok(check);
    }
    let ids: Vec<Uuid> = candidates.iter().map(|(id, ..)| *id).collect();
    let mut conn = around.databases.look(Owner::Orders).await?;
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(AGAIN).bind(ids).fetch_all(&mut conn).await?;
    let now: HashMap<Uuid, i64> = rows.into_iter().collect();
    for (id, version, told) in candidates {
        if now.get(&id).copied() == version {
            check.violation(told);
        } else {
            check.judged -= 1;
            check.not_judged("orders that changed while they were looked at", 1);
        }
    }
    Ok(check)
}

/// A stream of rows by id, with its next row at hand.
struct Merged<'c, T> {
    rows: BoxStream<'c, Result<T, sqlx::Error>>,
    next: Option<T>,
    id: fn(&T) -> Uuid,
}

impl<'c, T> Merged<'c, T>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin + 'c,
{
    async fn start(
        question: impl SqlSafeStr + 'c,
        conn: &'c mut PgConnection,
        id: fn(&T) -> Uuid,
    ) -> anyhow::Result<Self> {
        let mut rows = sqlx::query_as::<_, T>(question).fetch(conn);
        let next = rows.try_next().await?;
        Ok(Self { rows, next, id })
    }

    fn id(&self) -> Option<Uuid> {
        self.next.as_ref().map(self.id)
    }

    /// The next row, when it is of this id.
    async fn take(&mut self, id: Uuid) -> anyhow::Result<Option<T>> {
        if self.id() != Some(id) {
            return Ok(None);
        }
        let next = self.rows.try_next().await?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}
