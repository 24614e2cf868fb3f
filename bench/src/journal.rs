//! What the client side remembers: each accepted order, when it was accepted, and when its end was seen.
//!
//! Times are microseconds since 1970 by the machine's clock, which the services read too: everything runs on one
//! machine, so a service's `updated_at` and a client's acceptance can be compared.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Microseconds since 1970 by the machine's clock.
#[must_use]
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// One order that was answered with 202.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// The order.
    pub id: Uuid,
    /// When the answer was there, in microseconds since 1970.
    pub at_us: i64,
    /// From the moment it was to be sent to the answer, in microseconds.
    pub place_us: u64,
}

/// Orders accepted, requests refused, ends seen.
#[derive(Debug, Default)]
pub struct Journal {
    accepted: Mutex<Vec<Accepted>>,
    refused: Mutex<HashMap<String, u64>>,
    ended: Mutex<HashMap<Uuid, i64>>,
}

impl Journal {
    /// An order was answered with 202.
    pub fn accept(&self, accepted: Accepted) {
        lock(&self.accepted).push(accepted);
    }

    /// A request was answered otherwise, or not at all.
    pub fn refuse(&self, why: String) {
        *lock(&self.refused).entry(why).or_default() += 1;
    }

    /// The event of its end was seen.
    pub fn end(&self, id: Uuid, at_us: i64) {
        lock(&self.ended).entry(id).or_insert(at_us);
    }

    /// How many were accepted so far.
    pub fn accepted_count(&self) -> usize {
        lock(&self.accepted).len()
    }

    /// How many ends were seen so far.
    pub fn ended_count(&self) -> usize {
        lock(&self.ended).len()
    }

    /// All accepted orders, in the order of their answers.
    pub fn accepted(&self) -> Vec<Accepted> {
        lock(&self.accepted).clone()
    }

    /// When the event of each end was seen.
    pub fn ended(&self) -> HashMap<Uuid, i64> {
        lock(&self.ended).clone()
    }

    /// Other answers with their number.
    pub fn refused(&self) -> HashMap<String, u64> {
        lock(&self.refused).clone()
    }
}

fn lock<T>(held: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each change is whole: a panic elsewhere while it was held leaves no half of one.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
