//! `/containers/{id}/top`: a container's processes, as ps(1) would show them, without running one.

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::query::Query;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use runtime::ProcessInfo;
use serde_json::json;

/// A column: its title, and what stands in it.
struct Column {
    /// As `-o` calls it.
    names: &'static [&'static str],
    title: &'static str,
    show: fn(&ProcessInfo, &Around) -> String,
}

/// What is the same for all processes.
struct Around {
    now: Timestamp,
    /// Bytes.
    memory: u64,
    passwd: String,
}

impl Around {
    fn user(&self, uid: u32) -> String {
        let is = |line: &&str| line.split(':').nth(2).and_then(|n| n.parse().ok()) == Some(uid);
        let line = self.passwd.lines().find(is);
        line.and_then(|l| l.split(':').next()).map_or_else(|| uid.to_string(), str::to_owned)
    }

    /// `15:04` of today, else `Nov24`.
    fn start(&self, age: u64) -> String {
        let began = self.now - SignedDuration::from_secs(i64::try_from(age).unwrap_or(0));
        let format = if age < 24 * 3600 { "%H:%M" } else { "%b%d" };
        began.to_zoned_datetime(TimeZone::system()).strftime(format).to_string()
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `[[dd-]hh:]mm:ss`
fn elapsed(seconds: u64) -> String {
    let (days, hours) = (seconds / 86400, seconds / 3600 % 24);
    let rest = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => rest,
        (0, _) => format!("{hours:02}:{rest}"),
        _ => format!("{days}-{hours:02}:{rest}"),
    }
}

/// As tty_nr of proc(5) has it.
fn terminal(number: i32) -> String {
    let number = u64::from(number.unsigned_abs());
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// What ps knows and clients ask for.
const COLUMNS: &[Column] = &[
    Column { names: &["pid"], title: "PID", show: |p, _| p.pid.to_string() },
    Column { names: &["ppid"], title: "PPID", show: |p, _| p.ppid.to_string() },
    Column { names: &["user", "euser", "uname"], title: "USER", show: |p, a| a.user(p.uid) },
    Column { names: &["UID"], title: "UID", show: |p, a| a.user(p.uid) },
    Column { names: &["uid", "euid"], title: "UID", show: |p, _| p.uid.to_string() },
    Column { names: &["c"], title: "C", show: |p, _| (share(p.cpu, p.age) as u64).to_string() },
    Column { names: &["%cpu", "pcpu"], title: "%CPU", show: |p, _| format!("{:.1}", share(p.cpu, p.age)) },
    Column { names: &["%mem", "pmem"], title: "%MEM", show: |p, a| format!("{:.1}", share(p.resident, a.memory)) },
    Column { names: &["vsz", "vsize"], title: "VSZ", show: |p, _| (p.size / 1024).to_string() },
    Column { names: &["rss", "rssize"], title: "RSS", show: |p, _| (p.resident / 1024).to_string() },
    Column { names: &["stime"], title: "STIME", show: |p, a| a.start(p.age) },
    Column { names: &["start", "start_time"], title: "START", show: |p, a| a.start(p.age) },
    Column { names: &["etime"], title: "ELAPSED", show: |p, _| elapsed(p.age) },
    Column { names: &["etimes"], title: "ELAPSED", show: |p, _| p.age.to_string() },
    Column { names: &["tty", "tt", "tname"], title: "TTY", show: |p, _| terminal(p.tty) },
    Column { names: &["time", "cputime"], title: "TIME", show: |p, _| clock(p.cpu) },
    Column { names: &["bsdtime"], title: "TIME", show: |p, _| format!("{}:{:02}", p.cpu / 60, p.cpu % 60) },
    Column { names: &["stat"], title: "STAT", show: |p, _| p.state.to_string() },
    Column { names: &["s", "state"], title: "S", show: |p, _| p.state.to_string() },
    Column { names: &["ni", "nice"], title: "NI", show: |p, _| p.nice.to_string() },
    Column { names: &["comm", "ucmd", "ucomm"], title: "COMMAND", show: |p, _| p.name.clone() },
    Column { names: &["command", "args"], title: "COMMAND", show: |p, _| p.command.clone() },
    Column { names: &["cmd"], title: "CMD", show: |p, _| p.command.clone() },
    Column { names: &["CMD"], title: "CMD", show: |p, _| p.name.clone() },
];

/// `ps`, `ps -f` and `ps u`.
const SHORT: &str = "pid tty time CMD";
const FULL: &str = "UID pid ppid c stime tty time cmd";
const BY_USER: &str = "user pid %cpu %mem vsz rss tty stat start bsdtime command";

/// The columns that arguments of ps ask for, with the titles they give.
///
/// # Errors
/// One is none that is known here.
fn columns(arguments: &str) -> Answer<Vec<(&'static Column, String)>> {
    let unknown = |what: &str| {
        Failure::invalid(format!(
            "cannot show the processes with {what:?}: Isle shows them itself, by -e, -A, -f, -F, a, u, x, w, -w and \
             -o with {}",
            COLUMNS.iter().map(|c| c.names[0]).filter(|n| n.to_lowercase() == *n).collect::<Vec<_>>().join(", ")
        ))
    };
    let mut formats: Vec<String> = Vec::new();
    let mut usual = SHORT;
    let mut words = arguments.split_whitespace();
    while let Some(word) = words.next() {
        if let Some(format) = word.strip_prefix("--format=") {
            formats.push(format.to_owned());
            continue;
        }
        if word == "--format" {
            formats.push(words.next().unwrap_or_default().to_owned());
            continue;
        }
        let (dash, letters) = word.strip_prefix('-').map_or((false, word), |l| (true, l));
        for (at, letter) in letters.char_indices() {
            match letter {
                'o' => {
                    let rest = &letters[at + 1..];
                    let format = if rest.is_empty() { words.next().unwrap_or_default() } else { rest };
                    formats.push(format.to_owned());
                    break;
                }
                'f' | 'F' if dash => usual = FULL,
                'u' if !dash => usual = BY_USER,
                // Which processes: the container's in any case.
                'e' | 'A' | 'a' | 'x' | 'w' | 'd' => {}
                // `-aux` is what people write for `aux`.
                'u' if letters == "aux" => usual = BY_USER,
                _ => return Err(unknown(word)),
            }
        }
    }
    let find = |name: &str| COLUMNS.iter().find(|c| c.names.contains(&name)).ok_or_else(|| unknown(name));
    if formats.is_empty() {
        return usual.split(' ').map(|name| find(name).map(|c| (c, c.title.to_owned()))).collect();
    }
    let mut chosen = Vec::new();
    for name in formats.iter().flat_map(|f| f.split([',', ' '])).filter(|n| !n.is_empty()) {
        let (name, title) = name.split_once('=').map_or((name, None), |(n, t)| (n, Some(t)));
        let column = find(&name.to_ascii_lowercase())?;
        chosen.push((column, title.unwrap_or(column.title).to_owned()));
    }
    if chosen.iter().all(|(c, _)| c.title != "PID") {
        return Err(Failure::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "Couldn't find PID field in ps output",
        ));
    }
    Ok(chosen)
}

pub async fn top(State(engine): Ctx, Path(id): Path<String>, query: Query) -> Answer {
    let columns = columns(query.text("ps_args").unwrap_or("-ef"))?;
    let processes = engine.top(&id).await?;
    let around = Around {
        now: Timestamp::now(),
        memory: engine.info().memory,
        passwd: std::fs::read_to_string("/etc/passwd").unwrap_or_default(),
    };
    let row = |p: &ProcessInfo| columns.iter().map(|(c, _)| (c.show)(p, &around)).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = processes.iter().map(row).collect();
    let titles: Vec<&String> = columns.iter().map(|(_, title)| title).collect();
    Ok(Json(json!({ "Titles": titles, "Processes": rows })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_those_of_ps() {
        let titles = |arguments: &str| {
            let columns = columns(arguments).map(|c| c.into_iter().map(|(_, t)| t).collect::<Vec<_>>().join(" "));
            columns.map_err(|e| e.message)
        };
        assert_eq!(titles("-ef").unwrap(), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(titles("aux").unwrap(), "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        assert_eq!(titles("-aux").unwrap(), titles("aux").unwrap());
        assert_eq!(titles("").unwrap(), "PID TTY TIME CMD");
        assert_eq!(titles("-eo pid,comm").unwrap(), "PID COMMAND");
        assert_eq!(titles("-o pid -o args=WHAT").unwrap(), "PID WHAT");
        assert!(titles("-o comm").unwrap_err().contains("PID"));
        assert!(titles("-o pid,wchan").unwrap_err().contains("\"wchan\""));
        assert!(titles("--forest").is_err());
    }

    #[test]
    fn times_and_terminals_are_as_in_ps() {
        assert_eq!([elapsed(5), elapsed(3661), elapsed(90061)], ["00:05", "01:01:01", "1-01:01:01"]);
        assert_eq!([terminal(0), terminal(136 << 8 | 3), terminal(4 << 8 | 1)], ["?", "pts/3", "tty1"]);
        assert_eq!(clock(3725), "01:02:05");
    }
}
