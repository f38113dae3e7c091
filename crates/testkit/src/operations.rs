//! The operations of Docker's Engine API, `docs/engine-api.md`: each with the tests that ask for it.
//!
//! A test asks for an operation when its source has the path in a literal, behind the method or behind the function of
//! [`crate::Lab`] that stands for it: `lab.get("/networks")`, `"PUT /volumes/a"`. What a
//! test's helpers ask for counts for their file.

use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Who asks with which method, as sources write it.
const CALLERS: [(&str, &str); 15] = [
    ("get(", "GET"),
    ("get::<", "GET"),
    ("shown(", "GET"),
    ("delete(", "DELETE"),
    ("remove(", "DELETE"),
    ("post(", "POST"),
    ("post_bytes(", "POST"),
    ("ask(", "POST"),
    ("tell(", "POST"),
    ("open(", "POST"),
    ("prune(", "POST"),
    ("dial(", "POST"),
    ("\"PUT\"", "PUT"),
    ("\"HEAD\"", "HEAD"),
    ("\"GET\"", "GET"),
];

/// The operations that the document lists, as `GET /networks/{id}`.
///
/// # Errors
/// It cannot be read.
pub fn listed(root: &Path) -> anyhow::Result<Vec<String>> {
    Ok(document(root)?.lines().filter_map(|line| row(line).map(|(operation, _)| operation.to_owned())).collect())
}

/// The document as it shall be: what is in it, with the tests that the sources have now.
///
/// # Errors
/// A file cannot be read, or no test asks for an operation.
pub fn render(root: &Path) -> anyhow::Result<String> {
    let text = document(root)?;
    let asked = asked(&root.join("crates"))?;
    let (mut lines, mut missing) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Some((operation, since)) = row(line) else {
            lines.push(line.to_owned());
            continue;
        };
        let tests: BTreeSet<_> =
            asked.iter().filter(|((method, path), _)| is(operation, method, path)).flat_map(|(_, t)| t).collect();
        if tests.is_empty() {
            missing.push(operation);
            continue;
        }
        let shown: Vec<_> = tests.iter().take(SHOWN).map(|test| format!("`{test}`")).collect();
        lines.push(format!("| `{operation}` | {since} | {} |", shown.join("<br>")));
    }
    if !missing.is_empty() {
        bail!("no test asks for {}", missing.join(", "));
    }
    Ok(lines.join("\n") + "\n")
}

/// So many tests are named; there may be more.
const SHOWN: usize = 3;

fn document(root: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(root.join("docs/engine-api.md")).context("docs/engine-api.md")
}

/// The operation of a line of the table, and since when there is one.
fn row(line: &str) -> Option<(&str, &str)> {
    let (operation, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
    Some((operation, rest.split(" | ").next()?))
}

/// Whether a request is one for an operation: each word in braces stands for one part of the path.
fn is(operation: &str, method: &str, path: &str) -> bool {
    let Some((its_method, template)) = operation.split_once(' ') else { return false };
    let (wanted, asked): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let stands_for = |w: &str, a: &str| w == a || w.starts_with('{') && !RESERVED.contains(&(wanted[1], a));
    its_method == method && wanted.len() == asked.len() && wanted.iter().zip(&asked).all(|(w, a)| stands_for(w, a))
}

/// Words that stand where an id could: they are operations of their own.
const RESERVED: [(&str, &str); 17] = [
    ("containers", "json"),
    ("containers", "create"),
    ("containers", "prune"),
    ("images", "json"),
    ("images", "create"),
    ("images", "get"),
    ("images", "load"),
    ("images", "prune"),
    ("images", "search"),
    ("networks", "create"),
    ("networks", "prune"),
    ("volumes", "create"),
    ("volumes", "prune"),
    ("plugins", "privileges"),
    ("services", "create"),
    ("secrets", "create"),
    ("configs", "create"),
];

type Asked = BTreeMap<(String, String), BTreeSet<String>>;

/// Every request that a test's source names, with the tests.
fn asked(directory: &Path) -> anyhow::Result<Asked> {
    let mut asked = Asked::new();
    for path in crate::rows::sources(directory)? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        if path.components().all(|part| part.as_os_str() != "tests") {
            continue;
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut is_test = false;
        let mut asker = file.clone();
        let mut statement = String::new();
        for line in text.lines() {
            let words = line.trim_start();
            if words.starts_with("#[test]") || words.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(name) = words.strip_prefix("async ").unwrap_or(words).strip_prefix("fn ") {
                let name = name.split(['(', '<']).next().unwrap_or_default();
                asker = if std::mem::take(&mut is_test) { name.to_owned() } else { file.clone() };
                statement.clear();
            }
            statement.push_str(words);
            for request in requests(&statement) {
                asked.entry(request).or_default().insert(asker.clone());
            }
            if words.ends_with([';', '{', '}']) {
                statement.clear();
            }
        }
    }
    Ok(asked)
}

/// The requests that a statement names.
fn requests(statement: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut before = 0;
    for (at, _) in statement.match_indices('"') {
        let literal = &statement[at + 1..];
        let Some(path_at) = literal.find('/').filter(|p| *p <= "DELETE ".len()) else { continue };
        let path: String = literal[path_at..].chars().take_while(|c| !['"', '?', ' ', '\\'].contains(c)).collect();
        let method = literal[..path_at].trim_end();
        if ["GET", "HEAD", "POST", "PUT", "DELETE"].contains(&method) {
            found.push((method.to_owned(), path));
        } else if method.is_empty() {
            let lead = &statement[before..at];
            let caller = CALLERS
                .iter()
                .filter_map(|(caller, method)| lead.rfind(caller).map(|at| (at, caller.len(), *method)))
                .max();
            if let Some((_, _, method)) = caller {
                found.push((method.to_owned(), path));
            }
        } else {
            continue;
        }
        before = at;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_what_it_asks_for() {
        let check = |statement: &str, expected: &[(&str, &str)]| {
            let found = requests(statement);
            let found: Vec<_> = found.iter().map(|(m, p)| (m.as_str(), p.as_str())).collect();
            assert_eq!(found, expected, "{statement}");
        };
        check(r#"lab.ask("/containers/a/start", 204);"#, &[("POST", "/containers/a/start")]);
        check(r#"get::<Summary>(&lab, "/containers/json?all=1&size=1");"#, &[("GET", "/containers/json")]);
        check(r#"lab.delete(&format!("/networks/{id}")).unwrap();"#, &[("DELETE", "/networks/{id}")]);
        check(r#"raw("HEAD /_ping HTTP/1.1\r\n")"#, &[("HEAD", "/_ping")]);
        check(r#"let path = "/containers/a/start";"#, &[]);
    }

    #[test]
    fn a_request_is_one_operation_s() {
        assert!(is("GET /networks/{id}", "GET", "/networks/front"));
        assert!(!is("GET /networks/{id}", "GET", "/networks"));
        assert!(!is("DELETE /networks/{id}", "GET", "/networks/front"));
        assert!(!is("POST /networks/{id}", "POST", "/networks/prune"));
    }
}
