//! Who we are to registries: docker's configuration file, and the credential helpers that it names.
//!
//! `config.json` lies in `$DOCKER_CONFIG` or `~/.docker`. Of its contents this file reads and writes `auths`, `credsStore`
//! and `credHelpers`, and leaves the rest as it is.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the file calls Docker's own registry.
pub const DEFAULT_SERVER: &str = "https://index.docker.io/v1/";
/// A helper's name for "the secret is an identity token".
const TOKEN: &str = "<token>";

/// What a registry is told, in the fields of `X-Registry-Auth`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
}

impl Account {
    /// As a header's value.
    pub fn header(&self) -> String {
        URL_SAFE.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// The configuration file.
pub struct Credentials {
    path: PathBuf,
    file: Map<String, Value>,
}

/// What a helper says: the protocol of docker-credential-helpers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    username: String,
    secret: String,
}

/// Where docker's client keeps what it knows: `DOCKER_CONFIG`, or `~/.docker`.
pub fn directory() -> PathBuf {
    match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => Path::new(&std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".docker"),
    }
}

impl Credentials {
    /// # Errors
    /// There is a file, and it cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        Self::read_from(directory().join("config.json"))
    }

    /// The same for who can do without: what is wrong with the file is told, and there are no accounts.
    pub fn read_or_warn() -> Self {
        Self::read().unwrap_or_else(|e| {
            crate::client::output::warn(format_args!("WARNING: {e:#}"));
            Self { path: PathBuf::new(), file: Map::new() }
        })
    }

    fn read_from(path: PathBuf) -> anyhow::Result<Self> {
        let file = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("Error parsing config file ({})", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(e).with_context(|| format!("Error loading config file ({})", path.display())),
        };
        Ok(Self { path, file })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The program that keeps a server's account, if one does.
    fn helper(&self, server: &str) -> Option<&str> {
        let own = self.file.get("credHelpers").and_then(|h| h.get(server).or_else(|| h.get(host_of(server))));
        let helper = own.or_else(|| self.file.get("credsStore")).and_then(Value::as_str);
        helper.filter(|h| !h.is_empty())
    }

    /// Whether accounts end up in the file, readable to who can read it.
    pub fn is_plain(&self, server: &str) -> bool {
        self.helper(server).is_none()
    }

    /// The account at a server, if there is one.
    ///
    /// # Errors
    /// A helper fails, or the file says nothing that can be read.
    pub fn get(&self, server: &str) -> anyhow::Result<Option<Account>> {
        if let Some(helper) = self.helper(server) {
            return ask(helper, server);
        }
        let Some(auths) = self.file.get("auths").and_then(Value::as_object) else { return Ok(None) };
        let of_host = || auths.iter().find(|(name, _)| host_of(name) == host_of(server)).map(|(_, entry)| entry);
        let Some(entry) = auths.get(server).or_else(of_host) else { return Ok(None) };
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let mut account = Account {
            username: text("username"),
            password: text("password"),
            identitytoken: text("identitytoken"),
            serveraddress: server.to_owned(),
        };
        let encoded = text("auth");
        if !encoded.is_empty() {
            let unreadable = || format!("the credentials of {server} in {} cannot be read", self.path.display());
            let pair =
                STANDARD.decode(encoded).ok().and_then(|b| String::from_utf8(b).ok()).with_context(unreadable)?;
            let (username, password) = pair.split_once(':').with_context(unreadable)?;
            (account.username, account.password) = (username.into(), password.trim_end_matches('\0').into());
        }
        Ok(Some(account).filter(|a| !a.username.is_empty() || !a.identitytoken.is_empty()))
    }

    /// All accounts, by server: for a build, whose images nobody knows yet. A helper that fails is left out.
    pub fn all(&self) -> BTreeMap<String, Account> {
        let names = ["auths", "credHelpers"].into_iter().filter_map(|n| self.file.get(n)?.as_object());
        let mut servers: Vec<String> = names.flat_map(|m| m.keys().cloned()).collect();
        if let Some(store) = self.file.get("credsStore").and_then(Value::as_str).filter(|s| !s.is_empty()) {
            let listed =
                run(store, "list", "").ok().and_then(|b| serde_json::from_slice::<Map<String, Value>>(&b).ok());
            servers.extend(listed.into_iter().flat_map(|m| m.into_iter().map(|(server, _)| server)));
        }
        servers.into_iter().filter_map(|s| Some((s.clone(), self.get(&s).ok()??))).collect()
    }

    /// Keeps an account.
    ///
    /// # Errors
    /// A helper fails, or the file cannot be written.
    pub fn put(&mut self, account: &Account) -> anyhow::Result<()> {
        let server = &account.serveraddress;
        if let Some(helper) = self.helper(server).map(str::to_owned) {
            let told = json!({ "ServerURL": server, "Username": account.username, "Secret": account.password });
            run(&helper, "store", &told.to_string())?;
            // That there is one is in the file all the same, as docker has it.
            self.auths().insert(server.clone(), json!({}));
            return self.write();
        }
        let encoded = STANDARD.encode(format!("{}:{}", account.username, account.password));
        self.auths().insert(server.clone(), json!({ "auth": encoded }));
        self.write()
    }

    /// Forgets the account at a server, if there is one.
    ///
    /// # Errors
    /// A helper fails, or the file cannot be written.
    pub fn remove(&mut self, server: &str) -> anyhow::Result<()> {
        if let Some(helper) = self.helper(server).map(str::to_owned) {
            run(&helper, "erase", server)?;
        }
        if self.auths().remove(server).is_some() {
            self.write()?;
        }
        Ok(())
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.file.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths.as_object_mut().expect("an object")
    }

    /// Replaces the file as a whole; nobody else can read it.
    fn write(&self) -> anyhow::Result<()> {
        // A link stays one: what it leads to is replaced.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = target.parent().context("the configuration file is in no directory")?;
        let attempt = || format!("cannot write {}", self.path.display());
        std::fs::create_dir_all(directory).with_context(attempt)?;
        let fresh = target.with_extension(format!("json.{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh).with_context(attempt)?;
        // Indented as docker does it.
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut text = Vec::new();
        self.file.serialize(&mut serde_json::Serializer::with_formatter(&mut text, format))?;
        out.write_all(&text).with_context(attempt)?;
        std::fs::rename(&fresh, &target).with_context(attempt)
    }
}

/// The server whose account an image's registry wants; `reference` is any image's name.
///
/// # Errors
/// It is no image's name.
pub fn server_of(reference: &str) -> anyhow::Result<String> {
    let reference: model::reference::Reference = reference.parse().map_err(anyhow::Error::new)?;
    Ok(match reference.registry() {
        model::reference::DEFAULT_REGISTRY => DEFAULT_SERVER.to_owned(),
        registry => registry.to_owned(),
    })
}

/// What `login` and `logout` are told, as the file has it: a host, or Docker's own registry.
pub fn server_named(text: &str) -> String {
    match host_of(text) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_SERVER.to_owned(),
        host => host.to_owned(),
    }
}

/// `https://host:port/v1/` without all but the host and the port.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn ask(helper: &str, server: &str) -> anyhow::Result<Option<Account>> {
    let said = match run(helper, "get", server) {
        Ok(said) => said,
        Err(e) if e.to_string().contains("credentials not found") => return Ok(None),
        Err(e) => return Err(e),
    };
    let told: Told =
        serde_json::from_slice(&said).with_context(|| format!("cannot read what docker-credential-{helper} says"))?;
    let mut account = Account { serveraddress: server.to_owned(), ..Account::default() };
    if told.username == TOKEN {
        account.identitytoken = told.secret;
    } else {
        (account.username, account.password) = (told.username, told.secret);
    }
    Ok(Some(account))
}

/// How long a helper may think: somebody may be typing a password into it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a helper; what it says on its output.
fn run(helper: &str, verb: &str, input: &str) -> anyhow::Result<Vec<u8>> {
    run_within(&format!("docker-credential-{helper}"), verb, input, PATIENCE)
}

fn run_within(program: &str, verb: &str, input: &str, limit: Duration) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new(program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    // One that does not want to know has gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let mut stdout = child.stdout.take().context("a pipe")?;
    let (telling, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let read = stdout.read_to_end(&mut said).map(|_| said);
        let _ = telling.send(read);
    });
    let Ok(said) = told.recv_timeout(limit) else {
        let _ = child.kill();
        let _ = child.wait();
        bail!("{program} {verb} does not answer within {} seconds: it was ended", limit.as_secs_f32());
    };
    let said = said.with_context(|| format!("cannot run {program}"))?;
    if !child.wait().with_context(|| format!("cannot run {program}"))?.success() {
        bail!("{program} {verb} failed: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_does_not_answer_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let helper = directory.path().join("helper");
        std::fs::write(&helper, "#!/bin/sh\ncase $1 in get) echo said ;; *) exec sleep 600 ;; esac\n").unwrap();
        std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let run = |verb: &str, limit| run_within(helper.to_str().unwrap(), verb, "", limit);
        assert_eq!(run("get", PATIENCE).unwrap(), b"said\n");
        let ended = run("list", Duration::from_millis(300)).unwrap_err().to_string();
        assert!(ended.contains("list does not answer within 0.3 seconds"), "{ended}");
    }

    fn empty(directory: &Path) -> Credentials {
        Credentials::read_from(directory.join("config.json")).unwrap()
    }

    fn account(server: &str) -> Account {
        Account {
            username: "me".into(),
            password: "pass:word".into(),
            serveraddress: server.into(),
            ..Account::default()
        }
    }

    #[test]
    fn what_is_put_is_found_again_and_the_rest_of_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"psFormat":"{{.ID}}  {{.Names}}","auths":{"https://other.example/v1/":{"auth":"YTpi"}}}"#,
        )
        .unwrap();
        let mut file = empty(directory.path());
        file.put(&account("host:5000")).unwrap();
        let again = empty(directory.path());
        assert_eq!(again.get("host:5000").unwrap(), Some(account("host:5000")));
        assert_eq!(again.get("other.example").unwrap().unwrap().password, "b");
        assert_eq!(again.get("host").unwrap(), None);
        assert_eq!(again.file["psFormat"], "{{.ID}}  {{.Names}}");
        assert_eq!(again.all().len(), 2);
        file.remove("host:5000").unwrap();
        file.remove("host:5000").unwrap();
        assert_eq!(empty(directory.path()).get("host:5000").unwrap(), None);
    }

    #[test]
    fn others_may_not_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        empty(directory.path()).put(&account("x")).unwrap();
        let mode = std::fs::metadata(directory.path().join("config.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_server_is_known_by_its_images_and_its_names() {
        assert_eq!(server_of("busybox").unwrap(), DEFAULT_SERVER);
        assert_eq!(server_of("localhost:5000/a/b:1").unwrap(), "localhost:5000");
        assert!(server_of("A b").is_err());
        for (text, server) in
            [("", DEFAULT_SERVER), ("docker.io", DEFAULT_SERVER), ("https://r.example:5/v2/", "r.example:5")]
        {
            assert_eq!(server_named(text), server, "{text}");
        }
    }
}
