//! The person's terminal: its size, raw mode that is always taken back, and the keys that detach.

use rustix::termios::{self, OptionalActions, Termios};
use std::io::IsTerminal;

/// Puts standard input into raw mode until it is dropped, however that comes about.
pub struct Raw(Termios);

impl Raw {
    /// # Errors
    /// Standard input is no terminal.
    pub fn new() -> std::io::Result<Self> {
        let before = termios::tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Standard input is not shown while it is typed, until this is dropped.
pub struct Silent(Termios);

impl Silent {
    /// # Errors
    /// Standard input is no terminal.
    pub fn new() -> std::io::Result<Self> {
        let before = termios::tcgetattr(std::io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(termios::LocalModes::ECHO);
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Rows and columns of the terminal that output goes to.
pub fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(std::io::stdout()).or_else(|_| termios::tcgetwinsize(std::io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// How wide help may be.
pub fn width() -> usize {
    size().map_or(80, |(_, columns)| usize::from(columns))
}

pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}
pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// The keys that detach, `ctrl-p,ctrl-q` unless said otherwise.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// # Errors
    /// A name is no key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let key = |name: &str| match (name.strip_prefix("ctrl-").map(str::as_bytes), name.as_bytes()) {
            (Some([c @ b'a'..=b'z']), _) => Some(c - b'a' + 1),
            (Some(b"@"), _) => Some(0),
            (Some([c @ b'['..=b'_']), _) => Some(c - b'[' + 27),
            (None, [c]) => Some(*c),
            _ => None,
        };
        let unknown = |name: &str| format!("Unknown character: '{name}'");
        let keys = text.split(',').map(|name| key(name).ok_or_else(|| unknown(name)));
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, typed: 0 })
    }

    /// Whether the keys are complete with these bytes. All bytes go to the daemon all the same: it knows the keys too,
    /// and is the one that keeps them from the container.
    pub fn complete(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if self.keys.get(self.typed) != Some(byte) {
                self.typed = 0;
            }
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_detach_only_when_complete() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert!(!keys.complete(b"a\x10b"));
        assert!(!keys.complete(b"x\x10"));
        assert!(keys.complete(b"\x11rest"));
        let mut own = DetachKeys::parse("ctrl-a,x").unwrap();
        assert!(own.complete(b"\x01\x01x"));
        assert!(DetachKeys::parse("ctrl-!").is_err());
        assert_eq!(DetachKeys::parse("ctrl-],ctrl-@").unwrap().keys, [29, 0]);
    }
}
