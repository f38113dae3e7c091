//! The checklist of what users expect of networks, `docs/networking.md`: each row with the tests that show it, by their
//! names (`fn dns_05_…` shows DNS-05, `fn dns_07_08_…` DNS-07 and DNS-08), or with the reason why there is none.

use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 12] = ["api", "cmp", "br", "dr", "ip", "dns", "pt", "sec", "v6", "lc", "ob", "mh"];

/// The document as it shall be: what is in it, with the tests that the sources have now.
///
/// # Errors
/// A file cannot be read, a row has neither a test nor a reason, or a test is named after a row that is not there.
pub fn render(root: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(root.join("docs/networking.md")).context("docs/networking.md")?;
    let mut tests = BTreeMap::new();
    collect(&root.join("crates"), &mut tests)?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [id, title, shown] = cells.as_slice() else {
            lines.push(line.to_owned());
            continue;
        };
        let id = id.trim_start_matches("| ");
        let reason = shown.trim_end_matches('|').trim();
        match tests.remove(id) {
            Some(names) => lines.push(format!("| {id} | {title} | {} |", list(&names))),
            None if !id.contains('-') || !id.ends_with(|c: char| c.is_ascii_digit()) => lines.push(line.to_owned()),
            None if reason.is_empty() || reason.starts_with('`') => bail!("{id} has neither a test nor a reason"),
            None => lines.push(line.to_owned()),
        }
    }
    if let Some((id, names)) = tests.first_key_value() {
        bail!("{names:?} are named after {id}, which is no row of docs/networking.md");
    }
    Ok(lines.join("\n") + "\n")
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join("<br>")
}

/// All functions of the sources that are named after a row.
fn collect(directory: &Path, tests: &mut BTreeMap<String, BTreeSet<String>>) -> anyhow::Result<()> {
    for path in sources(directory)? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        for line in text.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("async ").unwrap_or(line);
            let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) else { continue };
            for id in ids(name) {
                tests.entry(id).or_default().insert(name.to_owned());
            }
        }
    }
    Ok(())
}

/// The Rust sources below a directory.
///
/// # Errors
/// A directory cannot be read.
pub fn sources(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("{}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The rows that a function is named after.
fn ids(name: &str) -> Vec<String> {
    let mut words = name.split('_');
    let family = words.next().filter(|f| FAMILIES.contains(f)).map(str::to_uppercase);
    let is_number = |word: &&str| word.len() == 2 && word.bytes().all(|b| b.is_ascii_digit());
    family.map_or_else(Vec::new, |family| words.take_while(is_number).map(|n| format!("{family}-{n}")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_test_names_the_rows_that_it_shows() {
        let check = |name: &str, expected: &[&str]| assert_eq!(super::ids(name), expected, "{name}");
        check("dns_07_08_19_all", &["DNS-07", "DNS-08", "DNS-19"]);
        check("br_01_is_172_17", &["BR-01"]);
        check("ip_address", &[]);
        check("main", &[]);
    }
}
