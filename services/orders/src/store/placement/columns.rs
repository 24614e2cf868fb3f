//! Placements as the statement's parameters: an array for each column. Lines and messages name their order by its number.

use chrono::{DateTime, Utc};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use uuid::Uuid;

use super::{Placement, Prices};

/// Orders, lines and messages, each in the order in which they came.
#[derive(Default)]
pub(super) struct Columns<'a> {
    orders: Orders<'a>,
    lines: Lines<'a>,
    messages: Messages<'a>,
}

#[derive(Default)]
struct Orders<'a> {
    scopes: Vec<&'a str>,
    endpoints: Vec<&'a str>,
    keys: Vec<&'a str>,
    hashes: Vec<&'a [u8]>,
    answer_statuses: Vec<i16>,
    answer_headers: Vec<String>,
    answer_bodies: Vec<&'a [u8]>,
    ids: Vec<Uuid>,
    customer_ids: Vec<Uuid>,
    statuses: Vec<&'a str>,
    currencies: Vec<&'a str>,
    totals_minor: Vec<i64>,
    versions: Vec<i64>,
    created_at: Vec<DateTime<Utc>>,
    remembered: Vec<bool>,
    sagas: Vec<&'a str>,
}

#[derive(Default)]
struct Lines<'a> {
    nth: Vec<i32>,
    skus: Vec<&'a str>,
    places: Vec<i32>,
    quantities: Vec<i32>,
    unit_prices_minor: Vec<i64>,
}

#[derive(Default)]
struct Messages<'a> {
    nth: Vec<i32>,
    ids: Vec<Uuid>,
    topics: Vec<&'a str>,
    keys: Vec<&'a [u8]>,
    headers: Vec<&'a str>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(placements: impl Iterator<Item = &'a Placement>) -> Self {
        let mut columns = Self::default();
        for (placement, nth) in placements.zip(1..) {
            columns.orders.push(placement);
            columns.lines.push(placement, nth);
            columns.messages.push(placement, nth);
        }
        columns
    }

    /// In the order of the statement's parameters.
    pub(super) fn bind<O>(
        self,
        query: QueryAs<'a, Postgres, O, PgArguments>,
    ) -> QueryAs<'a, Postgres, O, PgArguments> {
        let Self { orders, lines, messages } = self;
        query
            .bind(orders.scopes)
            .bind(orders.endpoints)
            .bind(orders.keys)
            .bind(orders.hashes)
            .bind(orders.answer_statuses)
            .bind(orders.answer_headers)
            .bind(orders.answer_bodies)
            .bind(orders.ids)
            .bind(orders.customer_ids)
            .bind(orders.statuses)
            .bind(orders.currencies)
            .bind(orders.totals_minor)
            .bind(orders.versions)
            .bind(orders.created_at)
            .bind(orders.remembered)
            .bind(orders.sagas)
            .bind(lines.nth)
            .bind(lines.skus)
            .bind(lines.places)
            .bind(lines.quantities)
            .bind(lines.unit_prices_minor)
            .bind(messages.nth)
            .bind(messages.ids)
            .bind(messages.topics)
            .bind(messages.keys)
            .bind(messages.headers)
            .bind(messages.payloads)
    }
}

impl<'a> Orders<'a> {
    fn push(&mut self, Placement { claim, answer, placed, saga, prices, .. }: &'a Placement) {
        let order = &placed.order;
        self.scopes.push(&claim.scope);
        self.endpoints.push(claim.endpoint);
        self.keys.push(claim.key.as_str());
        self.hashes.push(&claim.hash);
        self.answer_statuses.push(answer.status_column());
        self.answer_headers.push(answer.headers_json());
        self.answer_bodies.push(&answer.body);
        self.ids.push(order.id.as_uuid());
        self.customer_ids.push(order.customer_id.as_uuid());
        self.statuses.push(order.state.status().as_str());
        self.currencies.push(order.currency.as_str());
        self.totals_minor.push(order.total_minor);
        self.versions.push(order.version);
        self.created_at.push(order.created_at);
        self.remembered.push(*prices == Prices::Remembered);
        self.sagas.push(saga);
    }
}

impl<'a> Lines<'a> {
    fn push(&mut self, placement: &'a Placement, nth: i32) {
        for (line, place) in placement.placed.lines.iter().zip(0..) {
            self.nth.push(nth);
            self.skus.push(line.sku.as_str());
            self.places.push(place);
            self.quantities.push(line.quantity);
            self.unit_prices_minor.push(line.unit_price_minor);
        }
    }
}

impl<'a> Messages<'a> {
    fn push(&mut self, placement: &'a Placement, nth: i32) {
        let messages = &placement.messages;
        self.nth.extend(messages.message_ids.iter().map(|_| nth));
        self.ids.extend(&messages.message_ids);
        self.topics.extend(messages.topics.iter().map(String::as_str));
        self.keys.extend(messages.keys.iter().map(Vec::as_slice));
        self.headers.extend(messages.headers.iter().map(String::as_str));
        self.payloads.extend(messages.payloads.iter().map(Vec::as_slice));
    }
}
