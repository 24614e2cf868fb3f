//! SQL of placing orders: one statement that writes all of some orders that came together.

mod columns;

use sqlx::PgExecutor;
use waybill_http::idempotency::{IdempotencyKey, StoredResponse};
use waybill_outbox::append::AppendArrays;

use self::columns::Columns;
use crate::domain::order::PlacedOrder;

/// A request that may come again: whose key on which endpoint, and the body it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose key: the caller's subject.
    pub scope: String,
    /// Method and route.
    pub endpoint: &'static str,
    /// The caller's key.
    pub key: IdempotencyKey,
    /// Hash of the parsed body.
    pub hash: [u8; 32],
}

impl Claim {
    /// Where its key stands among others.
    fn rank(&self) -> (&str, &str, &str) {
        (&self.scope, self.endpoint, self.key.as_str())
    }
}

/// A new order with all that belongs to it.
#[derive(Debug)]
pub struct Placement {
    /// The request it answers.
    pub claim: Claim,
    /// The answer.
    pub answer: StoredResponse,
    /// The order and its lines.
    pub placed: PlacedOrder,
    /// Its saga, as `saga_start` takes it among others.
    pub saga: String,
    /// Its first messages, as `outbox_append` takes them.
    pub messages: AppendArrays,
    /// Where its prices come from.
    pub prices: Prices,
}

/// Where the prices of a new order come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prices {
    /// The catalogue, a statement ago.
    JustRead,
    /// An earlier order: it is placed only if each is still the catalogue's.
    Remembered,
}

/// What became of a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placing {
    /// It is written.
    Placed,
    /// The key is taken, and nothing of it was written.
    KeyTaken,
    /// The catalogue says another price by now, and nothing of it was written.
    PriceChanged,
}

/// Writes new orders with their keys, lines, sagas and messages in one statement, which is a transaction of its own unless
/// the caller has begun one. Answers in the order of the placements; what becomes of one changes nothing for the others.
/// Of several with one key, one may be placed.
///
/// # Errors
/// Any [`sqlx::Error`]: none is written, or, when the connection is lost, nobody knows; the keys tell.
pub async fn orders_place(
    executor: impl PgExecutor<'_>,
    placements: &[impl AsRef<Placement>],
) -> Result<Vec<Placing>, sqlx::Error> {
    // Keys are taken in this order by every statement of several, so that two wait for each other in one direction only.
    let mut places: Vec<usize> = (0..placements.len()).collect();
    places.sort_by(|one, other| {
        placements[*one].as_ref().claim.rank().cmp(&placements[*other].as_ref().claim.rank())
    });
    let columns = Columns::of(places.iter().map(|place| placements[*place].as_ref()));
    let query = sqlx::query_as(
        "with claim as materialized (
             -- The keys come before all else: a second request with one waits here, and writes nothing once the first has
             -- committed. Left out are orders of which a remembered price is not the catalogue's. No lock: a price that
             -- changes before the commit comes too late.
             -- How many there are is selected: seen as a constant, it would have the statement planned anew each time.
             select stale.orders as stale, idempotency_claims(stale.orders, $1, $2, $3, $4, $5, $6, $7) as won
             from (select array(
                       select ($17::int[])[l] from generate_series(1, (select cardinality($17::int[]))) as l
                       -- One look by key for each line, whatever the plan was made on.
                       where ($15::boolean[])[($17::int[])[l]] and ($21::bigint[])[l] is distinct from (
                           select c.unit_price_minor from catalogue c
                           where c.sku = ($18::text[])[l] and c.currency = ($11::text[])[($17::int[])[l]])
                   ) as orders offset 0) stale
         ), placed as (
             insert into orders (id, customer_id, status, currency, total_minor, version, created_at, updated_at)
             select ($8::uuid[])[o], ($9::uuid[])[o], ($10::text[])[o], ($11::text[])[o], ($12::bigint[])[o],
                    ($13::bigint[])[o], ($14::timestamptz[])[o], ($14::timestamptz[])[o]
             from claim, generate_series(1, (select cardinality($8::uuid[]))) as o where claim.won[o]
         ), lined as (
             insert into order_lines (order_id, sku, place, quantity, unit_price_minor)
             select ($8::uuid[])[($17::int[])[l]], ($18::text[])[l], ($19::int[])[l], ($20::int[])[l], ($21::bigint[])[l]
             from claim, generate_series(1, (select cardinality($17::int[]))) as l where claim.won[($17::int[])[l]]
         ), started as materialized (
             select saga_start(('[' || string_agg(($16::text[])[o], ',') || ']')::json)
             from claim, generate_series(1, (select cardinality($16::text[]))) as o where claim.won[o]
         ), appended as materialized (
             -- Nobody else can know of an order before the commit: there is no aggregate row to lock first.
             select outbox_append(array_agg(($23::uuid[])[m]), array_agg(($24::text[])[m]), array_agg(($25::bytea[])[m]),
                                  array_agg(($26::text[])[m]), array_agg(($27::bytea[])[m]))
             from claim, generate_series(1, (select cardinality($22::int[]))) as m where claim.won[($22::int[])[m]]
         )
         select claim.stale, claim.won from claim, started, appended",
    );
    let (stale, won): (Vec<i32>, Vec<bool>) = columns.bind(query).fetch_one(executor).await?;
    let mut placings = vec![Placing::KeyTaken; placements.len()];
    for ((place, nth), won) in places.into_iter().zip(1..).zip(won) {
        if won {
            placings[place] = Placing::Placed;
        } else if stale.contains(&nth) {
            placings[place] = Placing::PriceChanged;
        }
    }
    Ok(placings)
}
