//! What the daemon tells while it pulls, loads and builds: bars on a terminal, plain lines elsewhere, as Docker's
//! client shows them.

use crate::client::connection::Values;
use crate::client::output::Exit;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Stdout,
    Stderr,
    /// Only errors count.
    Nowhere,
}

impl To {
    fn write(self, text: &str) -> std::io::Result<()> {
        match self {
            To::Stdout => std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()),
            To::Stderr => std::io::stderr().write_all(text.as_bytes()),
            To::Nowhere => Ok(()),
        }
    }
    fn is_terminal(self) -> bool {
        match self {
            To::Stdout => crate::client::terminal::stdout_is_terminal(),
            To::Stderr => crate::client::terminal::stderr_is_terminal(),
            To::Nowhere => false,
        }
    }
}

/// Shows everything that comes; `aux` gets what is meant for programs.
///
/// # Errors
/// The daemon tells of an error.
pub async fn show(mut values: Values, to: To, mut aux: impl FnMut(&Value)) -> anyhow::Result<()> {
    let mut bars = to.is_terminal().then(|| Bars::new(to));
    while let Some(value) = values.next().await? {
        if !value["aux"].is_null() {
            aux(&value["aux"]);
            continue;
        }
        if let Some(message) = value["errorDetail"]["message"].as_str().or(value["error"].as_str()) {
            let code = value["errorDetail"]["code"].as_u64().and_then(|c| u8::try_from(c).ok()).filter(|c| *c != 0);
            return Err(Exit::new(code.unwrap_or(1), message).into());
        }
        match &mut bars {
            Some(bars) => bars.take(&value),
            None => to.write(&plain(&value))?,
        }
    }
    Ok(())
}

/// A line without a terminal: movements of bars are left out.
fn plain(value: &Value) -> String {
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    if !text("stream").is_empty() {
        return text("stream").to_owned();
    }
    if value["progressDetail"]["current"].as_i64().is_some_and(|c| c > 0) || text("status").is_empty() {
        return String::new();
    }
    match text("id") {
        "" => format!("{}\n", text("status")),
        id => format!("{id}: {}\n", text("status")),
    }
}

/// One line a layer.
struct Bars {
    all: MultiProgress,
    layers: BTreeMap<String, ProgressBar>,
    /// What is said without a layer while there are bars: it is shown below them.
    after: Vec<String>,
}

impl Bars {
    fn new(to: To) -> Self {
        let target = if to == To::Stdout { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::stderr() };
        Self { all: MultiProgress::with_draw_target(target), layers: BTreeMap::new(), after: Vec::new() }
    }

    fn take(&mut self, value: &Value) {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (id, status) = (text("id"), text("status"));
        if !text("stream").is_empty() {
            let _ = self.all.println(text("stream").trim_end_matches('\n'));
            return;
        }
        if id.is_empty() || status.starts_with("Pulling from") {
            let line = if id.is_empty() { status } else { format!("{id}: {status}") };
            if self.layers.is_empty() {
                let _ = self.all.println(line);
            } else {
                self.after.push(line);
            }
            return;
        }
        let bar = self.layers.entry(id.clone()).or_insert_with(|| self.all.add(ProgressBar::no_length()));
        let detail = &value["progressDetail"];
        let (current, total) = (detail["current"].as_u64(), detail["total"].as_u64());
        let template = match (current, total) {
            (Some(_), Some(_)) => "{prefix}: {msg} [{bar:40.}] {bytes}/{total_bytes}",
            (Some(_), None) => "{prefix}: {msg} {bytes}",
            _ => "{prefix}: {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(id);
        bar.set_message(status.clone());
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(current.unwrap_or_default());
        if status.ends_with("complete") || status == "Already exists" {
            bar.abandon();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // What was shown stays, as a record of what happened.
        self.layers.values().for_each(ProgressBar::abandon);
        for line in self.after.drain(..) {
            let bar = self.all.add(ProgressBar::no_length());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar.set_message(line);
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_said_at_the_end_stands_below_the_bars() {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let mut bars = Bars { all, layers: BTreeMap::new(), after: Vec::new() };
        bars.take(&json!({ "status": "Pulling from library/x", "id": "latest" }));
        assert!(bars.after.is_empty(), "the head stands above them");
        bars.take(&json!({ "status": "Pull complete", "id": "a" }));
        bars.take(&json!({ "status": "Digest: sha256:1" }));
        bars.take(&json!({ "status": "Status: Downloaded newer image for x:latest" }));
        assert_eq!(bars.after, ["Digest: sha256:1", "Status: Downloaded newer image for x:latest"]);
    }

    #[test]
    fn without_a_terminal_only_what_happened_is_shown() {
        for (value, expected) in [
            (json!({ "status": "Pulling from library/x", "id": "latest" }), "latest: Pulling from library/x\n"),
            (json!({ "status": "Downloading", "id": "a", "progressDetail": { "current": 1, "total": 9 } }), ""),
            (json!({ "status": "Download complete", "id": "a", "progressDetail": {} }), "a: Download complete\n"),
            (json!({ "status": "Digest: sha256:1" }), "Digest: sha256:1\n"),
            (json!({ "stream": "Step 1/2 : FROM x\n" }), "Step 1/2 : FROM x\n"),
            (json!({}), ""),
        ] {
            assert_eq!(plain(&value), expected, "{value}");
        }
    }
}
