//! Patterns: Go's `path.Match`, which COPY and image filters use, and `.dockerignore`, which is that with `**` and
//! exceptions.

use std::path::Path;

/// Go's `path.Match`: `*` and `?` do not cross a slash, `[a-z]` and `[^a]` are sets, `\` escapes. A malformed pattern
/// fits nothing.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    fits(&pattern, &name, Slash::Stops)
}

/// The same where a slash is a character like others: shell patterns in `${x#pattern}`.
pub(crate) fn wildcard(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    fits(&pattern, &text, Slash::Counts)
}

/// Whether a path component is a pattern.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Stops,
    Counts,
}

/// Backtracks to the last star only, so no pattern takes more than quadratic time.
fn fits(pattern: &[char], name: &[char], slash: Slash) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            None if n == name.len() => return true,
            None => None,
            Some('*') => {
                retry = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(_) if n == name.len() => None,
            Some(_) => one(&pattern[p..], name[n], slash),
        };
        match step {
            Some(length) => {
                p += length;
                n += 1;
            }
            None => match retry {
                Some((after, at)) if at < name.len() && !(slash == Slash::Stops && name[at] == '/') => {
                    retry = Some((after, at + 1));
                    (p, n) = (after, at + 1);
                }
                _ => return false,
            },
        }
    }
}

/// How long the pattern's first element is, if it fits the character.
fn one(pattern: &[char], c: char, slash: Slash) -> Option<usize> {
    match pattern[0] {
        '?' => (slash == Slash::Counts || c != '/').then_some(1),
        '\\' => pattern.get(1).filter(|&&e| e == c).map(|_| 2),
        '[' => {
            let mut at = 1;
            let negated = matches!(pattern.get(at), Some('^' | '!'));
            at += usize::from(negated);
            let mut found = false;
            let mut first = true;
            loop {
                let low = match pattern.get(at)? {
                    ']' if !first => break,
                    '\\' => {
                        at += 1;
                        *pattern.get(at)?
                    }
                    &low => low,
                };
                at += 1;
                first = false;
                let high = match (pattern.get(at), pattern.get(at + 1)) {
                    (Some('-'), Some(&high)) if high != ']' => {
                        at += 2;
                        high
                    }
                    _ => low,
                };
                found |= (low..=high).contains(&c);
            }
            (found != negated && (slash == Slash::Counts || c != '/')).then_some(at + 1)
        }
        literal => (literal == c).then_some(1),
    }
}

/// The patterns of a `.dockerignore`, in order: the last one that fits decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    parts: Vec<String>,
    /// `!`: what was left out comes back.
    exception: bool,
}

impl Ignore {
    pub(crate) fn read(text: &str) -> Self {
        let mut rules = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let mut parts: Vec<String> = Vec::new();
            for part in pattern.split('/') {
                match part {
                    "" | "." => {}
                    ".." => {
                        parts.pop();
                    }
                    part => parts.push(part.to_owned()),
                }
            }
            if !parts.is_empty() {
                rules.push(Rule { parts, exception });
            }
        }
        Self { rules }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a path, relative to the context, is left out: a rule fits it or a directory that it is in.
    pub(crate) fn excludes(&self, path: &Path) -> bool {
        let names: Vec<String> = path.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        let mut excluded = false;
        for rule in &self.rules {
            // a rule that would change nothing need not be tried
            if rule.exception == excluded && (1..=names.len()).any(|n| fits_parts(&rule.parts, &names[..n])) {
                excluded = !rule.exception;
            }
        }
        excluded
    }
}

fn fits_parts(pattern: &[String], names: &[String]) -> bool {
    match pattern.split_first() {
        None => names.is_empty(),
        Some((first, rest)) if first == "**" => {
            // at the end, `**` is everything inside, and with nothing before it, the directory itself too
            if rest.is_empty() { !names.is_empty() } else { (0..=names.len()).any(|n| fits_parts(rest, &names[n..])) }
        }
        Some((first, rest)) => match names.split_first() {
            Some((name, others)) => matches(first, name) && fits_parts(rest, others),
            None => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        for (pattern, name, expected) in [
            ("*", "abc", true),
            ("*", "a/b", false),
            ("a*c", "abbc", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("*.go", "x.go", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("a*/b", "axx/b", true),
            ("[", "[", false),
            ("", "", true),
            ("a", "", false),
            ("busy*:1.*", "busybox:1.36", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(wildcard("*/", "/usr/local/"));
    }

    #[test]
    fn dockerignore_is_read_as_docker_reads_it() {
        let check = |rules: &str, path: &str, excluded: bool| {
            assert_eq!(Ignore::read(rules).excludes(Path::new(path)), excluded, "{rules:?} {path}");
        };
        check("", "a", false);
        check("# comment\n\n  a  \n", "a", true);
        check("a", "b/a", false);
        check("/a", "a", true);
        check("./a/", "a/b/c", true);
        check("*/temp*", "dir/temporary.txt", true);
        check("*/temp*", "temporary.txt", false);
        check("*/*/temp*", "a/b/temp", true);
        check("temp?", "tempa", true);
        check("**/*.go", "a.go", true);
        check("**/*.go", "x/y/a.go", true);
        check("a/**", "a/b", true);
        check("a/**/b", "a/x/y/b", true);
        check("a/**/b", "a/b", true);
        check("*.md\n!README.md", "README.md", false);
        check("*.md\n!README.md", "OTHER.md", true);
        check("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true);
        check("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false);
        check("*\n!src", "src/main.rs", false);
        check("*\n!src/main.rs", "src/other.rs", true);
        check("*\n!src/main.rs", "src/main.rs", false);
        check("a/../b", "b", true);
    }
}
