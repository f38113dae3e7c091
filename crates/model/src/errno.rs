//! Errors in the words that Docker's tools look for: the machine's as Go prints them, and several in one.

use std::borrow::Cow;
use std::io;

/// All that is wrong with something, in one text: a line each, with a mark where there are several.
pub fn all(wrong: &[String]) -> String {
    match wrong {
        [one] => one.clone(),
        all => all.iter().map(|w| format!("* {w}")).collect::<Vec<_>>().join("\n"),
    }
}

/// A text with every error of the system in it as Go words it, in lower case and without its number: docker makes its
/// exit status 127 of `no such file or directory`, and of nothing else.
pub fn in_gos_words(text: &str) -> Cow<'_, str> {
    const MARK: &str = " (os error ";
    let mut text = Cow::Borrowed(text);
    let mut from = 0;
    while let Some(found) = text.get(from..).and_then(|rest| rest.find(MARK)) {
        let at = from + found;
        from = at + 1;
        let Some((digits, _)) = text[at + MARK.len()..].split_once(')') else { break };
        let Ok(number) = digits.parse::<i32>() else { continue };
        let said = io::Error::from_raw_os_error(number).to_string();
        let words = said.split(MARK).next().unwrap_or_default();
        let end = at + MARK.len() + digits.len() + 1;
        if text[..at].ends_with(words) {
            let start = at - words.len();
            let gos = lowered(words);
            text = Cow::Owned(format!("{}{gos}{}", &text[..start], &text[end..]));
            from = start + gos.len();
        }
    }
    text
}

/// With a small letter at its beginning, unless that is the first of an abbreviation.
fn lowered(words: &str) -> String {
    let mut chars = words.chars();
    match (chars.next(), words.chars().nth(1)) {
        (Some(_), Some(second)) if second.is_uppercase() => words.to_owned(),
        (Some(first), _) => first.to_lowercase().chain(chars).collect(),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_worded_as_go_words_them() {
        for (said, words) in [
            ("stat /dev/nosuch: No such file or directory (os error 2)", "stat /dev/nosuch: no such file or directory"),
            (
                "Permission denied (os error 13), then: Is a directory (os error 21): é",
                "permission denied, then: is a directory: é",
            ),
            ("RFS specific error (os error 73)", "RFS specific error"),
            ("somebody's own words (os error 2)", "somebody's own words (os error 2)"),
            ("cut (os error 2", "cut (os error 2"),
            ("no number (os error x)", "no number (os error x)"),
            ("No such image: x", "No such image: x"),
        ] {
            assert_eq!(in_gos_words(said), words);
        }
    }
}
