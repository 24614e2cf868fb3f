//! Trace context as W3C Trace Context level 1 writes it (`traceparent`), carried over HTTP, outbox rows and Kafka headers.

use std::fmt;

use rand::Rng as _;

/// Identifies one trace and the place in it that something was caused by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole story's id; never all zero.
    pub trace_id: [u8; 16],
    /// The caller's span; never all zero.
    pub span_id: [u8; 8],
    /// Whether the trace is recorded somewhere.
    pub sampled: bool,
}

impl TraceContext {
    /// A new trace with random ids, sampled.
    #[must_use]
    pub fn new_root() -> Self {
        Self { trace_id: random_nonzero(), span_id: random_nonzero(), sampled: true }
    }

    /// The same trace, a new span.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { trace_id: self.trace_id, span_id: random_nonzero(), sampled: self.sampled }
    }

    /// Reads a `traceparent` header; `None` when it is not one (a broken header starts a new trace, it is never an error).
    ///
    /// Versions above 00 are read by their first four fields, as the specification asks (section 3.2.4 of W3C Trace Context).
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.trim().split('-');
        let version: [u8; 1] = unhex(fields.next()?)?;
        let trace_id: [u8; 16] = unhex(fields.next()?)?;
        let span_id: [u8; 8] = unhex(fields.next()?)?;
        let flags: [u8; 1] = unhex(fields.next()?)?;
        let more = fields.next().is_some();
        if version[0] == 0xff || (version[0] == 0 && more) || trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self { trace_id, span_id, sampled: flags[0] & 1 == 1 })
    }

    /// The header's value: `00-<trace id>-<span id>-<flags>`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.to_string()
    }

    /// The trace id as 32 hex digits, as logs and error bodies show it.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        hex(&self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", hex(&self.trace_id), hex(&self.span_id), u8::from(self.sampled))
    }
}

fn random_nonzero<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    while bytes == [0; N] {
        rand::rng().fill(&mut bytes[..]);
    }
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Lower-case hex only: the specification refuses upper case.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, section 3.2.3.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read_again() {
        let root = TraceContext::new_root();
        assert_eq!(TraceContext::parse(&root.traceparent()), Some(root.clone()));
        assert_eq!(root.child().trace_id, root.trace_id);
        assert_ne!(root.child().span_id, root.span_id);
        assert_eq!(TraceContext::parse(EXAMPLE).map(|c| c.traceparent()).as_deref(), Some(EXAMPLE));
    }

    #[test]
    fn what_is_not_a_traceparent_is_refused() {
        for bad in [
            "",
            "00",
            "zz-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_later_version_is_read_by_its_first_fields() {
        let later = EXAMPLE.replacen("00-", "01-", 1) + "-more";
        assert!(TraceContext::parse(&later).is_some());
    }
}
