//! Prices as they were last read: a guess that saves a round trip, never an authority.
//!
//! A new order is priced by it, and the statement that writes the order compares each price with the catalogue's row; one
//! that has changed meanwhile is read again. So a stale guess costs a statement and is never charged.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use waybill_events::Sku;

use crate::domain::pricing::Price;

/// SKUs remembered: some 20 MB. With more in use, what is known is forgotten whole, and learnt again order by order.
const SKUS_MAX: usize = 100_000;

/// Shared by all requests of this process.
#[derive(Debug, Default)]
pub struct KnownPrices {
    prices: RwLock<HashMap<Sku, Price>>,
}

impl KnownPrices {
    /// The prices of all these SKUs; `None` when one is not known.
    pub(super) fn of<'a>(&self, skus: impl Iterator<Item = &'a Sku>) -> Option<HashMap<Sku, Price>> {
        let known = self.prices.read().unwrap_or_else(PoisonError::into_inner);
        skus.map(|sku| known.get(sku).map(|price| (sku.clone(), price.clone()))).collect()
    }

    /// Remembers what was read.
    pub(super) fn learn(&self, read: &HashMap<Sku, Price>) {
        let mut known = self.prices.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() + read.len() > SKUS_MAX {
            known.clear();
        }
        known.extend(read.iter().map(|(sku, price)| (sku.clone(), price.clone())));
    }
}
