//! Money: whole minor units of a currency, with arithmetic that refuses instead of wrapping or mixing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A currency of ISO 4217 that amounts can be held in, by its alphabetic code, e.g. `EUR`.
///
/// Codes without a minor unit (gold, special drawing rights, testing, "no currency") are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(&'static str);

/// An amount: `minor` units (cents, where there are cents) of `currency`. May be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// Number of minor units.
    pub minor: i64,
    /// Of what.
    pub currency: Currency,
}

/// Why there is no such money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// No current alphabetic code with a minor unit.
    #[error("no currency code of ISO 4217; one is three capital letters, for example EUR")]
    UnknownCurrency,
    /// Two amounts that can not be added.
    #[error("amounts in {left} and {right} can not be combined")]
    CurrenciesDiffer {
        /// The one's currency.
        left: Currency,
        /// The other's.
        right: Currency,
    },
    /// The result is more than 64 bits hold.
    #[error("the amount is too large")]
    Overflow,
}

impl Currency {
    /// The alphabetic code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    /// Takes the code in capital letters, as everybody writes it.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match CODES.binary_search(&text) {
            Ok(at) => Ok(Self(CODES[at])),
            Err(_) => Err(MoneyError::UnknownCurrency),
        }
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Money {
    /// `minor` units of `currency`.
    #[must_use]
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// The sum.
    ///
    /// # Errors
    /// [`MoneyError::CurrenciesDiffer`], [`MoneyError::Overflow`].
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.combined(other, i64::checked_add)
    }

    /// The difference.
    ///
    /// # Errors
    /// [`MoneyError::CurrenciesDiffer`], [`MoneyError::Overflow`].
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.combined(other, i64::checked_sub)
    }

    /// `pieces` times this.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn checked_mul(self, pieces: i32) -> Result<Self, MoneyError> {
        let minor = self.minor.checked_mul(i64::from(pieces)).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }

    fn combined(self, other: Self, by: fn(i64, i64) -> Option<i64>) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrenciesDiffer { left: self.currency, right: other.currency });
        }
        let minor = by(self.minor, other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }
}

/// For people and logs: minor units and code. No decimal point, since its place differs between currencies.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} minor units of {}", self.minor, self.currency)
    }
}

/// ISO 4217 list one of 2026-01-01, the codes that have a minor unit. Sorted.
#[rustfmt::skip]
static CODES: [&str; 165] = [
    "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BHD", "BIF",
    "BMD", "BND", "BOB", "BOV", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHE", "CHF",
    "CHW", "CLF", "CLP", "CNY", "COP", "COU", "CRC", "CUP", "CVE", "CZK", "DJF", "DKK", "DOP", "DZD",
    "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GNF", "GTQ", "GYD",
    "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IQD", "IRR", "ISK", "JMD", "JOD", "JPY", "KES",
    "KGS", "KHR", "KMF", "KPW", "KRW", "KWD", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "LYD",
    "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MXN", "MXV", "MYR",
    "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "OMR", "PAB", "PEN", "PGK", "PHP", "PKR", "PLN",
    "PYG", "QAR", "RON", "RSD", "RUB", "RWF", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE",
    "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB", "TJS", "TMT", "TND", "TOP", "TRY", "TTD",
    "TWD", "TZS", "UAH", "UGX", "USD", "USN", "UYI", "UYU", "UYW", "UZS", "VED", "VES", "VND", "VUV",
    "WST", "XAD", "XAF", "XCD", "XCG", "XOF", "XPF", "YER", "ZAR", "ZMW", "ZWG",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn eur(minor: i64) -> Money {
        Money::new(minor, "EUR".parse().unwrap())
    }

    #[test]
    fn codes_are_sorted_and_found() {
        assert!(CODES.is_sorted());
        for code in CODES {
            assert_eq!(code.parse::<Currency>().unwrap().as_str(), code);
        }
        for bad in ["", "eur", "EU", "EURO", "XXX", "XTS", "XAU", "BGN", "HRK", "E R"] {
            assert_eq!(bad.parse::<Currency>(), Err(MoneyError::UnknownCurrency), "{bad}");
        }
    }

    #[test]
    fn money_of_two_currencies_is_never_combined() {
        let dollar = Money::new(1, "USD".parse().unwrap());
        assert!(matches!(eur(1).checked_add(dollar), Err(MoneyError::CurrenciesDiffer { .. })));
        assert!(matches!(eur(1).checked_sub(dollar), Err(MoneyError::CurrenciesDiffer { .. })));
    }

    proptest! {
        #[test]
        fn arithmetic_is_exact_or_refused(a in any::<i64>(), b in any::<i64>(), pieces in any::<i32>()) {
            let exact = |wide: i128| i64::try_from(wide).map(eur).map_err(|_| MoneyError::Overflow);
            prop_assert_eq!(eur(a).checked_add(eur(b)), exact(i128::from(a) + i128::from(b)));
            prop_assert_eq!(eur(a).checked_sub(eur(b)), exact(i128::from(a) - i128::from(b)));
            prop_assert_eq!(eur(a).checked_mul(pieces), exact(i128::from(a) * i128::from(pieces)));
        }
    }
}
