//! Words of a Dockerfile: split at white space with quotes respected, and with variables put in, as Docker's shlex does.
//!
//! `$x`, `${x}`, `${x:-word}`, `${x-word}`, `${x:+word}`, `${x+word}`, `${x:?word}`, `${x?word}`, the pattern forms
//! `#`, `##`, `%`, `%%`, `/` and `//`; single quotes keep everything, double quotes keep white space, the escape
//! character keeps the next character.

use super::glob;

/// Where variables come from.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Puts variables into one word and takes its quotes away.
pub(crate) fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let (words, _) = run(word, escape, lookup)?;
    Ok(words)
}

/// Puts variables in, then splits where white space stands outside of quotes (in variables' values too).
pub(crate) fn expand_and_split(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>, String> {
    let (_, words) = run(text, escape, lookup)?;
    Ok(words)
}

fn run(text: &str, escape: char, lookup: Lookup<'_>) -> Result<(String, Vec<String>), String> {
    let mut expander = Expander { rest: text.chars().collect(), at: 0, escape, lookup, words: Words::default() };
    let whole = expander.until(None).map_err(|why| format!("failed to process \"{text}\": {why}"))?;
    Ok((whole, expander.words.finish()))
}

/// Splits at white space outside of quotes; quotes and escapes stay in the words.
pub(crate) fn split(text: &str, escape: char) -> Vec<String> {
    split_spans(text, escape).into_iter().map(|(_, word)| word.to_owned()).collect()
}

/// As [`split`], with where each word begins.
pub(crate) fn split_spans(text: &str, escape: char) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if start.is_none() {
            if c.is_whitespace() {
                continue;
            }
            start = Some(at);
        }
        match quote {
            None if c.is_whitespace() => {
                if let Some(start) = start.take() {
                    words.push((start, &text[start..at]));
                }
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            // nothing escapes inside of single quotes
            q if c == escape && q != Some('\'') => {
                chars.next();
            }
            _ => {}
        }
    }
    if let Some(start) = start {
        words.push((start, &text[start..]));
    }
    words
}

/// The words that [`expand_and_split`] finds on the way.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    /// Quotes were seen: an empty word is one nevertheless.
    quoted: bool,
}
impl Words {
    fn raw(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.cut();
            } else {
                self.current.push(c);
            }
        }
    }
    fn quoted(&mut self, text: &str) {
        self.current.push_str(text);
        self.quoted = true;
    }
    fn cut(&mut self) {
        if !self.current.is_empty() || self.quoted {
            self.done.push(std::mem::take(&mut self.current));
            self.quoted = false;
        }
    }
    fn finish(mut self) -> Vec<String> {
        self.cut();
        self.done
    }
}

struct Expander<'a> {
    rest: Vec<char>,
    at: usize,
    escape: char,
    lookup: Lookup<'a>,
    words: Words,
}

impl Expander<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }
    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Everything up to a character (which is taken too), or to the end.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else {
                return if end.is_some() {
                    Err("unexpected end of statement while looking for matching }".into())
                } else {
                    Ok(text)
                };
            };
            if Some(c) == end {
                self.at += 1;
                return Ok(text);
            }
            match c {
                '\'' => {
                    let part = self.single_quoted()?;
                    self.words.quoted(&part);
                    text.push_str(&part);
                }
                '"' => {
                    let part = self.double_quoted()?;
                    self.words.quoted(&part);
                    text.push_str(&part);
                }
                '$' => {
                    let part = self.dollar()?;
                    self.words.raw(&part);
                    text.push_str(&part);
                }
                c if c == self.escape => {
                    self.at += 1;
                    if let Some(kept) = self.next() {
                        self.words.quoted(&kept.to_string());
                        text.push(kept);
                    }
                }
                c => {
                    self.at += 1;
                    self.words.raw(&c.to_string());
                    text.push(c);
                }
            }
        }
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err("unexpected end of statement while looking for matching single-quote".into()),
                Some('\'') => return Ok(text),
                Some(c) => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err("unexpected end of statement while looking for matching double-quote".into()),
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) if c == self.escape => {
                    self.at += 1;
                    match self.peek() {
                        None => {
                            return Err("unexpected end of statement while looking for matching double-quote".into());
                        }
                        Some(next) if next == '"' || next == '$' || next == self.escape => {
                            self.at += 1;
                            text.push(next);
                        }
                        Some(_) => text.push(c),
                    }
                }
                Some(c) => {
                    self.at += 1;
                    text.push(c);
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { (self.lookup)(&name).unwrap_or_default() });
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err(match self.peek() {
                Some('}') => "syntax error: empty variable name".into(),
                _ => "syntax error: bad substitution".into(),
            });
        }
        let value = (self.lookup)(&name);
        let Some(operator) = self.next() else { return Err("syntax error: missing '}'".into()) };
        if operator == '}' {
            return Ok(value.unwrap_or_default());
        }
        let (operator, value_counts) = if operator == ':' {
            let next = self.next().ok_or("syntax error: missing '}'")?;
            if !matches!(next, '-' | '+' | '?') {
                return Err(format!("unsupported modifier ({next}) in substitution"));
            }
            (next, value.as_ref().is_some_and(|v| !v.is_empty()))
        } else {
            (operator, value.is_some())
        };
        let greedy = matches!(operator, '#' | '%' | '/') && self.peek() == Some(operator);
        if greedy {
            self.at += 1;
        }
        match operator {
            '-' | '+' | '?' | '#' | '%' => {
                let word = self.inner('}')?;
                match operator {
                    '-' => Ok(if value_counts { value.unwrap_or_default() } else { word }),
                    '+' => Ok(if value_counts { word } else { String::new() }),
                    '?' if value_counts => Ok(value.unwrap_or_default()),
                    '?' if word.is_empty() => Err(format!("{name}: not allowed to be unset")),
                    '?' => Err(format!("{name}: {word}")),
                    '#' => Ok(trim_start(&value.unwrap_or_default(), &word, greedy)),
                    _ => Ok(trim_end(&value.unwrap_or_default(), &word, greedy)),
                }
            }
            '/' => {
                let pattern = self.inner('/')?;
                let replacement = self.inner('}')?;
                Ok(replace(&value.unwrap_or_default(), &pattern, &replacement, greedy))
            }
            other => Err(format!("unsupported modifier ({other}) in substitution")),
        }
    }

    /// The word of a substitution: it has substitutions of its own, and is no part of the words found so far.
    fn inner(&mut self, end: char) -> Result<String, String> {
        let words = std::mem::take(&mut self.words);
        let inner = self.until(Some(end));
        self.words = words;
        inner
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let fits = match name.is_empty() {
                true => c.is_ascii_alphabetic() || c == '_',
                false => c.is_ascii_alphanumeric() || c == '_',
            };
            if !fits {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }
}

fn boundaries(text: &str) -> Vec<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).collect()
}

fn trim_start(value: &str, pattern: &str, greedy: bool) -> String {
    let mut ends = boundaries(value);
    if greedy {
        ends.reverse();
    }
    let fitting = ends.into_iter().find(|&end| glob::wildcard(pattern, &value[..end]));
    value[fitting.unwrap_or(0)..].to_owned()
}

fn trim_end(value: &str, pattern: &str, greedy: bool) -> String {
    let mut starts = boundaries(value);
    if !greedy {
        starts.reverse();
    }
    let fitting = starts.into_iter().find(|&start| glob::wildcard(pattern, &value[start..]));
    value[..fitting.unwrap_or(value.len())].to_owned()
}

fn replace(value: &str, pattern: &str, replacement: &str, all: bool) -> String {
    let mut text = String::new();
    let mut rest = value;
    while !rest.is_empty() {
        let longest = boundaries(rest).into_iter().rev().find(|&end| end > 0 && glob::wildcard(pattern, &rest[..end]));
        match longest {
            Some(end) => {
                text.push_str(replacement);
                rest = &rest[end..];
                if !all {
                    break;
                }
            }
            None => {
                let step = rest.chars().next().map_or(0, char::len_utf8);
                text.push_str(&rest[..step]);
                rest = &rest[step..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "x" => Some("value".to_owned()),
            "empty" => Some(String::new()),
            "two" => Some("a b".to_owned()),
            "path" => Some("/usr/local/lib.so.1".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_put_in_as_docker_documents_it() {
        for (word, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$x", "value"),
            ("a${x}b", "avalueb"),
            ("$x$x", "valuevalue"),
            ("$x_y", ""),
            ("${x}_y", "value_y"),
            ("$unset", ""),
            ("${unset:-y}", "y"),
            ("${unset-y}", "y"),
            ("${empty:-y}", "y"),
            ("${empty-y}", ""),
            ("${x:-y}", "value"),
            ("${x:+y}", "y"),
            ("${empty:+y}", ""),
            ("${empty+y}", "y"),
            ("${unset:+y}", ""),
            ("${unset:-$x}", "value"),
            ("${unset:-${other:-deep}}", "deep"),
            ("${x:?must be}", "value"),
            (r"\$x", "$x"),
            (r"\${x}", "${x}"),
            ("'$x'", "$x"),
            ("\"$x\"", "value"),
            ("\"a  b\"", "a  b"),
            (r#""\$x \" \\ \n""#, r#"$x " \ \n"#),
            ("a'b c'd", "ab cd"),
            ("$", "$"),
            ("a$", "a$"),
            ("$$x", "$value"),
            ("$1", "$1"),
            ("${path#*/}", "usr/local/lib.so.1"),
            ("${path##*/}", "lib.so.1"),
            ("${path%.*}", "/usr/local/lib.so"),
            ("${path%%.*}", "/usr/local/lib"),
            ("${path/l/L}", "/usr/Local/lib.so.1"),
            ("${path//l/L}", "/usr/LocaL/Lib.so.1"),
        ] {
            assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(expected), "{word}");
        }
    }

    #[test]
    fn a_wrong_word_says_what_is_wrong() {
        for (word, expected) in [
            ("${x", "syntax error: missing '}'"),
            ("${}", "syntax error: empty variable name"),
            ("${x:", "syntax error: missing '}'"),
            ("${x:*y}", "unsupported modifier (*) in substitution"),
            ("'a", "unexpected end of statement while looking for matching single-quote"),
            ("\"a", "unexpected end of statement while looking for matching double-quote"),
            ("${unset:?needed}", "unset: needed"),
            ("${unset?}", "unset: not allowed to be unset"),
        ] {
            let expected = format!("failed to process \"{word}\": {expected}");
            assert_eq!(expand(word, '\\', &lookup), Err(expected), "{word}");
        }
    }

    #[test]
    fn words_are_split_outside_of_quotes_only() {
        let split = |t: &str| expand_and_split(t, '\\', &lookup).unwrap();
        assert_eq!(split("a  $two 'c d' \"$two\" ''"), ["a", "a", "b", "c d", "a b", ""]);
        assert_eq!(split(r"a\ b"), ["a b"]);
        assert_eq!(super::split(r#"a="b c" d\ e 'f g'"#, '\\'), [r#"a="b c""#, r"d\ e", "'f g'"]);
    }

    #[test]
    fn another_escape_character_is_respected() {
        assert_eq!(expand("`$x", '`', &lookup).unwrap(), "$x");
        assert_eq!(expand(r"C:\$x", '`', &lookup).unwrap(), r"C:\value");
    }
}
