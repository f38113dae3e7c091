//! `context`: there is one, `default`, which is the daemon that the command line and the environment mean. Tools that
//! ask which daemon docker would talk to get an answer.

use super::{App, inspect};
use crate::client::format::{List, Row};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, say, warn};
use serde_json::{Value, json};

const NAME: &str = "default";

const CONTEXTS: List = List {
    headers: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
    ],
    table: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    quiet: "{{.Name}}",
    raw: "",
};

/// `context ls`.
///
/// # Errors
/// The format is wrong.
pub fn list(app: &App, p: &Parsed) -> anyhow::Result<u8> {
    let row = Row::new("*formatter.contextContext")
        .with("Name", NAME)
        .with("Description", "Current DOCKER_HOST based configuration")
        .with("DockerEndpoint", app.client.host())
        .with("Error", "")
        .with_value("Current", crate::client::template::Value::raw(&Value::Bool(true)));
    CONTEXTS.show(vec![row], p.text("format"), p.on("quiet"))?;
    Ok(0)
}

/// `context show`.
///
/// # Errors
/// Standard output is closed.
pub fn show() -> anyhow::Result<u8> {
    say(NAME)?;
    Ok(0)
}

/// `context use`.
///
/// # Errors
/// It is another one.
pub fn choose(p: &Parsed) -> anyhow::Result<u8> {
    known(&p.args[0])?;
    say(NAME)?;
    warn(format_args!("Current context is now \"{NAME}\""));
    Ok(0)
}

/// `context inspect`.
///
/// # Errors
/// It is another one, or the format is wrong.
pub fn look(app: &App, p: &Parsed) -> anyhow::Result<u8> {
    p.args.iter().try_for_each(|name| known(name))?;
    let endpoint = json!({ "Host": app.client.host(), "SkipTLSVerify": false });
    let shown = json!({ "Name": NAME, "Metadata": {}, "Endpoints": { "docker": endpoint }, "TLSMaterial": {} });
    inspect::shown(&[shown], p.text("format"))?;
    Ok(0)
}

fn known(name: &str) -> anyhow::Result<()> {
    if name == NAME {
        return Ok(());
    }
    let said =
        format!("context \"{name}\": context not found: there is one, \"{NAME}\"; -H and DOCKER_HOST name daemons");
    Err(Exit::new(1, said).into())
}
