//! Rows of `payments`.

use std::time::Duration;

use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;
use waybill_events::{CustomerId, OrderId};
use waybill_messaging::envelope::Cause;

use super::rows::PaymentRow;
pub use super::rows::{Kept, PaymentView};
use crate::domain::outcome;
use crate::domain::payment::{Payment, PaymentKey, Schedule, State};

/// A payment to be written.
#[derive(Debug, Clone)]
pub struct Save {
    /// As it is from now on.
    pub payment: Payment,
    /// Replies given, the one of this change included.
    pub version: i64,
    /// When the provider is to be asked.
    pub schedule: Schedule,
    /// The command that waits for the answer from now on; `None`: the one before.
    pub cause: Option<Cause>,
    /// Whether the row exists.
    pub known: bool,
}

/// Reads all payments of these orders and locks their rows until the transaction ends.
///
/// # Errors
/// The database's.
pub async fn payments_lock_in_tx(
    conn: &mut PgConnection,
    orders: &[OrderId],
) -> Result<Vec<Kept>, sqlx::Error> {
    let orders: Vec<Uuid> = orders.iter().map(|order| order.as_uuid()).collect();
    let rows: Vec<PaymentRow> = sqlx::query_as(
        "select order_id, attempt, version, state, reason, reference, customer_id, amount_minor, currency,
                payment_token, refunded_minor, refund_minor, tries, correlation_id, causation_id, traceparent
         from payments where order_id = any($1)
         -- Locked, in key order: a command and an outcome of one payment are decided one after the other.
         order by order_id, attempt
         for update",
    )
    .bind(orders)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Kept::try_from).collect()
}

/// Takes work that is due: at most `limit` payments, oldest first, each put off by `claim`, so that nobody else asks
/// meanwhile and a killed worker's work comes up again. One statement, its own transaction.
///
/// # Errors
/// The database's.
pub async fn payments_take_due(pool: &PgPool, limit: i64, claim: Duration) -> Result<Vec<Kept>, sqlx::Error> {
    let rows: Vec<PaymentRow> = sqlx::query_as(
        "with due as materialized (
             select order_id, attempt from payments where due_at <= now()
             -- Locked rows are being decided right now: they come up again by themselves.
             order by due_at limit $1 for update skip locked
         )
         update payments p
         set due_at = now() + make_interval(secs => $2), tries = p.tries + 1
         from due
         -- The orders are said twice: no plan, made while the table was small, reads all of it.
         where p.order_id = any(array(select order_id from due))
           and p.order_id = due.order_id and p.attempt = due.attempt
         returning p.order_id, p.attempt, p.version, p.state, p.reason, p.reference, p.customer_id, p.amount_minor,
                   p.currency, p.payment_token, p.refunded_minor, p.refund_minor, p.tries, p.correlation_id,
                   p.causation_id, p.traceparent",
    )
    .bind(limit)
    .bind(claim.as_secs_f64())
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Kept::try_from).collect()
}

/// The newest payment of an order; with `customer`, only that customer's own.
///
/// # Errors
/// The database's.
pub async fn payment_find(
    executor: impl PgExecutor<'_>,
    order: OrderId,
    customer: Option<CustomerId>,
) -> Result<Option<PaymentView>, sqlx::Error> {
    sqlx::query_as(
        "select order_id, attempt, state, reason, amount_minor, currency, captured_minor, refunded_minor, version,
                created_at, updated_at
         from payments
         where order_id = $1 and ($2::uuid is null or customer_id = $2)
         order by attempt desc limit 1",
    )
    .bind(order.as_uuid())
    .bind(customer.map(CustomerId::as_uuid))
    .fetch_optional(executor)
    .await
}

/// Writes payments in one statement: known rows are updated (they are locked), new ones inserted.
///
/// # Errors
/// The database's; a unique violation when somebody else inserted a new one since it was looked for: do the whole
/// transaction again.
pub async fn payments_save_in_tx(conn: &mut PgConnection, saves: &[Save]) -> Result<(), sqlx::Error> {
    if saves.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(saves);
    let written = sqlx::query(
        "with s as (
             select * from unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                                  $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::bigint[],
                                  $12::uuid[], $13::uuid[], $14::text[], $15::bool[],
                                  $16::uuid[], $17::bigint[], $18::text[], $19::text[])
                 as s (order_id, attempt, version, state, reason, reference,
                       captured_minor, refunded_minor, refund_minor, schedule, delay_ms,
                       correlation_id, causation_id, traceparent, known,
                       customer_id, amount_minor, currency, payment_token)
         ), updated as (
             update payments p
             set version = s.version, state = s.state, reason = s.reason, reference = s.reference,
                 captured_minor = s.captured_minor, refunded_minor = s.refunded_minor, refund_minor = s.refund_minor,
                 due_at = case s.schedule when 'now' then now() when 'resume' then coalesce(p.due_at, now())
                                          when 'later' then now() + make_interval(secs => s.delay_ms / 1000.0)
                                          when 'never' then null else p.due_at end,
                 tries = case when s.schedule = 'now' or (s.schedule = 'resume' and p.due_at is null) then 0
                              else p.tries end,
                 correlation_id = coalesce(s.correlation_id, p.correlation_id),
                 causation_id = case when s.correlation_id is null then p.causation_id else s.causation_id end,
                 traceparent = case when s.correlation_id is null then p.traceparent else s.traceparent end,
                 updated_at = now()
             from s
             -- One look by key for each row. A plan made while the table was small would join by reading all of it, or
             -- all of the batch for each of its rows, and is kept. The rows are locked: they stay where they are.
             where s.known and p.ctid = (select ctid from payments where order_id = s.order_id and attempt = s.attempt)
             returning 1
         ), inserted as (
             insert into payments (order_id, attempt, version, state, reason, reference, customer_id, amount_minor,
                                   currency, payment_token, due_at, correlation_id, causation_id, traceparent)
             select order_id, attempt, version, state, reason, reference, customer_id, amount_minor, currency,
                    payment_token, case schedule when 'now' then now() end, correlation_id, causation_id, traceparent
             from s where not known
             returning 1
         )
         select (select count(*) from updated) + (select count(*) from inserted)",
    );
    let written: i64 =
        columns.bind(written).fetch_one(conn).await.and_then(|row| sqlx::Row::try_get(&row, 0))?;
    if usize::try_from(written).ok() == Some(saves.len()) {
        return Ok(());
    }
    let expected = saves.len();
    Err(sqlx::Error::InvalidArgument(format!(
        "{written} of {expected} payments were written: a locked row is gone"
    )))
}

/// The saves, column by column, as one statement takes them.
#[derive(Default)]
struct Columns {
    order_id: Vec<Uuid>,
    attempt: Vec<i32>,
    version: Vec<i64>,
    state: Vec<&'static str>,
    reason: Vec<Option<String>>,
    reference: Vec<Option<String>>,
    captured: Vec<i64>,
    refunded: Vec<i64>,
    refund: Vec<Option<i64>>,
    schedule: Vec<&'static str>,
    delay_ms: Vec<i64>,
    correlation_id: Vec<Option<Uuid>>,
    causation_id: Vec<Option<Uuid>>,
    traceparent: Vec<Option<String>>,
    known: Vec<bool>,
    customer_id: Vec<Option<Uuid>>,
    amount: Vec<Option<i64>>,
    currency: Vec<Option<&'static str>>,
    token: Vec<Option<String>>,
}

impl Columns {
    fn of(saves: &[Save]) -> Self {
        let mut all = Self::default();
        for save in saves {
            all.push_state(&save.payment);
            all.push_terms(&save.payment);
            all.version.push(save.version);
            let (schedule, delay_ms) = match save.schedule {
                Schedule::Unchanged => ("keep", 0),
                Schedule::Now => ("now", 0),
                Schedule::Resume => ("resume", 0),
                Schedule::Later { tries } => ("later", outcome::delay_ms(tries)),
                Schedule::Never => ("never", 0),
            };
            all.schedule.push(schedule);
            all.delay_ms.push(delay_ms);
            let cause = save.cause.as_ref();
            all.correlation_id.push(cause.map(|cause| cause.correlation_id));
            all.causation_id.push(cause.and_then(|cause| cause.causation_id));
            all.traceparent.push(cause.and_then(|cause| cause.trace.as_ref()).map(ToString::to_string));
            all.known.push(save.known);
        }
        all
    }

    fn push_state(&mut self, payment: &Payment) {
        let PaymentKey { order_id, attempt } = payment.key;
        let amount = payment.terms.as_ref().map_or(0, |terms| terms.amount_minor);
        let (mut reason, mut reference, mut captured, mut refunded, mut refund) = (None, None, 0, 0, None);
        match &payment.state {
            State::Authorizing | State::Voiding | State::Voided => {}
            State::Declined { reason: why }
            | State::GivingUp { reason: why }
            | State::Failed { reason: why } => {
                reason = Some(why.clone());
            }
            State::Authorized { reference: held } | State::Capturing { reference: held } => {
                reference = Some(held.clone());
            }
            State::Captured { reference: held } => (reference, captured) = (Some(held.clone()), amount),
            State::Refunding { reference: held, amount_minor } => {
                (reference, captured, refund) = (Some(held.clone()), amount, Some(*amount_minor));
            }
            State::Refunded { reference: held, amount_minor } => {
                (reference, captured, refund) = (Some(held.clone()), amount, Some(*amount_minor));
                refunded = *amount_minor;
            }
        }
        self.order_id.push(order_id.as_uuid());
        self.attempt.push(attempt);
        self.state.push(payment.state.name());
        self.reason.push(reason);
        self.reference.push(reference);
        self.captured.push(captured);
        self.refunded.push(refunded);
        self.refund.push(refund);
    }

    fn push_terms(&mut self, payment: &Payment) {
        let terms = payment.terms.as_ref();
        self.customer_id.push(terms.map(|terms| terms.customer_id.as_uuid()));
        self.amount.push(terms.map(|terms| terms.amount_minor));
        self.currency.push(terms.map(|terms| terms.currency.as_str()));
        self.token.push(terms.map(|terms| terms.token.clone()));
    }

    fn bind(
        self,
        query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments> {
        query
            .bind(self.order_id)
            .bind(self.attempt)
            .bind(self.version)
            .bind(self.state)
            .bind(self.reason)
            .bind(self.reference)
            .bind(self.captured)
            .bind(self.refunded)
            .bind(self.refund)
            .bind(self.schedule)
            .bind(self.delay_ms)
            .bind(self.correlation_id)
            .bind(self.causation_id)
            .bind(self.traceparent)
            .bind(self.known)
            .bind(self.customer_id)
            .bind(self.amount)
            .bind(self.currency)
            .bind(self.token)
    }
}
