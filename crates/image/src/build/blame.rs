//! Where a Dockerfile is wrong: its line, with a mark under the place.

use std::fmt;

/// A line that is no instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Its number in the file, from 1.
    pub line: usize,
    /// The line as it stands in the file.
    pub text: String,
    /// Where in it, in characters from 0.
    pub column: usize,
    /// Over how many of them.
    pub length: usize,
    /// What is wrong, in Docker's words.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, text, column, length, message } = self;
        write!(f, "dockerfile parse error on line {line}: {message}")?;
        if text.is_empty() {
            return Ok(());
        }
        write!(f, "\n{}", marked(*line, text, *column, *length))
    }
}

impl std::error::Error for ParseError {}

/// A line with its number, and marks below what is meant in it.
pub(crate) fn marked(line: usize, text: &str, column: usize, length: usize) -> String {
    let number = line.to_string();
    // tabs stay tabs, so that the mark stands where it should
    let indent: String = text.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let marks = "^".repeat(length.max(1));
    format!(" {number} | {text}\n {:width$} | {indent}{marks}", "", width = number.len())
}

/// Which part of an instruction a message is about, in characters: the first argument that it names, or else all of
/// them.
pub(crate) fn blamed(text: &str, message: &str) -> (usize, usize) {
    let characters = |part: &str| part.chars().count();
    let keyword = text.find(char::is_whitespace).unwrap_or(0);
    let mut rest = keyword;
    while let Some(start) = text[rest..].find(|c: char| !c.is_whitespace()).map(|at| rest + at) {
        let end = text[start..].find(char::is_whitespace).map_or(text.len(), |at| start + at);
        let word = &text[start..end];
        let value = word.split_once('=').map_or(word, |(_, value)| value).trim_matches(['"', '\'']);
        if !value.is_empty() && message.contains(value) {
            return (characters(&text[..start]), characters(word));
        }
        rest = end;
    }
    let first = keyword + (text[keyword..].len() - text[keyword..].trim_start().len());
    (characters(&text[..first]), characters(text[first..].trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_names_is_blamed() {
        let check = |text: &str, message: &str, blamed_text: &str| {
            let (column, length) = blamed(text, message);
            let part: String = text.chars().skip(column).take(length).collect();
            assert_eq!(part, blamed_text, "{text}");
        };
        check("EXPOSE 80 abc", "invalid containerPort: abc", "abc");
        check("COPY --chmod=999 a /", "invalid chmod parameter: 999", "--chmod=999");
        check("RUN false", "The command '/bin/sh -c false' returned a non-zero code: 1", "false");
        check("COPY  a  b ", "something else", "a  b");
    }
}
