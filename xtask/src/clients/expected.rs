//! docs/clients.md: which tests of the suites fail, and why; and how many there are.

use super::suites::Suite;
use super::{Outcome, Outcomes};
use anyhow::Context;
use std::fmt::Write;
use std::path::Path;

const FILE: &str = "docs/clients.md";
/// The lines around the counts.
const BEGIN: &str = "<!-- counts: written by cargo xtask test clients -->";
const END: &str = "<!-- end of counts -->";

/// The failures that are known: rows `| suite | test | reason |`. A test that ends with `*` stands for all that begin so.
pub struct Expected {
    rows: Vec<[String; 3]>,
}

impl Expected {
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root.join(FILE)).context(FILE)?;
        let mut rows = Vec::new();
        for line in text.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [suite, test, reason] = cells.as_slice()
                && let Some(test) = test.strip_prefix('`').and_then(|t| t.strip_suffix('`'))
            {
                rows.push([(*suite).to_owned(), test.to_owned(), (*reason).to_owned()]);
            }
        }
        Ok(Self { rows })
    }

    pub fn reason(&self, suite: &str, test: &str) -> Option<&str> {
        let is_meant = |pattern: &str| match pattern.strip_suffix('*') {
            Some(beginning) => test.starts_with(beginning),
            None => test == pattern,
        };
        self.rows.iter().find(|[s, pattern, _]| s == suite && is_meant(pattern)).map(|[_, _, reason]| reason.as_str())
    }
}

/// Writes the table of counts into the file.
pub fn write_counts(root: &Path, rows: &[(&Suite, Outcomes)]) -> anyhow::Result<()> {
    let path = root.join(FILE);
    let text = std::fs::read_to_string(&path).context(FILE)?;
    let (before, rest) = text.split_once(BEGIN).context("docs/clients.md: no place for the counts")?;
    let (_, after) = rest.split_once(END).context("docs/clients.md: no end of the counts")?;
    let mut table = "| suite | what | passed | failed | skipped |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for (suite, outcomes) in rows {
        let count = |wanted: Outcome| outcomes.values().filter(|o| **o == wanted).count();
        let (passed, failed, skipped) = (count(Outcome::Passed), count(Outcome::Failed), count(Outcome::Skipped));
        writeln!(table, "| {} | {} | {passed} | {failed} | {skipped} |", suite.name, suite.what)?;
    }
    std::fs::write(&path, format!("{before}{BEGIN}\n{table}{END}{after}")).context(FILE)
}
