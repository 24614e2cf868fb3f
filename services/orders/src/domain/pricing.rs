//! What an order costs: each line at the catalogue's price, totals in checked whole minor units.

use std::collections::HashMap;

use waybill_events::{Currency, Sku};

use super::limits::TOTAL_MINOR_MAX;

/// One line as the customer wants it; quantity and SKU are within their limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedLine {
    /// What.
    pub sku: Sku,
    /// How many pieces, 1 or more.
    pub quantity: i32,
}

/// What one piece costs, as the catalogue says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Minor units, zero or more.
    pub unit_price_minor: i64,
    /// Currency of the price.
    pub currency: Currency,
}

/// News of a price, from the catalogue's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceNotice {
    /// Whose price.
    pub sku: Sku,
    /// The price from now on.
    pub price: Price,
    /// `ce_sequence` of the event: which of two notices is the newer one.
    pub version: i64,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricedLine {
    /// What.
    pub sku: Sku,
    /// How many pieces.
    pub quantity: i32,
    /// Price of one piece when the order was placed, in minor units of the order's currency.
    pub unit_price_minor: i64,
}

/// Lines with their prices, and their sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// In the customer's order.
    pub lines: Vec<PricedLine>,
    /// More than zero.
    pub total_minor: i64,
}

/// Why lines can not be priced. `line` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    /// The catalogue has no such SKU.
    #[error("no product has the SKU {sku}")]
    UnknownSku {
        /// Which line.
        line: usize,
        /// Its SKU.
        sku: Sku,
    },
    /// The product is sold in another currency.
    #[error("{sku} is sold in {sold_in}")]
    CurrencyMismatch {
        /// Which line.
        line: usize,
        /// Its SKU.
        sku: Sku,
        /// The catalogue's currency.
        sold_in: Currency,
    },
    /// The sum is over [`TOTAL_MINOR_MAX`].
    #[error("the total is larger than can be paid")]
    TotalOverflow,
    /// Every line is free: there is nothing to authorize, which the payment provider would refuse.
    #[error("an order must cost something")]
    TotalZero,
}

/// Prices every line, or tells every line that can not be priced.
///
/// # Errors
/// All the faults found, by line; or the total's one.
pub fn price_lines(
    lines: &[RequestedLine],
    currency: Currency,
    prices: &HashMap<Sku, Price>,
) -> Result<Priced, Vec<PricingError>> {
    let mut priced = Vec::with_capacity(lines.len());
    let mut errors = Vec::new();
    for (line, requested) in lines.iter().enumerate() {
        match price_line(line, requested, currency, prices) {
            Ok(one) => priced.push(one),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let total_minor = total(&priced).ok_or_else(|| vec![PricingError::TotalOverflow])?;
    if total_minor == 0 {
        return Err(vec![PricingError::TotalZero]);
    }
    Ok(Priced { lines: priced, total_minor })
}

fn price_line(
    line: usize,
    requested: &RequestedLine,
    currency: Currency,
    prices: &HashMap<Sku, Price>,
) -> Result<PricedLine, PricingError> {
    let sku = requested.sku.clone();
    let Some(price) = prices.get(&sku) else { return Err(PricingError::UnknownSku { line, sku }) };
    if price.currency != currency {
        return Err(PricingError::CurrencyMismatch { line, sku, sold_in: price.currency });
    }
    Ok(PricedLine { sku, quantity: requested.quantity, unit_price_minor: price.unit_price_minor })
}

fn total(lines: &[PricedLine]) -> Option<i64> {
    let sum = lines.iter().try_fold(0_i64, |sum, line| {
        sum.checked_add(line.unit_price_minor.checked_mul(i64::from(line.quantity))?)
    });
    sum.filter(|sum| *sum <= TOTAL_MINOR_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sku(text: &str) -> Sku {
        text.parse().unwrap()
    }

    fn eur() -> Currency {
        "EUR".parse().unwrap()
    }

    fn line(text: &str, quantity: i32) -> RequestedLine {
        RequestedLine { sku: sku(text), quantity }
    }

    fn catalogue(prices: &[(&str, i64, &str)]) -> HashMap<Sku, Price> {
        let price =
            |minor: i64, code: &str| Price { unit_price_minor: minor, currency: code.parse().unwrap() };
        prices.iter().map(|(name, minor, code)| (sku(name), price(*minor, code))).collect()
    }

    #[test]
    fn every_line_that_can_not_be_priced_is_told() {
        let prices = catalogue(&[("A", 100, "EUR"), ("B", 100, "USD")]);
        let errors = price_lines(&[line("A", 1), line("B", 1), line("C", 1)], eur(), &prices).unwrap_err();
        let usd = "USD".parse().unwrap();
        assert_eq!(
            errors,
            [
                PricingError::CurrencyMismatch { line: 1, sku: sku("B"), sold_in: usd },
                PricingError::UnknownSku { line: 2, sku: sku("C") },
            ]
        );
    }

    #[test]
    fn a_total_beyond_what_json_keeps_or_of_nothing_is_refused() {
        let prices = catalogue(&[("A", TOTAL_MINOR_MAX, "EUR"), ("B", 1, "EUR"), ("FREE", 0, "EUR")]);
        let overflow = Err(vec![PricingError::TotalOverflow]);
        assert_eq!(price_lines(&[line("A", 2)], eur(), &prices), overflow);
        assert_eq!(price_lines(&[line("A", 1), line("B", 1)], eur(), &prices), overflow);
        assert_eq!(price_lines(&[line("FREE", 9)], eur(), &prices), Err(vec![PricingError::TotalZero]));
        assert_eq!(price_lines(&[line("A", 1)], eur(), &prices).unwrap().total_minor, TOTAL_MINOR_MAX);
        let beyond = catalogue(&[("A", i64::MAX, "EUR")]);
        assert_eq!(price_lines(&[line("A", 2)], eur(), &beyond), overflow);
    }

    proptest! {
        /// The total is what 128 bits say it is, or it is refused.
        #[test]
        fn totals_agree_with_wider_arithmetic(wanted in prop::collection::vec((1_i32..=10_000, 0_i64..), 1..20)) {
            let names: Vec<String> = (0..wanted.len()).map(|n| format!("S{n}")).collect();
            let lines: Vec<_> = wanted.iter().zip(&names).map(|((q, _), n)| line(n, *q)).collect();
            let prices = wanted.iter().zip(&names)
                .map(|((_, p), n)| (sku(n), Price { unit_price_minor: *p, currency: eur() })).collect();
            let wide: i128 = wanted.iter().map(|(q, p)| i128::from(*q) * i128::from(*p)).sum();
            match price_lines(&lines, eur(), &prices) {
                Ok(priced) => prop_assert_eq!(i128::from(priced.total_minor), wide),
                Err(errors) if wide == 0 => prop_assert_eq!(errors, vec![PricingError::TotalZero]),
                Err(errors) => {
                    prop_assert_eq!(errors, vec![PricingError::TotalOverflow]);
                    prop_assert!(wide > i128::from(TOTAL_MINOR_MAX));
                }
            }
        }
    }
}
