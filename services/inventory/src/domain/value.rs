//! What can be wrong with one value from outside: the same words for HTTP fields and for commands.

use thiserror::Error;
use waybill_events::ids::SKU_BYTES_MAX;
use waybill_events::{Currency, Sku};

/// One value breaks its rule. The text completes the sentence "FIELD ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Nothing, or nothing but spaces.
    #[error("must not be empty")]
    Empty,
    /// More characters than allowed.
    #[error("must have at most {characters_max} characters")]
    TooLong {
        /// The limit.
        characters_max: usize,
    },
    /// A character outside the alphabet.
    #[error("must consist of {allowed}")]
    Characters {
        /// The alphabet in words.
        allowed: &'static str,
    },
    /// Below the smallest value.
    #[error("must be {least} or more")]
    TooSmall {
        /// The smallest value.
        least: i64,
    },
    /// Above the largest value.
    #[error("must be {most} or less")]
    TooLarge {
        /// The largest value.
        most: i64,
    },
    /// Three letters perhaps, but no currency in use.
    #[error("must be an ISO 4217 code of a currency in use, in capitals, for example EUR")]
    UnknownCurrency,
}

impl ValueError {
    /// The machine-readable code of the field's error.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong { .. } => "too_long",
            Self::Characters { .. } => "malformed",
            Self::TooSmall { .. } | Self::TooLarge { .. } => "out_of_range",
            Self::UnknownCurrency => "unknown_currency",
        }
    }
}

/// `value` when it lies in `least..=most`.
///
/// # Errors
/// [`ValueError::TooSmall`] or [`ValueError::TooLarge`].
pub fn in_range(value: i64, least: i64, most: i64) -> Result<i64, ValueError> {
    if value < least {
        Err(ValueError::TooSmall { least })
    } else if value > most {
        Err(ValueError::TooLarge { most })
    } else {
        Ok(value)
    }
}

/// Takes a SKU from outside.
///
/// # Errors
/// Empty, longer than [`SKU_BYTES_MAX`], or a character outside the alphabet.
pub fn sku(text: &str) -> Result<Sku, ValueError> {
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    if text.len() > SKU_BYTES_MAX {
        return Err(ValueError::TooLong { characters_max: SKU_BYTES_MAX });
    }
    text.parse().map_err(|_| ValueError::Characters { allowed: "the characters A-Z a-z 0-9 . _ and -" })
}

/// Takes a currency from outside.
///
/// # Errors
/// [`ValueError::UnknownCurrency`].
pub fn currency(text: &str) -> Result<Currency, ValueError> {
    text.parse().map_err(|_| ValueError::UnknownCurrency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_says_what_is_wrong_with_it() {
        assert_eq!(sku("Mug_12.blue-XL").unwrap().as_str(), "Mug_12.blue-XL");
        assert!(sku(&"x".repeat(64)).is_ok());
        assert_eq!(sku(""), Err(ValueError::Empty));
        assert_eq!(sku(&"x".repeat(65)), Err(ValueError::TooLong { characters_max: 64 }));
        for bad in ["a b", "a/b", "ä", "a\0", " ", "a\n"] {
            assert!(matches!(sku(bad), Err(ValueError::Characters { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_currency_is_known_or_not() {
        assert_eq!(currency("EUR").map(Currency::as_str), Ok("EUR"));
        for bad in ["", "eur", "EURO", "XXX"] {
            assert_eq!(currency(bad), Err(ValueError::UnknownCurrency), "{bad:?}");
        }
    }
}
