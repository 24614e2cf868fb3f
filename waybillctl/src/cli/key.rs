//! A record's key as operators see and write it, in one word: its text, or `base64:` and its bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::contract::base64;

/// Before the base64 of a key that is no text, as the API takes it in paths and as lists show it.
pub(crate) const KEY_BASE64_PREFIX: &str = "base64:";

/// With or without `=` at its end.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordKey(Vec<u8>);

/// A key in the word that [`RecordKey::parse`] reads.
pub(crate) fn key_word(key: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(text) if !text.starts_with(KEY_BASE64_PREFIX) => text.into(),
        _ => format!("{KEY_BASE64_PREFIX}{}", base64(key)).into(),
    }
}

impl RecordKey {
    /// Reads what lists show. Base64 is in either alphabet, padded or not, as services take it. For clap, whose errors are
    /// texts.
    pub(crate) fn parse(word: &str) -> Result<Self, String> {
        let Some(coded) = word.strip_prefix(KEY_BASE64_PREFIX) else {
            return Ok(Self(word.as_bytes().to_vec()));
        };
        let bytes = LENIENT.decode(coded.replace('-', "+").replace('_', "/"));
        bytes.map(Self).map_err(|error| format!("what follows {KEY_BASE64_PREFIX} is no base64: {error}"))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_text_or_says_that_it_is_base64() {
        let read = |word: &str| RecordKey::parse(word).ok().map(|key| key.bytes().to_vec());
        assert_eq!(read("order-7"), Some(b"order-7".to_vec()));
        for word in ["base64:+/8=", "base64:-_8=", "base64:-_8"] {
            assert_eq!(read(word), Some(vec![0xfb, 0xff]), "{word}");
        }
        assert_eq!(read("base64:YmFzZTY0Og=="), Some(b"base64:".to_vec()), "a text that begins like it");
        for key in [&b"order-7"[..], b"base64:", b"\xfb\xff", b""] {
            assert_eq!(read(&key_word(key)), Some(key.to_vec()));
        }
        for word in ["base64:*", "base64:a", "base64:/w== "] {
            assert_eq!(read(word), None, "{word}");
        }
    }
}
