//! What is to become of a container's output: the drivers that there are, and their options.

use crate::container::LogConfig;

/// Whether there is such a driver.
pub fn is_driver(name: &str) -> bool {
    matches!(name, "json-file" | "local" | "none")
}

/// `10m` in bytes.
pub fn size(text: &str) -> Option<u64> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let factor = match text[digits.len()..].to_ascii_lowercase().trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// What is wrong with how much is to be logged, in Docker's words.
pub fn wrong_option(log: &LogConfig) -> Option<String> {
    const COMMON: [&str; 5] = ["max-size", "max-file", "compress", "mode", "max-buffer-size"];
    const TAGS: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];
    let is_known = |option: &str| COMMON.contains(&option) || log.driver == "json-file" && TAGS.contains(&option);
    if let Some(unknown) = log.config.keys().find(|o| log.driver != "none" && !is_known(o)) {
        return Some(format!("unknown log opt '{unknown}' for {} log driver", log.driver));
    }
    if let Some(mode) = log.config.get("mode").filter(|m| !matches!(m.as_str(), "blocking" | "non-blocking")) {
        return Some(format!("logger: logging mode must be either \"blocking\" or \"non-blocking\": it is {mode:?}"));
    }
    let wrong = log.config.get("max-size").filter(|text| size(text).is_none_or(|size| size == 0));
    if let Some(text) = wrong {
        return Some(format!("max-size must be a positive number: {text:?} is none"));
    }
    let files = log.config.get("max-file").filter(|text| text.parse::<u32>().map_or(true, |n| n == 0));
    files.map(|text| format!("max-file cannot be less than 1: it is {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_known_and_have_values_that_mean_something() {
        let wrong = |driver: &str, option: &str, value: &str| {
            wrong_option(&LogConfig { driver: driver.into(), config: [(option.into(), value.into())].into() })
        };
        for (option, value) in [("max-size", "10m"), ("max-file", "3"), ("mode", "non-blocking"), ("tag", "{{.ID}}")] {
            assert_eq!(wrong("json-file", option, value), None, "{option}={value}");
        }
        for (option, value) in [("max-size", "0"), ("max-size", "1x"), ("max-file", "0"), ("mode", "x"), ("nope", "1")]
        {
            assert!(wrong("json-file", option, value).is_some(), "{option}={value}");
        }
        assert_eq!(wrong("local", "tag", "x").unwrap(), "unknown log opt 'tag' for local log driver");
        assert_eq!(wrong("none", "nope", "x"), None);
    }
}
