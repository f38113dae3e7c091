//! Numbers, sizes and times as people write and read them: Go's and Docker's ways, so that `64m`, `1h30m` and
//! "About a minute ago" mean what they mean there.

use anyhow::{Context, bail};
use jiff::Timestamp;
use model::duration;

/// Go's `%q`.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if u32::from(c) < 32 || c == '\u{7f}' => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `64m`, `1.5g`, `512KiB`, `-1`: go-units' `RAMInBytes`.
///
/// # Errors
/// It is none of them.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let invalid = || format!("invalid size: '{text}'");
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or_else(invalid)? + 1;
    let number: f64 = text[..end].parse().map_err(|_| invalid())?;
    let unit = text[end..].trim_start_matches(' ').to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("invalid suffix: '{unit}'")),
    };
    if number < 0.0 {
        return Err(invalid());
    }
    Ok((number * 1024f64.powi(power)) as i64)
}

/// CPUs, `1.5`, in billionths.
///
/// # Errors
/// It is no number, or finer than a billionth.
pub fn parse_nano(text: &str) -> Result<i64, String> {
    let irrational = || format!("failed to parse {text} as a rational number");
    let number: f64 = match text.split_once('/') {
        Some((above, below)) => {
            let whole = |text: &str| text.parse::<i64>().map_err(|_| irrational());
            let (above, below) = (whole(above)?, whole(below)?);
            if below == 0 {
                return Err(irrational());
            }
            above as f64 / below as f64
        }
        None => text.parse().map_err(|_| irrational())?,
    };
    let nano = number * 1e9;
    if (nano - nano.round()).abs() > 1e-3 { Err("value is too precise".into()) } else { Ok(nano.round() as i64) }
}

/// go-units' `HumanSizeWithPrecision`: decimal units, `precision` significant digits.
pub fn human_size(bytes: f64, precision: usize) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    scaled(bytes, 1000.0, &units, precision)
}

/// go-units' `BytesSize`: binary units.
pub fn binary_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

fn scaled(mut size: f64, base: f64, units: &[&str], precision: usize) -> String {
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, precision), units[unit])
}

/// Go's `%.Ng`, without exponents.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let before = (value.abs().log10().floor() as i32 + 1).max(1) as usize;
    let text = format!("{value:.*}", digits.saturating_sub(before));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// "3 minutes ago", from seconds since the epoch.
pub fn ago(at: i64) -> String {
    format!("{} ago", duration::human(Timestamp::now().as_second() - at))
}

/// Go's `time.Time.String()` in the local zone: `2026-11-24 03:45:22 +0000 UTC`.
pub fn go_time(at: i64) -> String {
    match Timestamp::from_second(at) {
        Ok(time) => {
            time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
        }
        Err(_) => String::new(),
    }
}

/// `--since` and `--until`: a time, seconds since the epoch, or how long ago, as the API wants it.
///
/// # Errors
/// It is none of these.
pub fn moment(text: &str) -> anyhow::Result<String> {
    if let Ok(ago) = duration::parse(text)
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
    {
        return Ok(stamp(Timestamp::now() - jiff::SignedDuration::from_nanos(ago)));
    }
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Ok(text.to_owned());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(stamp(time));
    }
    // Without a zone: the local one; the time may be cut short.
    let zone = jiff::tz::TimeZone::system();
    let local = text.parse::<jiff::civil::DateTime>().or_else(|_| {
        jiff::civil::DateTime::strptime("%Y-%m-%dT%H:%M", text)
            .or_else(|_| jiff::civil::DateTime::strptime("%Y-%m-%dT%H", text))
    });
    let Ok(local) = local else { bail!("failed to parse value as time or duration: {}", quote(text)) };
    Ok(stamp(local.to_zoned_datetime(zone).context("there is no such time here")?.timestamp()))
}

fn stamp(time: Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

/// The first twelve digits of an id.
pub fn short_id(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// At most `width` characters, the last of them an ellipsis where something was cut.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width || width == 0 {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let cases = [
            ("64m", 64 << 20),
            ("1g", 1 << 30),
            ("1.5k", 1536),
            ("100", 100),
            ("10b", 10),
            ("2KiB", 2048),
            ("1 mb", 1 << 20),
            ("-1", -1),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_bytes("abc"), Err("invalid size: 'abc'".into()));
        assert_eq!(parse_bytes("1x"), Err("invalid suffix: 'x'".into()));
    }

    #[test]
    fn sizes_are_shown_as_by_go_units() {
        assert_eq!(human_size(0.0, 3), "0B");
        assert_eq!(human_size(1_234_567.0, 3), "1.23MB");
        assert_eq!(human_size(4_260_000.0, 3), "4.26MB");
        assert_eq!(human_size(100.0, 4), "100B");
        assert_eq!(human_size(999_999.0, 3), "1000kB");
        assert_eq!(binary_size(64.0 * 1024.0 * 1024.0), "64MiB");
    }

    #[test]
    fn texts_are_cut_with_an_ellipsis() {
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abc", 4), "abc");
        assert_eq!(quote("a\"b\n"), "\"a\\\"b\\n\"");
    }
}
