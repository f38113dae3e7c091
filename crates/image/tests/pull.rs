//! `pull`: from Debian's docker-registry in a network namespace of its own, and from a registry made of a closure where
//! a real one cannot be brought to misbehave.

mod common;

use common::{Store, Tar};
use image::{Access, Credentials, Filter, Kind, Progress, PullOptions};
use model::image::Platform;
use model::reference::Reference;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An image as a registry holds it.
#[derive(Clone)]
struct Pushed {
    blobs: Vec<Vec<u8>>,
    manifest: Vec<u8>,
}

/// Layers are plain tars, given with the archive that is sent.
fn pushed(layers: &[(Vec<u8>, Vec<u8>)], architecture: &str) -> Pushed {
    let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| format!("{:?}", digest(tar))).collect();
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Cmd":["/{architecture}"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
    .into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}}}"#,
            digest(bytes),
            bytes.len()
        )
    };
    let listed: Vec<String> = layers.iter().map(|(_, sent)| descriptor("layer.v1.tar+gzip", sent)).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
        descriptor("config.v1+json", &config),
        listed.join(",")
    )
    .into_bytes();
    let mut blobs: Vec<Vec<u8>> = layers.iter().map(|(_, sent)| sent.clone()).collect();
    blobs.push(config);
    Pushed { blobs, manifest }
}

fn layer(name: &str, content: &str) -> (Vec<u8>, Vec<u8>) {
    let tar = Tar::new().file(name, content).done();
    let sent = gzip(&tar);
    (tar, sent)
}

/// Runs a pull to its end; what it said comes with it.
fn pull(
    store: &Store,
    reference: &str,
    options: PullOptions,
) -> (Result<model::image::ImageId, image::Error>, Vec<Progress>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let lines = said.clone();
    let reference: Reference = reference.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let progress = Arc::new(move |line| lines.lock().unwrap().push(line));
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let result = runtime.block_on(sendable(store.pull(&reference, options, progress)));
    let said = said.lock().unwrap().clone();
    (result, said)
}

fn statuses(said: &[Progress], id: &str) -> Vec<String> {
    let mut list: Vec<String> = said.iter().filter(|p| p.id.as_deref() == Some(id)).map(|p| p.status.clone()).collect();
    list.dedup();
    list
}

/// docker-registry in this thread's new network namespace.
struct Registry {
    child: Child,
    _data: tempfile::TempDir,
}

impl Registry {
    fn start(authentication: &str) -> Option<Self> {
        Self::start_with("addr: '127.0.0.1:5000'", authentication)
    }

    fn start_with(http: &str, authentication: &str) -> Option<Self> {
        if Command::new("docker-registry").arg("--version").stdout(Stdio::null()).status().is_err() {
            common::lacking("docker-registry is not installed");
            return None;
        }
        #[allow(deprecated)] // safe for a namespace that concerns sockets made later
        if let Err(error) = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET) {
            common::lacking(&format!("no network namespace of our own: {error}"));
            return None;
        }
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("config.yml");
        let root = data.path().join("data");
        std::fs::write(
            data.path().join("htpasswd"),
            "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n",
        )
        .unwrap();
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root:?}}}}}\n\
             http: {{{http}}}\n{}",
            authentication.replace("HTPASSWD", data.path().join("htpasswd").to_str().unwrap())
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect("127.0.0.1:5000").is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, _data: data })
    }

    /// Puts an image into the registry, as any client does it.
    fn push(&self, name: &str, tag: &str, image: &Pushed, media_type: &str) {
        for blob in &image.blobs {
            let (status, headers) = request("POST", &format!("/v2/{name}/blobs/uploads/"), "", &[]);
            assert_eq!(status, 202);
            let location = headers["location"].replace("http://127.0.0.1:5000", "");
            let to = format!("{location}&digest={}", digest(blob));
            assert_eq!(request("PUT", &to, "application/octet-stream", blob).0, 201);
        }
        let (status, _) = request("PUT", &format!("/v2/{name}/manifests/{tag}"), media_type, &image.manifest);
        assert_eq!(status, 201);
    }
}
impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request by hand.
fn request(method: &str, path: &str, media_type: &str, body: &[u8]) -> (u16, HashMap<String, String>) {
    let mut stream = TcpStream::connect("127.0.0.1:5000").unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:5000\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next().unwrap().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map_while(|l| l.ok().filter(|l| !l.is_empty()))
        .filter_map(|l| l.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())))
        .collect();
    (status, headers)
}

#[test]
fn images_come_from_a_registry_with_dockers_progress() {
    let Some(registry) = Registry::start("") else { return };
    let one = layer("one", "1");
    let two_tar = Tar::new().file("two", "2").done();
    let two = (two_tar.clone(), zstd::encode_all(&two_tar[..], 1).unwrap());
    let image = pushed(&[one.clone(), two.clone()], &Platform::host().architecture);
    registry.push("me/app", "1", &image, OCI_MANIFEST);
    let name = "127.0.0.1:5000/me/app:1";
    let store = Store::new();
    let (id, said) = pull(&store, name, PullOptions::default());
    let id = id.unwrap();
    assert_eq!(id.as_str(), digest(image.blobs.last().unwrap()));
    assert_eq!((said[0].status.as_str(), said[0].id.as_deref()), ("Pulling from me/app", Some("1")));
    let layer_id = digest(&one.1)[7..19].to_owned();
    let expected =
        ["Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"];
    assert_eq!(statuses(&said, &layer_id), expected);
    let manifest = digest(&image.manifest);
    let last: Vec<&str> = said.iter().rev().take(2).map(|p| p.status.as_str()).collect();
    assert_eq!(last, [&format!("Status: Downloaded newer image for {name}"), &format!("Digest: {manifest}")]);
    let got = store.get(name).unwrap();
    assert_eq!(got.repo_tags, [name]);
    assert_eq!(got.repo_digests, [format!("127.0.0.1:5000/me/app@{manifest}")]);
    assert_eq!(got.size, 2);
    assert!(got.layer_paths[0].join("two").exists());
    assert_eq!(store.get(&format!("127.0.0.1:5000/me/app@{manifest}")).unwrap().id, id);

    let (again, said) = pull(&store, name, PullOptions::default());
    assert_eq!(again.unwrap(), id);
    assert_eq!(said.last().unwrap().status, format!("Status: Image is up to date for {name}"));
    // another image shares a layer
    let other = pushed(&[one.clone(), layer("three", "3")], &Platform::host().architecture);
    registry.push("me/app", "2", &other, OCI_MANIFEST);
    let (_, said) = pull(&store, "127.0.0.1:5000/me/app:2", PullOptions::default());
    assert_eq!(statuses(&said, &layer_id), ["Already exists"]);
    // by digest, into another store: no tag
    let other_store = Store::new();
    let by_digest = format!("127.0.0.1:5000/me/app@{manifest}");
    assert_eq!(pull(&other_store, &by_digest, PullOptions::default()).0.unwrap(), id);
    assert_eq!(other_store.get(&by_digest).unwrap().repo_tags, Vec::<String>::new());

    for (reference, message) in [
        (
            "127.0.0.1:5000/me/app:none",
            "manifest for 127.0.0.1:5000/me/app:none not found: manifest unknown: manifest unknown",
        ),
        (
            "127.0.0.1:5000/nobody",
            "manifest for 127.0.0.1:5000/nobody:latest not found: manifest unknown: manifest unknown",
        ),
    ] {
        let error = pull(&store, reference, PullOptions::default()).0.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (message, Kind::NotFound));
    }
    let error = pull(&store, "127.0.0.1:1/x", PullOptions::default()).0.unwrap_err();
    assert_eq!(error.to_string(), "cannot reach registry 127.0.0.1:1: Connection refused (os error 111)");
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[test]
fn an_index_gives_the_platform_that_is_wanted() {
    let Some(registry) = Registry::start("") else { return };
    let host = Platform::host().architecture;
    let mut entries = Vec::new();
    for architecture in ["riscv64", host.as_str(), "s390x"] {
        let image = pushed(&[layer("f", architecture)], architecture);
        registry.push("multi", &digest(&image.manifest), &image, OCI_MANIFEST);
        entries.push(format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            digest(&image.manifest),
            image.manifest.len()
        ));
    }
    let manifest =
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, entries.join(",")).into_bytes();
    registry.push("multi", "latest", &Pushed { blobs: Vec::new(), manifest: manifest.clone() }, OCI_INDEX);
    let store = Store::new();
    let cmd = |options: PullOptions| {
        let id = pull(&store, "localhost:5000/multi", options).0?;
        Ok::<_, image::Error>(store.by_id(&id).unwrap().configuration.config.cmd.clone().unwrap()[0].clone())
    };
    let platform = |text: &str| PullOptions { platform: Some(text.parse().unwrap()), ..PullOptions::default() };
    assert_eq!(cmd(PullOptions::default()).unwrap(), format!("/{host}"));
    assert_eq!(cmd(platform("linux/s390x")).unwrap(), "/s390x");
    assert_eq!(
        cmd(platform("linux/arm/v6")).unwrap_err().to_string(),
        "no matching manifest for linux/arm/v6 in the manifest list entries"
    );
    assert_eq!(
        store.get("localhost:5000/multi").unwrap().repo_digests[0],
        format!("localhost:5000/multi@{}", digest(&manifest))
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reference = "localhost:5000/multi".parse().unwrap();
    let remote = runtime.block_on(store.inspect_remote(&reference, Access::default())).unwrap();
    assert_eq!((remote.digest, remote.platforms.len()), (digest(&manifest), 3));
    // one manifest alone, asked for as another platform's
    let single = pushed(&[layer("f", "single")], "s390x");
    registry.push("single", "latest", &single, OCI_MANIFEST);
    let error = pull(&store, "localhost:5000/single", platform("linux/amd64")).0.unwrap_err().to_string();
    assert!(error.ends_with("wanted linux/amd64, actual: linux/s390x"), "{error}");
}

#[test]
fn what_is_pushed_comes_back_the_same() {
    let Some(registry) = Registry::start("") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let push = |store: &Store, name: &str| {
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = said.clone();
        let progress = Arc::new(move |line: Progress| lines.lock().unwrap().push(line));
        let reference: Reference = name.parse().unwrap();
        fn sendable<T: Send>(future: T) -> T {
            future
        }
        let pushed = runtime.block_on(sendable(store.push(&reference, Access::default(), progress)));
        let said = said.lock().unwrap().clone();
        (pushed, said)
    };
    let one = Store::new();
    let id = one.made("localhost:5000/made:1", Tar::new().file_of("f", &noise(300_000), 0o644, 0, 0).done());
    let (pushed, said) = push(&one, "localhost:5000/made:1");
    let pushed = pushed.unwrap();
    assert_eq!(said[0].status, "The push refers to repository [localhost:5000/made]");
    assert_eq!(said.last().unwrap().status, format!("1: digest: {} size: {}", pushed.digest, pushed.size));
    let two = Store::new();
    assert_eq!(pull(&two, "localhost:5000/made:1", PullOptions::default()).0.unwrap(), id);
    let expected = [format!("localhost:5000/made@{}", pushed.digest)];
    assert_eq!(one.get("localhost:5000/made:1").unwrap().repo_digests, expected);
    assert_eq!(two.get("localhost:5000/made:1").unwrap().repo_digests, expected);
    // pulled, renamed, pushed: every byte is as it was, and layers that are there are not sent
    let tar = Tar::new().file("z", "z").done();
    let image = pushed_with_zstd(&tar);
    registry.push("foreign", "1", &image, OCI_MANIFEST);
    pull(&two, "localhost:5000/foreign:1", PullOptions::default()).0.unwrap();
    two.tag("localhost:5000/foreign:1", "localhost:5000/copy:2").unwrap();
    let (first, _) = push(&two, "localhost:5000/copy:2");
    assert_eq!(first.unwrap().digest, digest(&image.manifest));
    let (_, said) = push(&two, "localhost:5000/copy:2");
    assert!(said.iter().any(|p| p.status == "Layer already exists"));
    let error = push(&two, "localhost:5000/none").0.unwrap_err().to_string();
    assert_eq!(error, "An image does not exist locally with the tag: localhost:5000/none:latest");
}

fn pushed_with_zstd(tar: &[u8]) -> Pushed {
    pushed(&[(tar.to_vec(), zstd::encode_all(tar, 1).unwrap())], &Platform::host().architecture)
}

#[test]
fn certificates_are_checked_except_where_they_need_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=registry", "-addext", "subjectAltName=IP:10.1.2.3"])
        .args(["-keyout", &path("key.pem"), "-out", &path("cert.pem")])
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        common::lacking("there is no openssl to make a certificate with");
        return;
    }
    let tls = format!("addr: ':5000', tls: {{certificate: {:?}, key: {:?}}}", path("cert.pem"), path("key.pem"));
    let Some(_registry) = Registry::start_with(&tls, "") else { return };
    // an address that is not loopback, in a namespace that has no other interface
    assert!(Command::new("ip").args(["addr", "add", "10.1.2.3/32", "dev", "lo"]).status().unwrap().success());
    let store = Store::new();
    let error = |registry: &str, insecure: bool| {
        let options = PullOptions { access: Access { insecure, ..Access::default() }, ..PullOptions::default() };
        pull(&store, &format!("{registry}/x"), options).0.unwrap_err().to_string()
    };
    let refused = error("10.1.2.3:5000", false);
    assert!(refused.starts_with("cannot reach registry 10.1.2.3:5000: invalid peer certificate"), "{refused}");
    for (registry, insecure) in [("10.1.2.3:5000", true), ("127.0.0.1:5000", false), ("localhost:5000", false)] {
        let answered = error(registry, insecure);
        assert!(answered.starts_with(&format!("manifest for {registry}/x:latest not found")), "{answered}");
    }
}

#[test]
fn plain_http_is_spoken_on_loopback_only() {
    let Some(_registry) = Registry::start_with("addr: ':5000'", "") else { return };
    assert!(Command::new("ip").args(["addr", "add", "10.1.2.3/32", "dev", "lo"]).status().unwrap().success());
    let store = Store::new();
    let error = |insecure: bool| {
        let options = PullOptions { access: Access { insecure, ..Access::default() }, ..PullOptions::default() };
        pull(&store, "10.1.2.3:5000/x", options).0.unwrap_err().to_string()
    };
    assert!(error(false).starts_with("cannot reach registry 10.1.2.3:5000: "), "{}", error(false));
    assert!(error(true).starts_with("manifest for 10.1.2.3:5000/x:latest not found"), "{}", error(true));
}

#[test]
fn credentials_are_asked_for_and_sent() {
    let Some(_registry) = Registry::start("auth: {htpasswd: {realm: x, path: HTPASSWD}}\n") else { return };
    let store = Store::new();
    let with = |password: &str| {
        let credentials = Credentials { username: "me".into(), password: password.into(), ..Credentials::default() };
        let access = Access { credentials: Some(credentials), ..Access::default() };
        PullOptions { access, ..PullOptions::default() }
    };
    let denied = "pull access denied for localhost:5000/x, repository does not exist or may require 'docker login': ";
    for options in [PullOptions::default(), with("wrong")] {
        let error = pull(&store, "localhost:5000/x", options).0.unwrap_err().to_string();
        assert!(error.starts_with(denied), "{error}");
    }
    let error = pull(&store, "localhost:5000/x", with("secret")).0.unwrap_err();
    assert!(error.to_string().starts_with("manifest for localhost:5000/x:latest not found"), "{error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let login = |options: PullOptions| runtime.block_on(store.check_credentials("localhost:5000", options.access));
    login(with("secret")).unwrap();
    assert_eq!(login(with("wrong")).unwrap_err().kind(), Kind::Denied);
}

/// What a request said: its path, its headers in lower case.
struct Asked {
    path: String,
    headers: HashMap<String, String>,
}

/// Status, headers, body, and after how many bytes of it the connection breaks.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>, Option<usize>);

/// A registry made of a closure; its address.
fn fake(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut first = [0];
                // a TLS hello is no HTTP: the client tries HTTPS first
                if reader.read(&mut first).unwrap_or(0) == 0 || first[0] == 0x16 {
                    return;
                }
                let mut lines = reader.lines().map_while(Result::ok);
                let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
                let headers = lines
                    .take_while(|l| !l.is_empty())
                    .filter_map(|l| l.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())))
                    .collect();
                let (status, headers, body, breaks) = answer(&Asked { path, headers });
                let mut head =
                    format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
                for (key, value) in headers {
                    head.push_str(&format!("{key}: {value}\r\n"));
                }
                let _ = stream.write_all(format!("{head}\r\n").as_bytes());
                let _ = stream.write_all(&body[..breaks.unwrap_or(body.len())]);
            });
        }
    });
    address
}

/// The answers of a registry that has one image and behaves.
fn well_behaved(image: &Pushed, asked: &Asked) -> Answer {
    let ok = |body: Vec<u8>, kind: &str| (200, vec![("Content-Type", kind.to_owned())], body, None);
    if asked.path == "/v2/" {
        return ok(Vec::new(), "x");
    }
    if asked.path.contains("/manifests/") {
        return ok(image.manifest.clone(), OCI_MANIFEST);
    }
    match image.blobs.iter().find(|b| asked.path.ends_with(&digest(b))) {
        Some(blob) => ok(blob.clone(), "x"),
        None => (
            404,
            Vec::new(),
            br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#.to_vec(),
            None,
        ),
    }
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let big = layer("big", &"0123456789abcdef\n".repeat(100_000).chars().rev().collect::<String>());
    let tar = Tar::new().file_of("noise", &noise(1 << 20), 0o644, 0, 0).done();
    let noisy = (tar.clone(), gzip(&tar));
    let image = pushed(&[big, noisy.clone()], &Platform::host().architecture);
    let noisy_digest = digest(&noisy.1);
    let ranges: Arc<Mutex<Vec<String>>> = Arc::default();
    let address = {
        let (image, ranges) = (image.clone(), ranges.clone());
        fake(move |asked| {
            let (status, headers, body, _) = well_behaved(&image, asked);
            if !asked.path.ends_with(&noisy_digest) {
                return (status, headers, body, None);
            }
            match asked.headers.get("range") {
                None => (200, headers, body, Some(700_000)),
                Some(range) => {
                    ranges.lock().unwrap().push(range.clone());
                    let from: usize = range["bytes=".len()..range.len() - 1].parse().unwrap();
                    (206, headers, body[from..].to_vec(), None)
                }
            }
        })
    };
    let store = Store::new();
    let (id, said) = pull(&store, &format!("{address}/x"), PullOptions::default());
    let id = id.unwrap();
    assert_eq!(store.by_id(&id).unwrap().size, 1_700_000 + (1 << 20));
    assert_eq!(*ranges.lock().unwrap(), ["bytes=700000-"]);
    assert!(said.iter().any(|p| p.status == "Retrying in 1 second"));
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

#[test]
fn what_is_not_what_its_digest_says_is_not_taken() {
    let image = pushed(&[layer("f", "true")], &Platform::host().architecture);
    let lie = layer("f", "lie!").1;
    let good = digest(&image.blobs[0]);
    let config = digest(&image.blobs[1]);
    let mut diff = pushed(&[layer("f", "true")], &Platform::host().architecture);
    let text = String::from_utf8(diff.blobs[1].clone()).unwrap();
    let tar = layer("f", "true").0;
    diff.blobs[1] = text.replace(&digest(&tar), &digest(b"other")).into_bytes();
    diff.manifest = String::from_utf8(diff.manifest).unwrap().replace(&config, &digest(&diff.blobs[1])).into_bytes();
    type Misbehaving = Box<dyn Fn(&Asked) -> Answer + Send + Sync>;
    let cases: [(&str, Misbehaving); 4] = [
        ("a layer", {
            let image = image.clone();
            Box::new(move |asked| {
                let mut answer = well_behaved(&image, asked);
                if asked.path.ends_with(&good) {
                    answer.2 = lie.clone();
                }
                answer
            })
        }),
        ("a configuration", {
            let image = image.clone();
            Box::new(move |asked| {
                let mut answer = well_behaved(&image, asked);
                if asked.path.ends_with(&config) {
                    answer.2.push(b' ');
                }
                answer
            })
        }),
        ("a layer's contents", Box::new(move |asked| well_behaved(&diff, asked))),
        ("a manifest", {
            let image = image.clone();
            Box::new(move |asked| well_behaved(&image, asked))
        }),
    ];
    for (what, answer) in cases {
        let address = fake(answer);
        let store = Store::new();
        let reference = match what {
            "a manifest" => format!("{address}/x@{}", digest(b"another")),
            _ => format!("{address}/x"),
        };
        let error = pull(&store, &reference, PullOptions::default()).0.unwrap_err().to_string();
        let refused = error.contains("does not have the digest") || error.contains("longer than its manifest says");
        assert!(refused, "{what}: {error}");
        assert!(store.list(&Filter { all: true, ..Filter::default() }).is_empty());
        assert_eq!(store.pieces()["layers"], 0, "{what}");
    }
}

#[test]
fn tokens_are_fetched_where_the_registry_says() {
    let image = pushed(&[layer("f", "1")], &Platform::host().architecture);
    type Requests = Arc<Mutex<Vec<(String, Option<String>)>>>;
    let token_requests: Requests = Arc::default();
    let realm: Arc<Mutex<String>> = Arc::default();
    let address = {
        let (token_requests, realm) = (token_requests.clone(), realm.clone());
        fake(move |asked| {
            if asked.path.starts_with("/token") {
                let authorization = asked.headers.get("authorization").cloned();
                token_requests.lock().unwrap().push((asked.path.clone(), authorization.clone()));
                return match authorization.as_deref() {
                    None | Some("Basic bWU6c2VjcmV0") => (200, vec![], br#"{"token":"t0k3n"}"#.to_vec(), None),
                    // More than anybody means to say, before what would do.
                    Some("Basic bWU6ZW5kbGVzcw==") => {
                        let mut body = vec![b' '; 16 << 20];
                        body.extend_from_slice(br#"{"token":"t0k3n"}"#);
                        (200, vec![], body, None)
                    }
                    _ => (401, vec![], b"{}".to_vec(), None),
                };
            }
            if asked.headers.get("authorization").map(String::as_str) != Some("Bearer t0k3n") {
                let challenge = format!("Bearer realm=\"{}\",service=\"reg\"", realm.lock().unwrap());
                return (401, vec![("WWW-Authenticate", challenge)], Vec::new(), None);
            }
            if asked.path.contains("/secret/") {
                let body = br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
                return (403, vec![], body.to_vec(), None);
            }
            if asked.path.contains("/busy/") {
                let body =
                    br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
                return (429, vec![], body.to_vec(), None);
            }
            well_behaved(&image, asked)
        })
    };
    *realm.lock().unwrap() = format!("http://{address}/token");
    let store = Store::new();
    pull(&store, &format!("{address}/a/b"), PullOptions::default()).0.unwrap();
    assert_eq!(token_requests.lock().unwrap()[0], ("/token?service=reg&scope=repository%3Aa%2Fb%3Apull".into(), None));
    let credentials = |password: &str| {
        let credentials = Credentials { username: "me".into(), password: password.into(), ..Credentials::default() };
        let access = Access { credentials: Some(credentials), ..Access::default() };
        PullOptions { access, ..PullOptions::default() }
    };
    pull(&store, &format!("{address}/a/b"), credentials("secret")).0.unwrap();
    pull(&store, &format!("{address}/a/b"), credentials("endless")).0.unwrap_err();
    let error = pull(&store, &format!("{address}/a/b"), credentials("wrong")).0.unwrap_err().to_string();
    assert!(error.ends_with("unauthorized: incorrect username or password"), "{error}");
    let error = pull(&store, &format!("{address}/secret/x"), PullOptions::default()).0.unwrap_err();
    let expected = format!(
        "pull access denied for {address}/secret/x, repository does not exist or may require 'docker login': denied: \
         requested access to the resource is denied"
    );
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::NotFound));
    let error = pull(&store, &format!("{address}/busy/x"), PullOptions::default()).0.unwrap_err().to_string();
    assert!(error.starts_with("toomanyrequests: "), "{error}");
}
