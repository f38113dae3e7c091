//! What commands say, and how they fail.

use futures_util::StreamExt;
use std::fmt::{Display, Write as _};
use std::io::Write as _;

/// A failure that decides the program's exit status; without words where everything has been said.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Exit {
    pub code: u8,
    pub message: String,
}

impl Exit {
    /// A status alone.
    pub fn code(code: u8) -> Self {
        Self { code, message: String::new() }
    }
    /// A status and why.
    pub fn new(code: u8, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

/// Writes to standard output. A reader that has gone away ends the program quietly, as it ends other programs.
///
/// # Errors
/// Standard output is closed.
pub fn print(text: impl Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.to_string().as_bytes()).and_then(|()| out.flush());
    written.map_err(|_| Exit::code(141).into())
}

/// A line on standard output.
///
/// # Errors
/// Standard output is closed.
pub fn say(text: impl Display) -> anyhow::Result<()> {
    print(format_args!("{text}\n"))
}

/// A line on standard error; errors of the system in Go's words.
pub fn warn(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", model::errno::in_gos_words(&text.to_string()));
}

/// An error of the system as Go words it: lower case, without its number.
pub fn go_error(error: &std::io::Error) -> String {
    model::errno::in_gos_words(&error.to_string()).into_owned()
}

/// As many are under way at once: docker's number.
const AT_ONCE: usize = 50;

/// Does something to each of many, many at once, says the names of those that it worked for in their order, and fails with
/// all errors at the end.
///
/// # Errors
/// It did not work for some.
pub async fn each<F>(names: &[String], mut act: impl FnMut(String) -> F) -> anyhow::Result<u8>
where
    F: Future<Output = anyhow::Result<()>>,
{
    each_that_counts(names, |name| {
        let done = act(name);
        async { done.await.map(|()| true) }
    })
    .await
}

/// The same, where `false` says that there was nothing to do: its name is not said.
///
/// # Errors
/// It did not work for some.
pub async fn each_that_counts<F>(names: &[String], mut act: impl FnMut(String) -> F) -> anyhow::Result<u8>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let mut errors = String::new();
    let acts = names.iter().map(|name| {
        let done = act(name.clone());
        async move { (name, done.await) }
    });
    let mut done = futures_util::stream::iter(acts).buffered(AT_ONCE);
    while let Some((name, done)) = done.next().await {
        match done {
            Ok(true) => say(name)?,
            Ok(false) => {}
            Err(e) => {
                let _ = writeln!(errors, "{e:#}");
            }
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(Exit::new(1, errors.trim_end()).into()) }
}

/// Asks before something is taken away; `yes` answers for the person.
///
/// # Errors
/// Standard output is closed.
pub fn confirm(warning: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    print(format_args!("WARNING! {warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
