//! Every identifier, alphabetically. Parsed at the edge, trusted inside.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest SKU, in bytes: a key, a column and a header all hold it easily, and people can still read it out.
pub const SKU_BYTES_MAX: usize = 64;

/// A text that is no identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a UUID in its usual text form.
    #[error(
        "an {kind} is a UUID of 32 hexadecimal digits and 4 hyphens, as in 018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e0f"
    )]
    NotAUuid {
        /// Which identifier was asked for, in words.
        kind: &'static str,
    },
    /// Not a SKU.
    #[error("a SKU is 1 to {SKU_BYTES_MAX} characters of A-Z a-z 0-9 . _ and -")]
    NotASku,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new one (UUID version 7). The time inside it serves indexes; it never decides order.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id that has this UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID of this id.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Takes the hyphenated form only, in either case: an id has one text, and keys are texts.
            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() != uuid::fmt::Hyphenated::LENGTH {
                    return Err(IdError::NotAUuid { kind: $kind });
                }
                Uuid::try_parse(text).map(Self).map_err(|_| IdError::NotAUuid { kind: $kind })
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

uuid_id! {
    /// Who orders: the `sub` of a customer's access token.
    CustomerId, "customer id"
}

uuid_id! {
    /// One order. Also the key of every message of its saga, and the saga's correlation id.
    OrderId, "order id"
}

/// Stock keeping unit: what inventory calls a product. 1 to [`SKU_BYTES_MAX`] characters of `A-Z a-z 0-9 . _ -`;
/// upper and lower case are different.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Sku(String);

impl Sku {
    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of it, taken.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<String> for Sku {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=SKU_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text))
        } else {
            Err(IdError::NotASku)
        }
    }
}

impl FromStr for Sku {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl Serialize for Sku {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl AsRef<str> for Sku {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_is_refused_unless_it_is_one() {
        for good in ["a", "TEA-GREEN_100.g", &"x".repeat(SKU_BYTES_MAX)] {
            assert_eq!(good.parse::<Sku>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "a/b", "tè", "a\n", &"x".repeat(SKU_BYTES_MAX + 1)] {
            assert_eq!(bad.parse::<Sku>(), Err(IdError::NotASku), "{bad:?}");
        }
        assert!(serde_json::from_str::<Sku>("\"a b\"").is_err());
    }

    #[test]
    fn an_id_has_one_text() {
        let text = "018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e0f";
        let id: OrderId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(text.to_uppercase().parse::<OrderId>().unwrap(), id);
        for bad in
            ["", "018f4e5c7d1a7c3b9e2d5a6b7c8d9e0f", "{018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e0f}", &text[1..]]
        {
            assert!(bad.parse::<OrderId>().is_err(), "{bad:?}");
        }
        assert_eq!(OrderId::generate().as_uuid().get_version_num(), 7);
    }
}
