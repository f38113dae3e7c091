//! `login` and `logout`: the daemon asks the registry, the client keeps the account.

use super::App;
use crate::client::credentials::{Account, Credentials, server_named};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, say, warn};
use crate::client::terminal;
use std::io::{Read, Write};

/// `login`.
///
/// # Errors
/// The registry does not take the account, or there is nobody to ask for it.
pub async fn log_in(app: App, p: Parsed) -> anyhow::Result<u8> {
    let server = server_named(p.args.first().map_or("", String::as_str));
    let mut credentials = Credentials::read()?;
    let mut account = Account {
        username: p.text("username").to_owned(),
        password: p.text("password").to_owned(),
        serveraddress: server.clone(),
        ..Account::default()
    };
    if p.on("password-stdin") {
        if p.given("password") {
            return Err(Exit::new(1, "--password and --password-stdin are mutually exclusive").into());
        }
        if account.username.is_empty() {
            return Err(Exit::new(1, "Must provide --username with --password-stdin").into());
        }
        std::io::stdin().read_to_string(&mut account.password)?;
        account.password = account.password.trim_end_matches(['\n', '\r']).to_owned();
    } else if p.given("password") {
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if account.username.is_empty()
        && account.password.is_empty()
        && let Some(kept) = credentials.get(&server)?
    {
        say(format_args!("Authenticating with existing credentials... [Username: {}]", kept.username))?;
        account = kept;
    }
    ask_for_the_rest(&mut account)?;
    let answer = app.client.post_json("/auth", &serde_json::to_value(&account)?).await?;
    if let Some(token) = answer["IdentityToken"].as_str().filter(|t| !t.is_empty()) {
        account.identitytoken = token.to_owned();
    }
    credentials.put(&account)?;
    if credentials.is_plain(&server) {
        warn(format_args!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning.\n",
            credentials.path().display()
        ));
    }
    say(answer["Status"].as_str().unwrap_or("Login Succeeded"))?;
    Ok(0)
}

/// What was not said is asked for, at a terminal.
fn ask_for_the_rest(account: &mut Account) -> anyhow::Result<()> {
    if !account.identitytoken.is_empty() || (!account.username.is_empty() && !account.password.is_empty()) {
        return Ok(());
    }
    if !terminal::stdin_is_terminal() {
        return Err(Exit::new(1, "Error: Cannot perform an interactive login from a non TTY device").into());
    }
    let ask = |prompt: &str| -> anyhow::Result<String> {
        let mut out = std::io::stdout();
        out.write_all(prompt.as_bytes())?;
        out.flush()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    };
    if account.username.is_empty() {
        account.username = ask("Username: ")?;
    }
    let quiet = terminal::Silent::new()?;
    account.password = ask("Password: ")?;
    drop(quiet);
    say("")?;
    if account.username.is_empty() || account.password.is_empty() {
        return Err(Exit::new(1, "Error: username and password are required").into());
    }
    Ok(())
}

/// `logout`.
///
/// # Errors
/// The account cannot be forgotten.
pub async fn log_out(p: Parsed) -> anyhow::Result<u8> {
    let server = server_named(p.args.first().map_or("", String::as_str));
    say(format_args!("Removing login credentials for {server}"))?;
    Credentials::read()?.remove(&server)?;
    Ok(0)
}
