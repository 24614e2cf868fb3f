//! Other headers for a replay: texts set or taken away, but for those that the protocol owns.

use std::collections::BTreeMap;

use waybill_messaging::headers::{CE_ID, CE_SUBJECT, TRACEPARENT};
use waybill_messaging::record::Record;

/// By name: a text is set in place of every header of that name; `None` takes every header of that name away.
pub type HeaderChanges = BTreeMap<String, Option<String>>;

/// Changes of one letter: a mend is a few.
const CHANGES_MAX: usize = 50;
/// Bytes of all names and values: with those of a message and of a retry well below what the outbox takes.
const BYTES_MAX: usize = 8_192;

/// Refuses what a replay could not send, or must not.
///
/// # Errors
/// Which header, and why.
pub fn check(changes: &HeaderChanges) -> Result<(), String> {
    let bytes: usize =
        changes.iter().map(|(name, value)| name.len() + value.as_deref().unwrap_or_default().len()).sum();
    if changes.len() > CHANGES_MAX || bytes > BYTES_MAX {
        return Err(format!("change at most {CHANGES_MAX} headers, and {BYTES_MAX} bytes together"));
    }
    for (name, value) in changes {
        if name.is_empty()
            || [Some(name), value.as_ref()].into_iter().flatten().any(|text| text.contains('\0'))
        {
            return Err(format!("{name:?}: a header has a name, and no zero character"));
        }
        if let Some(why) = owned(name) {
            return Err(format!("{name} can not be changed: {why}"));
        }
    }
    Ok(())
}

/// Why a header is not an operator's to change.
fn owned(name: &str) -> Option<&'static str> {
    match name {
        CE_ID => Some("by its id a message is handled once"),
        CE_SUBJECT => Some("it is the record's key, by which there is order"),
        TRACEPARENT => Some("a replay begins a trace of its own"),
        _ if name.starts_with("retry_") => Some("retries count by these headers"),
        _ if name.starts_with("replay_") => Some("a replay tells of itself by these headers"),
        _ if name.starts_with("dlq_") => Some("dead letters tell of themselves by these headers"),
        _ => None,
    }
}

/// Puts them into the record.
pub(crate) fn apply(changes: &HeaderChanges, record: &mut Record) {
    record.headers.retain(|(name, _)| !changes.contains_key(name));
    let set = changes.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?.into_bytes())));
    record.headers.extend(set);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(of: &[(&str, Option<&str>)]) -> HeaderChanges {
        of.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn what_the_protocol_owns_is_refused_whether_set_or_taken_away() {
        for name in [
            "ce_id",
            "ce_subject",
            "traceparent",
            "retry_hop",
            "retry_base64_x",
            "replay_id",
            "replay_of_traceparent",
            "dlq_id",
        ] {
            for value in [Some("x"), None] {
                let why = check(&changes(&[("mine", Some("x")), (name, value)])).unwrap_err();
                assert!(why.starts_with(&format!("{name} can not be changed: ")), "{why}");
            }
        }
        check(&changes(&[("ce_type", Some("A")), ("ce_sequence", Some("1")), ("tracestate", None)])).unwrap();
        for wrong in [("", Some("x")), ("a\0", None), ("a", Some("\0"))] {
            check(&changes(&[wrong])).unwrap_err();
        }
        check(&changes(&[("a", Some(&"x".repeat(BYTES_MAX)))])).unwrap_err();
        let many = (0..=CHANGES_MAX).map(|place| (place.to_string(), None)).collect();
        check(&many).unwrap_err();
    }

    #[test]
    fn a_change_is_of_every_header_of_its_name() {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let mut record = Record {
            topic: "t".to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: None,
            headers: vec![
                header("a", "1"),
                header("b", "2"),
                header("a", "3"),
                header("c", "4"),
                header("b", "5"),
            ],
            payload: None,
        };
        apply(&changes(&[("a", Some("new")), ("b", None), ("d", Some("d"))]), &mut record);
        assert_eq!(record.headers, [header("c", "4"), header("a", "new"), header("d", "d")]);
    }
}
