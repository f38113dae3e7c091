//! The container's log, in the exact form of Docker's json-file: one object a line, split at newlines, at most 16 KiB
//! of output in one. Written straight to the file: a slow or absent daemon holds nothing up, and a full disk drops
//! lines, which are counted.

use rustix::fs::{CWD, Mode, OFlags, fstat, ftruncate, openat, renameat};
use rustix::io::Errno;
use shim_protocol::frame::{self, Decoder};
use shim_protocol::launch::Log;
use shim_protocol::{Time, file};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// As Docker cuts long lines.
const LINE_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

pub struct Writer {
    settings: Log,
    file: Option<OwnedFd>,
    size: u64,
    /// What has come of a line that has not ended, of stdout and stderr.
    partial: [Vec<u8>; 2],
    /// Where they outlive us, and whether there is something.
    kept: Option<OwnedFd>,
    is_kept: bool,
    /// Lines that no disk wanted.
    pub lost: u64,
}

impl Writer {
    pub fn open(settings: Log) -> Result<Writer, Errno> {
        let (file, size) = open_file(&settings.path, OFlags::empty())?;
        let partial = [Vec::new(), Vec::new()];
        Ok(Writer { settings, file: Some(file), size, partial, kept: None, is_kept: false, lost: 0 })
    }

    /// Go on where a killed shim was in a line; and let the next one do so, should we be killed.
    pub fn keep_partial(&mut self, home: &OwnedFd) {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let Ok(file) = openat(home, file::PARTIAL, flags, Mode::from(0o600)) else { return };
        let mut bytes = vec![0; 2 * LINE_MAX + 64];
        let read = rustix::io::pread(&file, &mut bytes, 0).unwrap_or_default();
        let mut decoder = Decoder::default();
        decoder.push(&bytes[..read]);
        if let Ok(Some(frame)) = decoder.next_frame()
            && let Ok(partial) = frame.value()
        {
            self.partial = partial;
            self.is_kept = true;
        }
        self.kept = Some(file);
    }

    fn note_partial(&mut self) {
        let is_any = self.partial.iter().any(|p| !p.is_empty());
        let Some(file) = self.kept.as_ref().filter(|_| is_any || self.is_kept) else { return };
        let mut bytes = Vec::new();
        if frame::encode_value(&mut bytes, &self.partial, 0).is_ok() {
            // The frame says how long it is: what an earlier one has left behind it does not matter.
            let _ = rustix::io::pwrite(file, &bytes, 0);
        }
        self.is_kept = is_any;
    }

    /// Log what was read, as far as its lines are whole.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Time) {
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 128);
        let mut lines = 0;
        let partial = &mut self.partial[stream as usize];
        let stamp = rfc3339(now);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            partial.extend_from_slice(line);
            lines += cut(partial, &mut out, stream, &stamp);
            encode(&mut out, partial, stream, &stamp);
            partial.clear();
            lines += 1;
        }
        partial.extend_from_slice(rest);
        lines += cut(partial, &mut out, stream, &stamp);
        self.append(&out, lines);
        self.note_partial();
    }

    /// The stream has ended: what is left of it is its last line.
    pub fn finish(&mut self, stream: Stream, now: Time) {
        let rest = std::mem::take(&mut self.partial[stream as usize]);
        if !rest.is_empty() {
            let mut out = Vec::new();
            encode(&mut out, &rest, stream, &rfc3339(now));
            self.append(&out, 1);
            self.note_partial();
        }
    }

    fn append(&mut self, bytes: &[u8], lines: u64) {
        if bytes.is_empty() {
            return;
        }
        if self.settings.max_size.is_some_and(|max| self.size > 0 && self.size + bytes.len() as u64 > max) {
            self.rotate();
        }
        let Some(file) = &self.file else {
            self.lost += lines;
            self.file = open_file(&self.settings.path, OFlags::empty()).ok().map(|(file, size)| {
                self.size = size;
                file
            });
            return;
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(file, rest) {
                Ok(n) if n > 0 => rest = &rest[n..],
                Err(Errno::INTR) => {}
                _ => {
                    // Whole lines or none: whoever reads the file finds nothing torn.
                    let _ = ftruncate(file, self.size);
                    self.lost += lines;
                    return;
                }
            }
        }
        self.size += bytes.len() as u64;
    }

    fn rotate(&mut self) {
        let path = |number: u32| -> PathBuf {
            let mut name = OsString::from(&self.settings.path);
            if number > 0 {
                name.push(format!(".{number}"));
            }
            name.into()
        };
        if self.settings.max_files < 2 {
            if let Some(file) = &self.file {
                let _ = ftruncate(file, 0);
            }
            self.size = 0;
            return;
        }
        for number in (1..self.settings.max_files).rev() {
            let _ = renameat(CWD, path(number - 1), CWD, path(number));
        }
        match open_file(&self.settings.path, OFlags::empty()) {
            Ok((file, size)) => {
                self.file = Some(file);
                self.size = size;
            }
            Err(_) => self.file = None,
        }
    }
}

fn open_file(path: &PathBuf, more: OFlags) -> Result<(OwnedFd, u64), Errno> {
    let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC | more;
    let file = openat(CWD, path, flags, Mode::from(0o600))?;
    let size = fstat(&file)?.st_size as u64;
    Ok((file, size))
}

/// Take whole pieces off a line that is too long, at a character's boundary where there is one.
fn cut(partial: &mut Vec<u8>, out: &mut Vec<u8>, stream: Stream, stamp: &str) -> u64 {
    let mut pieces = 0;
    let mut from = 0;
    // The newline belongs to the piece that it ends.
    while partial.len() - from > LINE_MAX + usize::from(partial.last() == Some(&b'\n')) {
        let mut end = from + LINE_MAX;
        let boundary = (end - 3..=end).rev().find(|at| partial[*at] & 0xc0 != 0x80);
        end = boundary.unwrap_or(end);
        encode(out, &partial[from..end], stream, stamp);
        from = end;
        pieces += 1;
    }
    partial.drain(..from);
    pieces
}

fn encode(out: &mut Vec<u8>, line: &[u8], stream: Stream, stamp: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in line.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\0'..='\x1f' | '<' | '>' | '&' => {
                    const DIGITS: &[u8; 16] = b"0123456789abcdef";
                    let byte = c as usize;
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[DIGITS[byte >> 4], DIGITS[byte & 15]]);
                }
                '\u{2028}' => out.extend_from_slice(b"\\u2028"),
                '\u{2029}' => out.extend_from_slice(b"\\u2029"),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(stamp.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

pub fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Time { seconds: now.tv_sec, nanoseconds: now.tv_nsec as u32 }
}

/// Go's RFC3339Nano in UTC: a fraction without trailing zeros.
fn rfc3339(time: Time) -> String {
    let (days, second) = (time.seconds.div_euclid(86400), time.seconds.rem_euclid(86400));
    // Howard Hinnant's civil_from_days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if time.nanoseconds > 0 {
        let fraction = format!(".{:09}", time.nanoseconds);
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Time = Time { seconds: 1_709_208_000, nanoseconds: 120_000_000 };

    #[test]
    fn times_are_written_as_go_writes_them() {
        let check = |seconds, nanoseconds, expected: &str| assert_eq!(rfc3339(Time { seconds, nanoseconds }), expected);
        check(0, 0, "1970-01-01T00:00:00Z");
        check(1_709_208_000, 120_000_000, "2024-02-29T12:00:00.12Z");
        check(1_709_208_000, 1, "2024-02-29T12:00:00.000000001Z");
        check(4_102_444_799, 999_999_999, "2099-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn lines_are_escaped_as_docker_escapes_them() {
        let check = |line: &[u8], expected: &str| {
            let mut out = Vec::new();
            encode(&mut out, line, Stream::Stdout, &rfc3339(NOON));
            let whole =
                format!("{{\"log\":\"{expected}\",\"stream\":\"stdout\",\"time\":\"2024-02-29T12:00:00.12Z\"}}\n");
            assert_eq!(String::from_utf8(out).unwrap(), whole);
        };
        check(b"hello\n", "hello\\n");
        check(b"a\"b\\c\r\n", "a\\\"b\\\\c\\r\\n");
        check(b"\x1b[1m\t<&>", "\\u001b[1m\\u0009\\u003c\\u0026\\u003e");
        check("ä\u{2028}".as_bytes(), "ä\\u2028");
        check(b"\xff\xfeok", "\\ufffd\\ufffdok");
    }

    #[test]
    fn long_lines_are_cut_and_files_rotate() {
        let directory = std::env::temp_dir().join(format!("isle-shim-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("c-json.log");
        let mut log = Writer::open(Log { path: path.clone(), max_size: Some(40_000), max_files: 2 }).unwrap();
        log.write(Stream::Stdout, &[b'x'; LINE_MAX + 10], NOON);
        log.write(Stream::Stdout, b"y\nz", NOON);
        log.finish(Stream::Stdout, NOON);
        let text = std::fs::read_to_string(&path).unwrap();
        let lengths: Vec<usize> = text.lines().map(|line| line.split('"').nth(3).unwrap().len()).collect();
        assert_eq!(lengths, [LINE_MAX, 10 + 1 + 2, 1]);
        for _ in 0..3 {
            log.write(Stream::Stderr, &[b'e'; LINE_MAX], NOON);
            log.write(Stream::Stderr, b"\n", NOON);
        }
        let rotated = directory.join("c-json.log.1");
        assert!(std::fs::metadata(&path).unwrap().len() <= 40_000);
        assert!(rotated.exists() && !directory.join("c-json.log.2").exists());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_disk_that_is_full_costs_lines_and_nothing_else() {
        let mut log = Writer::open(Log { path: "/dev/full".into(), max_size: None, max_files: 1 }).unwrap();
        log.write(Stream::Stdout, b"one\ntwo\nthr", NOON);
        assert_eq!(log.lost, 2);
        log.finish(Stream::Stdout, NOON);
        assert_eq!(log.lost, 3);
    }
}
