//! A Dockerfile's lines: those that are continued become one text, each of whose characters knows where it came from;
//! heredocs take the lines after it.

use super::blame::ParseError;

/// Goes through a file, from one instruction to the next.
pub(super) struct Reader<'a> {
    lines: &'a [&'a str],
    next: usize,
    escape: char,
}

/// An instruction's text, its continued lines joined, and where its parts come from.
pub(super) struct Logical<'a> {
    lines: &'a [&'a str],
    pub(super) text: String,
    /// From which byte of `text` on it is which line (from 0), and which byte of that line.
    origins: Vec<(usize, usize, usize)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lines: &'a [&'a str], escape: char) -> Self {
        Reader { lines, next: 0, escape }
    }

    /// The next instruction's text.
    pub(super) fn logical_line(&mut self) -> Option<Logical<'a>> {
        let mut logical = Logical { lines: self.lines, text: String::new(), origins: Vec::new() };
        while let Some(line) = self.lines.get(self.next) {
            let number = self.next;
            self.next += 1;
            let started = !logical.origins.is_empty();
            let trimmed = line.trim_start();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                // between instructions and inside of them alike
                continue;
            }
            // only the first line loses its indentation: those after it may be inside of quotes
            let (from, content) = if started { (0, *line) } else { (line.len() - trimmed.len(), trimmed) };
            let continued = continuation(content, self.escape);
            logical.origins.push((logical.text.len(), number, from));
            logical.text.push_str(continued.unwrap_or(content));
            if continued.is_none() {
                break;
            }
        }
        let length = logical.text.trim_end().len();
        logical.text.truncate(length);
        (!logical.text.is_empty()).then_some(logical)
    }

    /// The lines of a heredoc, up to its name.
    pub(super) fn heredoc(&mut self, name: &str, strip_tabs: bool) -> Option<String> {
        let mut content = String::new();
        while let Some(line) = self.lines.get(self.next) {
            self.next += 1;
            let line = if strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == name {
                return Some(content);
            }
            content.push_str(line);
            content.push('\n');
        }
        None
    }
}

impl Logical<'_> {
    /// What comes from a byte of `text` on.
    pub(super) fn after(&self, at: usize) -> Self {
        let parts = self.origins.iter().enumerate().filter_map(|(i, &(start, line, column))| {
            let end = self.origins.get(i + 1).map_or(usize::MAX, |o| o.0);
            (end > at).then(|| (start.saturating_sub(at), line, column + at.saturating_sub(start)))
        });
        Logical { lines: self.lines, text: self.text[at..].to_owned(), origins: parts.collect() }
    }

    pub(super) fn keyword_end(&self) -> usize {
        self.text.find(char::is_whitespace).unwrap_or(self.text.len())
    }

    /// From 0.
    pub(super) fn first_line(&self) -> usize {
        self.origins.first().map_or(0, |o| o.1)
    }

    /// An error about a range of bytes of `text`.
    pub(super) fn error(&self, range: std::ops::Range<usize>, message: impl Into<String>) -> ParseError {
        let &(start, line, column) = self.origins.iter().rev().find(|o| o.0 <= range.start).unwrap_or(&(0, 0, 0));
        let text = self.lines.get(line).copied().unwrap_or_default();
        let byte = (column + range.start.saturating_sub(start)).min(text.len());
        let end = (byte + range.len()).min(text.len());
        let count = |range: std::ops::Range<usize>| text.get(range).map_or(0, |t| t.chars().count());
        ParseError {
            line: line + 1,
            text: text.to_owned(),
            column: count(0..byte),
            length: count(byte..end),
            message: message.into(),
        }
    }
}

/// A line without the escape character that ends it, if one does.
fn continuation(line: &str, escape: char) -> Option<&str> {
    let rest = line.trim_end_matches([' ', '\t', '\r']).strip_suffix(escape)?;
    // an escaped escape character is none
    (!rest.ends_with(escape)).then_some(rest)
}

/// What opens a heredoc.
pub(super) struct Opening {
    pub(super) name: String,
    pub(super) expand: bool,
    pub(super) strip_tabs: bool,
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`.
pub(super) fn heredoc_name(word: &str) -> Option<Opening> {
    let rest = word.strip_prefix("<<")?;
    let (rest, strip_tabs) = rest.strip_prefix('-').map_or((rest, false), |r| (r, true));
    let (name, expand) = match rest.chars().next()? {
        quote @ ('"' | '\'') => (rest[1..].strip_suffix(quote)?, false),
        _ => (rest, true),
    };
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    fits.then(|| Opening { name: name.to_owned(), expand, strip_tabs })
}

/// `# escape=` in one of the first lines, among other directives.
pub(super) fn escape_directive(lines: &[&str]) -> Result<char, ParseError> {
    let mut seen = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|l| l.split_once('=')) else { break };
        let key = key.trim().to_ascii_lowercase();
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            break;
        }
        let error = |message: String| {
            let length = line.chars().count();
            ParseError { line: number + 1, text: (*line).to_owned(), column: 0, length, message }
        };
        if seen.iter().any(|(k, _)| *k == key) {
            return Err(error(format!("only one {key} parser directive can be used")));
        }
        let value = value.trim().to_owned();
        if key == "escape" && !matches!(value.as_str(), "\\" | "`") {
            return Err(error(format!("invalid escape token '{value}' does not match ` or \\")));
        }
        seen.push((key, value));
    }
    let escape = seen.into_iter().find(|(k, _)| k == "escape").and_then(|(_, v)| v.chars().next());
    Ok(escape.unwrap_or('\\'))
}
