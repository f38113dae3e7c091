//! Registries as people use them: accounts, push, pull; with Debian's `docker-registry` on the loopback of a lab's host.

use serde_json::json;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testkit::{Lab, Output, program, within};

/// The account that the registry knows, as htpasswd has it: `me`, `secret`.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A lab, a registry beside it that wants an account, and a person's directory for docker's configuration.
struct World {
    lab: Lab,
    registry: Child,
}

impl World {
    fn new() -> Self {
        let lab = Lab::start(&program()).unwrap();
        let directory = lab.directory().join("registry");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http: {{addr: '127.0.0.1:5000'}}\nauth: {{htpasswd: {{realm: here, path: {:?}}}}}\n",
            directory.join("data"),
            directory.join("htpasswd"),
        );
        std::fs::write(directory.join("config.yml"), config).unwrap();
        let registry = lab.in_host(|| {
            Command::new("docker-registry")
                .arg("serve")
                .arg(directory.join("config.yml"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry is installed")
        });
        let answers = || lab.in_host(|| TcpStream::connect("127.0.0.1:5000").is_ok());
        within(Duration::from_secs(20), "the registry answers", answers);
        Self { lab, registry }
    }

    fn config(&self) -> PathBuf {
        self.lab.directory().join("docker")
    }

    /// A client's command, as somebody with the configuration directory types it.
    fn run(&self, client: &str, arguments: &[&str]) -> Output {
        let mut command = match client {
            "isle" => Command::new(program()),
            client => Command::new(client),
        };
        let path = format!("{}:{}", self.config().display(), std::env::var("PATH").unwrap());
        command.args(arguments).env("DOCKER_HOST", self.lab.docker_host()).env("DOCKER_BUILDKIT", "0");
        self.lab.on_host(command.env("DOCKER_CONFIG", self.config()).env("PATH", path).stdin(Stdio::null()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

/// The same by either client: neither account nor anonymous push, then login, push, pull, a build from a private image,
/// logout.
fn a_day_with_a_registry(client: &str) {
    let world = World::new();
    let run = |arguments: &[&str]| world.run(client, arguments);
    run(&["tag", "busybox", "localhost:5000/me/bb:1"]).ok();
    run(&["tag", "busybox", "localhost:5000/me/bb:2"]).ok();
    let refused = run(&["push", "localhost:5000/me/bb:1"]).refused();
    assert!(refused.contains("no basic auth credentials") || refused.contains("authentication required"), "{refused}");
    let refused = run(&["login", "-u", "me", "-p", "wrong", "localhost:5000"]).refused();
    assert!(refused.contains("unauthorized"), "{refused}");
    assert!(!world.config().join("config.json").exists());
    let said = run(&["login", "-u", "me", "-p", "secret", "localhost:5000"]).ok();
    assert!(said.contains("Login Succeeded"), "{said}");

    let said = run(&["push", "localhost:5000/me/bb:1"]).ok();
    assert!(said.contains("The push refers to repository [localhost:5000/me/bb]"), "{said}");
    assert!(said.contains("1: digest: sha256:"), "{said}");
    let said = run(&["push", "-a", "localhost:5000/me/bb"]).ok();
    assert!(said.contains("Layer already exists") && said.contains("2: digest: sha256:"), "{said}");
    let refused = run(&["push", "localhost:5000/me/none"]).refused();
    assert!(refused.contains("An image does not exist locally with the tag: localhost:5000/me/none"), "{refused}");

    run(&["rmi", "localhost:5000/me/bb:1", "localhost:5000/me/bb:2"]).ok();
    run(&["pull", "-a", "localhost:5000/me/bb"]).ok();
    let mut tags: Vec<String> =
        run(&["images", "--format", "{{.Tag}}", "localhost:5000/me/bb"]).ok().lines().map(str::to_owned).collect();
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    run(&["rmi", "localhost:5000/me/bb:1", "localhost:5000/me/bb:2"]).ok();
    assert_eq!(
        run(&["run", "--rm", "-q", "--pull", "always", "localhost:5000/me/bb:1", "echo", "pulled"]).ok().trim(),
        "pulled"
    );
    run(&["rmi", "localhost:5000/me/bb:1"]).ok();

    let context = world.lab.directory().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM localhost:5000/me/bb:2\nLABEL from=private\n").unwrap();
    run(&["build", "-q", "-t", "own", context.to_str().unwrap()]).ok();
    run(&["image", "inspect", "localhost:5000/me/bb:2"]).ok();

    assert!(run(&["logout", "localhost:5000"]).ok().contains("Removing login credentials for localhost:5000"));
    run(&["pull", "localhost:5000/me/bb:1"]).refused();
}

#[test]
fn people_push_and_pull_with_an_account() {
    a_day_with_a_registry("isle");
}

#[test]
fn people_push_and_pull_with_an_account_by_docker() {
    a_day_with_a_registry("docker");
}

#[test]
fn a_credential_helper_keeps_the_account() {
    let world = World::new();
    let (config, kept) = (world.config(), world.lab.directory().join("kept"));
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("config.json"), r#"{"credHelpers":{"localhost:5000":"box"}}"#).unwrap();
    let helper = config.join("docker-credential-box");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {0} ;;\nget) cat {0} 2>/dev/null || {{ echo 'credentials not found in native \
         keychain'; exit 1; }} ;;\nerase) rm -f {0} ;;\nesac\n",
        kept.display()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    world.run("isle", &["tag", "busybox", "localhost:5000/x"]).ok();
    world.run("isle", &["push", "-q", "localhost:5000/x"]).refused();
    world.run("isle", &["login", "-u", "me", "-p", "secret", "localhost:5000"]).ok();
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    assert_eq!(told, json!({ "ServerURL": "localhost:5000", "Username": "me", "Secret": "secret" }));
    let file = std::fs::read_to_string(config.join("config.json")).unwrap();
    assert!(!file.contains("secret") && !file.contains("bWU6"), "{file}");
    world.run("isle", &["push", "-q", "localhost:5000/x"]).ok();
    world.run("isle", &["logout", "localhost:5000"]).ok();
    assert!(!kept.exists());
}

#[test]
fn what_a_registry_has_is_told_without_fetching_it() {
    let world = World::new();
    world.run("isle", &["tag", "busybox", "localhost:5000/x:1"]).ok();
    world.run("isle", &["login", "-u", "me", "-p", "secret", "localhost:5000"]).ok();
    world.run("isle", &["push", "-q", "localhost:5000/x:1"]).ok();
    assert_eq!(world.lab.get("/distribution/localhost:5000/x:1/json").unwrap().status, 401);
    // {"username":"me","password":"secret"}
    let header = "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZWNyZXQifQ==";
    let asked = world.lab.on_host(Command::new("curl").args(["-s", "--unix-socket"]).arg(world.lab.socket()).args([
        "-H",
        &format!("X-Registry-Auth: {header}"),
        "http://d/distribution/localhost:5000/x:1/json",
    ]));
    let told: serde_json::Value = serde_json::from_str(&asked.ok()).unwrap();
    assert_eq!(told["Descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json", "{told}");
    assert_eq!(told["Platforms"][0]["os"], "linux", "{told}");
    let refused = world.run("isle", &["search", "busybox"]).refused();
    assert!(refused.contains("only Docker's own registry"), "{refused}");
}

#[test]
fn a_registry_is_asked_no_longer_when_the_client_has_gone() {
    use std::io::{Read, Write};
    let lab = Lab::start(&program()).unwrap();
    lab.ask("/images/busybox/tag?repo=127.0.0.1:5001/x&tag=1", 201);
    let silent = lab.in_host(|| std::net::TcpListener::bind("127.0.0.1:5001").unwrap());
    let login = r#"{"username":"me","password":"x","serveraddress":"127.0.0.1:5001"}"#;
    for (request, body) in [
        ("POST /images/create?fromImage=127.0.0.1:5001/x&tag=1", ""),
        ("POST /images/127.0.0.1:5001/x/push?tag=1", ""),
        ("GET /distribution/127.0.0.1:5001/x:1/json", ""),
        ("POST /auth", login),
    ] {
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut client = testkit::http::raw(&lab.socket(), b"").unwrap();
        client.write_all(head.as_bytes()).unwrap();
        // By HTTPS first; the daemon waits for the registry's greeting.
        let (mut asked, _) = silent.accept().unwrap();
        let mut hello = [0; 5];
        asked.read_exact(&mut hello).unwrap();
        drop(client);
        asked.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut rest = Vec::new();
        assert!(asked.read_to_end(&mut rest).is_ok(), "{request}: it still waits");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_and_nobody_is_logged_in() {
    let world = World::new();
    std::fs::create_dir(world.config()).unwrap();
    std::fs::write(world.config().join("config.json"), "{").unwrap();
    let run = |client: &str, arguments: &[&str]| world.run(client, arguments);
    run("isle", &["tag", "busybox", "localhost:5000/x"]).ok();
    for client in ["docker", "isle"] {
        let refused = run(client, &["push", "localhost:5000/x"]).refused();
        assert!(refused.contains("WARNING: Error parsing config file ("), "{client}: {refused}");
        assert!(
            refused.contains("authentication required") || refused.contains("no basic auth"),
            "{client}: {refused}"
        );
        assert!(!refused.contains("pull access denied"), "{client}: {refused}");
    }
    assert!(run("isle", &["login", "-u", "me", "-p", "secret", "localhost:5000"]).code != 0, "it is not replaced");
}
