//! Points in time, as clients write and read them.

use crate::error::{Answer, Failure};

/// As answers have it, RFC 3339; Go's zero time is for what has not happened.
pub fn shown(at: Option<jiff::Timestamp>) -> String {
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |t| t.to_string())
}

/// RFC 3339 with all nine digits, as log lines have it.
pub fn stamp(time: jiff::Timestamp) -> String {
    format!("{time:.9}")
}

/// A point in time: seconds since 1970 with an optional fraction, RFC 3339, or a Go duration before now.
///
/// # Errors
/// It is none of these.
pub fn parse(text: &str) -> Answer<jiff::Timestamp> {
    let invalid =
        || Failure::invalid(format!("invalid time {text:?}: it must be seconds, RFC 3339, or a duration like 10m"));
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = seconds.parse::<i64>()
        && fraction.bytes().all(|b| b.is_ascii_digit())
    {
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        let nanos = digits.parse().map_err(|_| invalid())?;
        return jiff::Timestamp::new(seconds, nanos).map_err(|_| invalid());
    }
    let ago = jiff::SignedDuration::from_nanos(model::duration::parse(text).map_err(|_| invalid())?);
    jiff::Timestamp::now().checked_sub(ago).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_stamps_or_durations() {
        assert_eq!(parse("1.5").unwrap().as_nanosecond(), 1_500_000_000);
        assert_eq!(parse("2026-01-01T00:00:00Z").unwrap().as_second(), 1_767_225_600);
        assert!(parse("10m").unwrap() < jiff::Timestamp::now());
        let ago = jiff::Timestamp::now().duration_since(parse("1.5h").unwrap());
        assert!((5390..5460).contains(&ago.as_secs()), "{ago:?}");
        assert!(parse("soon").is_err() && parse("1.x").is_err());
    }
}
