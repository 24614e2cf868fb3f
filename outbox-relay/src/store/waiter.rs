//! The name of a waiting relay's session, by which the others see how many databases its process holds: in
//! `pg_stat_activity` for every role, without a write, and gone when the session dies.

/// The name of every other session of the relay.
pub const SESSION: &str = "outbox-relay";

/// Bytes of the row's name shown: with the rest 60, and Postgres cuts a session's name off at 63.
const ROW_BYTES_MAX: usize = 30;

/// More is shown as this: two digits, so that names sort as their numbers.
const SHOWN_MAX: usize = 99;

/// What the names of all who wait for this row of `outbox_relay` begin with. Of long names that begin alike the sessions
/// look alike: then something may be given back for which nobody waits, and taken again.
pub(super) fn prefix(row: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let row: String = row.chars().map(plain).take(ROW_BYTES_MAX).collect();
    format!("{SESSION} {row} waits holding=")
}

/// The name of one that waits, and whose process holds so many.
pub(super) fn name(row: &str, holding: usize) -> String {
    format!("{}{:02}", prefix(row), holding.min(SHOWN_MAX))
}

/// How many a name shows; `None` for what is no such name.
pub(super) fn holding(name: &str) -> Option<usize> {
    name.rsplit_once('=').and_then(|(_, digits)| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_their_numbers_and_are_short_enough() {
        assert_eq!(name("default", 3), "outbox-relay default waits holding=03");
        assert!(name("default", 9) < name("default", 10) && name("default", 64) < name("default", 1_000));
        let long = name(&"ä=".repeat(90), 7);
        assert!(long.len() <= 63 && long.starts_with(&prefix(&"ä=".repeat(90))), "{long}");
        assert_eq!((holding(&long), holding(SESSION)), (Some(7), None));
    }
}
