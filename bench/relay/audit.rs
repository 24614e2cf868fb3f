//! What came is what is in the tables: each row once, those of a key in order. Looked at after the time that is measured;
//! otherwise the run has no number.

use waybill_bench::tally::Tally;

use crate::load::{KEYS, number_of};
use crate::topic::{Topic, header};

/// How the rows of a load are numbered that were not published before.
#[derive(Clone, Copy)]
pub(crate) struct Loaded {
    pub(crate) rows: i64,
    /// Rows of each database: between two of them no order is promised.
    pub(crate) of_each: i64,
}

impl Loaded {
    /// All of one database.
    pub(crate) fn of_one(rows: i64) -> Self {
        Self { rows, of_each: rows }
    }
}

/// The records behind these offsets are these rows.
pub(crate) fn loaded(topic: &Topic, before: &[i64], loaded: Loaded) {
    let mut tally = Tally::of(0..loaded.rows as u64);
    topic.read_each(before, loaded.rows, |record| {
        let number = number_of(&header(record, "ce_id"));
        let of = (number / loaded.of_each as u64, number % KEYS as u64);
        let key = [of.0.to_be_bytes(), of.1.to_be_bytes()].concat();
        tally.take(number, Some(&key)).unwrap_or_else(|fault| panic!("{}: {fault}: no number", topic.name));
    });
    tally.finish().unwrap_or_else(|fault| panic!("{}: {fault}: no number", topic.name));
}
