//! Keys as people write and see them: text, or base64 when they are none.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::OperateError;

/// Before the base64 of a key, wherever a key is one word: in a path, on a command line.
pub const KEY_BASE64_PREFIX: &str = "base64:";

/// With or without `=` at its end.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of a key that is written in one word: a text, or `base64:` and the bytes in base64 (in the alphabet of RFC 4648
/// section 4 or 5, with or without padding). A text that itself begins with `base64:` is written in base64.
///
/// # Errors
/// [`OperateError::Invalid`] when what follows `base64:` is none.
pub fn key_read(word: &str) -> Result<Vec<u8>, OperateError> {
    match word.strip_prefix(KEY_BASE64_PREFIX) {
        None => Ok(word.as_bytes().to_vec()),
        Some(base64) => base64_read("key", base64),
    }
}

/// The bytes of a field, in either alphabet.
pub(crate) fn base64_read(field: &'static str, base64: &str) -> Result<Vec<u8>, OperateError> {
    let standard: String = base64
        .chars()
        .map(|character| match character {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    LENIENT
        .decode(standard)
        .map_err(|error| OperateError::invalid(field, format!("it is no base64: {error}")))
}

/// A key as the API shows it: text when it is UTF-8, else base64.
pub(crate) fn key_shown(key: Option<Vec<u8>>) -> (Option<String>, Option<String>) {
    match key.map(String::from_utf8) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(error)) => (None, Some(STANDARD.encode(error.into_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_text_or_says_that_it_is_base64() {
        let read = |word| key_read(word).ok();
        assert_eq!(read("order-7"), Some(b"order-7".to_vec()));
        assert_eq!(read("/w=="), Some(b"/w==".to_vec()), "a text, for nothing says otherwise");
        for word in ["base64:+/8=", "base64:-_8=", "base64:-_8"] {
            assert_eq!(read(word), Some(vec![0xfb, 0xff]), "{word}");
        }
        assert_eq!(read("base64:YmFzZTY0Og=="), Some(b"base64:".to_vec()));
        for word in ["base64:*", "base64:a", "base64:/w== "] {
            assert!(matches!(key_read(word), Err(OperateError::Invalid { field: "key", .. })), "{word}");
        }
    }
}
