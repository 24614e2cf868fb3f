//! The price of one piece: money that is positive and bounded.

use waybill_events::{Currency, Money};

use super::value::{ValueError, in_range};

/// The largest integer every JSON reader keeps exactly (2^53 - 1).
pub const UNIT_PRICE_MINOR_MAX: i64 = 9_007_199_254_740_991;

/// A free product would ask for a payment of nothing, which no provider authorizes.
pub const UNIT_PRICE_MINOR_MIN: i64 = 1;

/// The price of one piece, [`UNIT_PRICE_MINOR_MIN`] to [`UNIT_PRICE_MINOR_MAX`] minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price(Money);

impl Price {
    /// A price whose amount is in range.
    ///
    /// # Errors
    /// The amount is too small or too large.
    pub fn new(minor: i64, currency: Currency) -> Result<Self, ValueError> {
        Ok(Self(Money::new(Self::in_range(minor)?, currency)))
    }

    /// The amount when a price may have it, whatever the currency.
    ///
    /// # Errors
    /// The amount is too small or too large.
    pub fn in_range(minor: i64) -> Result<i64, ValueError> {
        in_range(minor, UNIT_PRICE_MINOR_MIN, UNIT_PRICE_MINOR_MAX)
    }

    /// Minor units of [`Self::currency`] (cents for EUR).
    #[must_use]
    pub fn minor(self) -> i64 {
        self.0.minor
    }

    /// Currency of the amount.
    #[must_use]
    pub fn currency(self) -> Currency {
        self.0.currency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_positive_and_exact_in_json() {
        let eur = "EUR".parse().unwrap();
        assert!(Price::new(1, eur).is_ok());
        assert!(Price::new(UNIT_PRICE_MINOR_MAX, eur).is_ok());
        assert_eq!(Price::new(0, eur), Err(ValueError::TooSmall { least: 1 }));
        assert_eq!(Price::new(-1, eur), Err(ValueError::TooSmall { least: 1 }));
        assert!(matches!(Price::new(UNIT_PRICE_MINOR_MAX + 1, eur), Err(ValueError::TooLarge { .. })));
    }
}
