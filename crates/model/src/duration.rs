//! How long ago, in Docker's words.

/// go-units' `HumanDuration`, of seconds: "About a minute", "3 days".
pub fn human(seconds: i64) -> String {
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_dockers_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (150, "2 minutes"),
            (3700, "About an hour"),
            (10_000, "3 hours"),
            (3 * 86400, "3 days"),
            (15 * 86_400, "2 weeks"),
            (30 * 86400, "4 weeks"),
            (90 * 86_400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human(seconds), words, "{seconds}");
        }
    }
}
