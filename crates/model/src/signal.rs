//! Signals, by their names and numbers (signal(7)).

/// By number: 1 to 31.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Other names of some of them.
const SYNONYMS: [(&str, i32); 3] = [("CLD", 17), ("IOT", 6), ("POLL", 29)];

/// The real-time signals, as the C libraries leave them to programs.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The number of a signal that is named, with or without `SIG`, or numbered: `SIGTERM`, `term`, `9`, `RTMIN+3`.
pub fn number(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = || NAMES.iter().position(|n| *n == name).map(|at| at as i32 + 1);
    let synonym = || SYNONYMS.iter().find(|(n, _)| *n == name).map(|(_, number)| *number);
    let beyond =
        |base: i32, rest: &str| if rest.is_empty() { Some(base) } else { rest.parse::<i32>().ok()?.checked_add(base) };
    let real_time = || {
        let from_first = name.strip_prefix("RTMIN").and_then(|rest| beyond(*REAL_TIME.start(), rest));
        let number = from_first.or_else(|| name.strip_prefix("RTMAX").and_then(|rest| beyond(*REAL_TIME.end(), rest)));
        number.filter(|n| REAL_TIME.contains(n))
    };
    named().or_else(synonym).or_else(|| upper.parse().ok()).or_else(real_time).filter(|n| (1..=64).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
            ("KILL", 9),
            ("SIGPOLL", 29),
            ("IOT", 6),
            ("SYS", 31),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in ["", "0", "65", "SIGNOPE", "-1", "RTMIN+99", "RTMIN-1", "SIG9", "RTMIN+2147483647"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
