//! Times as operators give them: RFC 3339, or so long ago.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// Reads `2026-05-04T10:00:00Z` or `15m` (ago). For clap, whose errors are texts.
pub(crate) fn parse(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    ago(text).and_then(|delta| Utc::now().checked_sub_signed(delta)).ok_or_else(|| {
        "a time is RFC 3339 (2026-05-04T10:00:00Z) or so long ago: 90s, 15m, 2h, 3d".to_owned()
    })
}

/// Milliseconds since the epoch as RFC 3339 in UTC.
pub(crate) fn of_ms(ms: i64) -> Option<String> {
    Some(DateTime::from_timestamp_millis(ms)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A time as a service tells it, to the second.
pub(crate) fn short(text: &str) -> String {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.to_utc().format("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// [`short`] of a time that may be missing.
pub(crate) fn short_or_dash(text: &Option<String>) -> String {
    text.as_deref().map_or_else(|| "-".to_owned(), short)
}

fn ago(text: &str) -> Option<TimeDelta> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    TimeDelta::try_seconds(i64::from(number) * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_and_relative_times() {
        assert_eq!(parse("2026-05-04T10:00:00+02:00").unwrap().to_rfc3339(), "2026-05-04T08:00:00+00:00");
        assert_eq!(ago("90s"), TimeDelta::try_seconds(90));
        assert_eq!(ago("2h"), TimeDelta::try_hours(2));
        assert_eq!(ago("3d"), TimeDelta::try_days(3));
        for wrong in ["", "m", "-1h", "1w", "yesterday", "2026-05-04", "é"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
