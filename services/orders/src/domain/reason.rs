//! Why an order is not simply going on: machine-readable codes, shown to customers and told in events.

use std::fmt;

/// Bound of a code's length; the `reason` column and every consumer may rely on it.
pub const REASON_LENGTH_CHARS_MAX: usize = 64;

/// A machine-readable code: 1 to 64 characters of `a-z 0-9 _`. New codes may appear, since participants
/// add their own (`insufficient_stock`, `payment_declined`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reason(String);

impl Reason {
    /// The customer asked for it.
    pub const CANCELLED_BY_CUSTOMER: &'static str = "cancelled_by_customer";
    /// Somebody with the admin or operator role asked for it, for the customer.
    pub const CANCELLED_BY_OPERATOR: &'static str = "cancelled_by_operator";
    /// An operator gave the saga up; what it had done was settled by hand.
    pub const ABANDONED_BY_OPERATOR: &'static str = "abandoned_by_operator";
    /// A participant gave a reason that is no code.
    pub const UNSPECIFIED: &'static str = "unspecified";

    /// Takes a participant's code; anything that is no code becomes `unspecified`, since a reply
    /// must not be lost for the spelling of its reason.
    #[must_use]
    pub fn new(code: &str) -> Self {
        let fits = (1..=REASON_LENGTH_CHARS_MAX).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        Self(if fits { code } else { Self::UNSPECIFIED }.to_owned())
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_codes_and_replaces_prose() {
        assert_eq!(Reason::new("insufficient_stock").as_str(), "insufficient_stock");
        for prose in ["", "No stock", "naïve", &"x".repeat(REASON_LENGTH_CHARS_MAX + 1)] {
            assert_eq!(Reason::new(prose).as_str(), Reason::UNSPECIFIED, "{prose:?}");
        }
    }
}
