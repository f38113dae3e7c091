//! Go's durations, in which Dockerfiles and filters are written.

/// `1h30m`, `1.5s`, `300ms` in nanoseconds. A number needs its unit, unless it is 0.
pub(crate) fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|&n| n > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    // past 292 years there is no such Go duration
    (total < i64::MAX as f64).then_some(if negative { -(total as i64) } else { total as i64 })
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1s", Some(1_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("300ms", Some(300_000_000)),
            ("5us", Some(5_000)),
            ("-2m", Some(-120_000_000_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5x", None),
            ("1d", None),
            ("9999999h", None),
        ] {
            assert_eq!(super::go_duration(text), expected, "{text}");
        }
    }
}
