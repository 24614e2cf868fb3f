//! A product of the catalogue: its SKU, its name, its price.

use chrono::{DateTime, Utc};
use uuid::Uuid;
use waybill_events::Sku;

use super::price::Price;
use super::value::ValueError;

/// A name fits a label and a line of a mail; longer texts belong into a description.
pub const NAME_CHARACTERS_MAX: usize = 200;

/// What people call the product: 1 to 200 characters, no control characters, not only spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductName(String);

impl ProductName {
    /// Takes a name from outside; spaces around it are dropped.
    ///
    /// # Errors
    /// Empty, too long, or with a control character in it.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ValueError::Empty);
        }
        if text.chars().count() > NAME_CHARACTERS_MAX {
            return Err(ValueError::TooLong { characters_max: NAME_CHARACTERS_MAX });
        }
        if text.chars().any(char::is_control) {
            return Err(ValueError::Characters { allowed: "printable characters" });
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A product as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its key.
    pub sku: Sku,
    /// Tells products that were added in the same microsecond apart, where a list goes on; nothing else.
    pub id: Uuid,
    /// Its name.
    pub name: ProductName,
    /// The price of one piece for orders placed from now on.
    pub price: Price,
    /// One counter over everything said about the SKU (added, price changed, stock received): `ce_sequence`.
    pub version: i64,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When something was last said about it.
    pub updated_at: DateTime<Utc>,
}

impl Product {
    /// A product nobody has seen yet, version 1.
    #[must_use]
    pub fn new(sku: Sku, id: Uuid, name: ProductName, price: Price, now: DateTime<Utc>) -> Self {
        Self { sku, id, name, price, version: 1, created_at: now, updated_at: now }
    }

    /// The product with another price, one version on; `None` when it costs that already and there is nothing to say.
    #[must_use]
    pub fn with_price(self, price: Price, now: DateTime<Utc>) -> Option<Self> {
        (price != self.price).then(|| Self { price, ..self.said(now) })
    }

    /// The product one version on: something else was said about it.
    #[must_use]
    pub fn said(self, now: DateTime<Utc>) -> Self {
        Self { version: self.version + 1, updated_at: now, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed_and_bounded() {
        assert_eq!(ProductName::parse("  Blue mug ").unwrap().as_str(), "Blue mug");
        assert!(ProductName::parse(&"ä".repeat(200)).is_ok());
        assert_eq!(ProductName::parse(" \t"), Err(ValueError::Empty));
        assert_eq!(ProductName::parse(&"ä".repeat(201)), Err(ValueError::TooLong { characters_max: 200 }));
        assert!(matches!(ProductName::parse("a\0b"), Err(ValueError::Characters { .. })));
    }

    #[test]
    fn the_same_price_again_says_nothing() {
        let price = |minor| Price::new(minor, "EUR".parse().unwrap()).unwrap();
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let product =
            Product::new("a".parse().unwrap(), Uuid::nil(), ProductName::parse("A").unwrap(), price(5), now);
        assert_eq!(product.version, 1);
        assert_eq!(product.clone().with_price(price(5), now), None);
        assert_eq!(product.with_price(price(6), now).unwrap().version, 2);
    }
}
