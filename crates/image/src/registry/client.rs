//! One registry, spoken to by the distribution protocol: where it is, how it wants to be asked, and what its errors
//! mean.
//!
//! A registry on loopback, or one that the caller calls insecure, is tried by HTTPS with any certificate first, then by
//! plain HTTP, as Docker does. All others are HTTPS with a certificate that the machine trusts.

use super::{Access, Credentials, RegistryError};
use crate::error::{Attempt, Error};
use base64::Engine as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, RANGE, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// How long a registry may take.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// To say that it is one, as for Docker.
    first: Duration,
    /// For an answer that is no layer, to its end.
    whole: Duration,
    /// For the next part of a layer, either way.
    idle: Duration,
}

const PATIENCE: Patience =
    Patience { first: Duration::from_secs(15), whole: Duration::from_secs(120), idle: Duration::from_secs(60) };

/// When something was last sent.
#[derive(Clone)]
pub(super) struct Beat(Arc<Mutex<Instant>>);

impl Beat {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Resolves when nothing was sent for so long.
    async fn stopped(&self, idle: Duration) {
        loop {
            let since = self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            match idle.checked_sub(since) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return,
            }
        }
    }
}

/// The host of Docker's own registry is not the one in its images' names.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// The most that is read of an answer that is no layer, in bytes: nobody means to say more.
const MOST_SAID: usize = 4 << 20;

/// An answer's body, cut off where it is longer than anybody means to say.
pub(super) async fn body_of(mut answer: Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < MOST_SAID
        && let Some(chunk) = answer.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(super) struct Client {
    http: reqwest::Client,
    /// For what takes as long as it is being sent.
    uploads: reqwest::Client,
    patience: Patience,
    registry: String,
    /// `https://host`, without a slash.
    base: String,
    credentials: Option<Credentials>,
    /// `repository:library/busybox:pull`
    scope: String,
    /// What the registry took last: sent with every request.
    authorization: Mutex<Option<String>>,
}

/// Fetches a file that is no registry's: what `ADD` names by its address. The certificate must be one that the machine
/// trusts; what the file contains, nobody vouches for.
pub(crate) async fn fetch(url: &str, to: &std::path::Path) -> Result<(), Error> {
    let told = |why: String| Error::from(RegistryError::Malformed { url: url.to_owned(), why });
    let mut answer = http(false, Some(PATIENCE.idle)).get(url).send().await.map_err(|error| told(reason(&error)))?;
    if !answer.status().is_success() {
        return Err(told(answer.status().to_string()));
    }
    let shown = || format!("cannot write {}", to.display());
    let mut file = tokio::fs::File::create(to).await.attempt(shown)?;
    while let Some(chunk) = answer.chunk().await.map_err(|error| told(reason(&error)))? {
        file.write_all(&chunk).await.attempt(shown)?;
    }
    file.flush().await.attempt(shown)
}

/// What a registry wants to see.
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Client {
    /// Finds out how a registry is spoken to.
    pub(super) async fn connect(registry: &str, scope: String, access: &Access) -> Result<Self, RegistryError> {
        let host = if registry == model::reference::DEFAULT_REGISTRY { DOCKER_HUB } else { registry };
        let mut bases = vec![(format!("https://{host}"), false)];
        if access.insecure || is_loopback(host) {
            bases = vec![(format!("https://{host}"), true), (format!("http://{host}"), true)];
        }
        Self::connect_to(&bases, registry, scope, access.credentials.clone(), PATIENCE).await
    }

    /// Finds out how a mirror is spoken to; it is not told who asks.
    pub(super) async fn connect_mirror(mirror: &str, registry: &str, scope: String) -> Result<Self, RegistryError> {
        let base = mirror.trim_end_matches('/').to_owned();
        let host = base.split_once("://").map_or("", |(_, rest)| rest);
        let any_certificate = is_loopback(host);
        Self::connect_to(&[(base, any_certificate)], registry, scope, None, PATIENCE).await
    }

    /// Tries base addresses in turn, each with whether any certificate will do.
    async fn connect_to(
        bases: &[(String, bool)],
        registry: &str,
        scope: String,
        credentials: Option<Credentials>,
        patience: Patience,
    ) -> Result<Self, RegistryError> {
        let ready = credentials.as_ref().filter(|c| !c.registrytoken.is_empty());
        let ready = ready.map(|c| format!("Bearer {}", c.registrytoken));
        let mut refusals = Vec::new();
        for (base, any_certificate) in bases {
            let client = Self {
                http: http(*any_certificate, Some(patience.idle)),
                uploads: http(*any_certificate, None),
                patience,
                registry: registry.to_owned(),
                base: base.clone(),
                credentials: credentials.clone(),
                scope: scope.clone(),
                authorization: Mutex::new(ready.clone()),
            };
            match client.http.get(format!("{base}/v2/")).timeout(patience.first).send().await {
                Ok(answer) => {
                    if answer.status() == StatusCode::UNAUTHORIZED {
                        client.authorize(answer.headers()).await?;
                    }
                    return Ok(client);
                }
                Err(error) => {
                    refusals.push(reason(&error));
                    // One that keeps silent does so by plain HTTP, too.
                    if error.is_timeout() {
                        break;
                    }
                }
            }
        }
        // the last one is plain HTTP's where that was tried, and says most
        let why = refusals.pop().unwrap_or_default();
        Err(RegistryError::Unreachable { registry: registry.to_owned(), why })
    }

    /// Asks for something small, which is to be here soon.
    pub(super) async fn get(&self, path: &str, accept: &str) -> Result<Response, RegistryError> {
        self.send(|http, base| http.get(format!("{base}/v2/{path}")).header(ACCEPT, accept)).await
    }

    /// Asks for a layer, or what is left of it: however long it takes, as long as some of it comes.
    pub(super) async fn get_layer(&self, path: &str, from: Option<u64>) -> Result<Response, RegistryError> {
        self.send_by(&self.http, |http, base| {
            let request = http.get(format!("{base}/v2/{path}")).header(ACCEPT, "*/*");
            match from {
                Some(from) => request.header(RANGE, format!("bytes={from}-")),
                None => request,
            }
        })
        .await
    }

    /// Sends a request whose answer is small.
    pub(super) async fn send(
        &self,
        make: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    ) -> Result<Response, RegistryError> {
        self.send_by(&self.http, |http, base| make(http, base).timeout(self.patience.whole)).await
    }

    /// Sends a layer: however long it takes, as long as the beat is touched for each part that goes.
    pub(super) async fn upload(
        &self,
        make: impl Fn(&reqwest::Client, &Beat) -> reqwest::RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let beat = Beat::new();
        tokio::select! {
            sent = self.send_by(&self.uploads, |http, _| make(http, &beat)) => sent,
            () = beat.stopped(self.patience.idle) => {
                Err(RegistryError::Unreachable { registry: self.registry.clone(), why: SILENT.to_owned() })
            }
        }
    }

    /// Sends a request, and once more with new rights if the registry wants others.
    async fn send_by(
        &self,
        http: &reqwest::Client,
        make: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    ) -> Result<Response, RegistryError> {
        for attempt in 0..2 {
            let mut request = make(http, &self.base);
            if let Some(authorization) = self.authorization() {
                request = request.header(AUTHORIZATION, authorization);
            }
            let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
            if answer.status() == StatusCode::UNAUTHORIZED && attempt == 0 {
                // a token that has expired, or one for something else
                self.authorize(answer.headers()).await?;
                continue;
            }
            return Ok(answer);
        }
        Err(RegistryError::WrongCredentials("the registry does not take its own token".to_owned()))
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::Unreachable { registry: self.registry.clone(), why: reason(error) }
    }

    fn authorization(&self) -> Option<String> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn authorize(&self, headers: &HeaderMap) -> Result<(), RegistryError> {
        let challenges = headers.get_all(WWW_AUTHENTICATE);
        let challenge = challenges.iter().filter_map(|h| h.to_str().ok()).find_map(challenge);
        let basic = self.credentials.as_ref().filter(|c| !c.username.is_empty()).map(|c| {
            let pair = format!("{}:{}", c.username, c.password);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        });
        let authorization = match challenge {
            None => return Err(RegistryError::WrongCredentials("authentication required".to_owned())),
            Some(Challenge::Basic) => match basic {
                // refused already
                Some(basic) if self.authorization().as_ref() != Some(&basic) => basic,
                Some(_) => return Err(RegistryError::WrongCredentials("incorrect username or password".to_owned())),
                None => return Err(RegistryError::WrongCredentials("authentication required".to_owned())),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                format!("Bearer {}", self.token(&realm, service, scope, basic).await?)
            }
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        Ok(())
    }

    /// Gets a token from where the registry sends us.
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
        basic: Option<String>,
    ) -> Result<String, RegistryError> {
        let malformed = |why: String| RegistryError::Malformed { url: realm.to_owned(), why };
        let mut url = Url::parse(realm).map_err(|e| malformed(e.to_string()))?;
        let identity = self.credentials.as_ref().map(|c| c.identitytoken.clone()).filter(|t| !t.is_empty());
        let secret = basic.is_some() || identity.is_some();
        if secret && url.scheme() != "https" && self.base.starts_with("https:") {
            return Err(RegistryError::InsecureRealm { registry: self.registry.clone(), realm: realm.to_owned() });
        }
        let scope = scope.unwrap_or_else(|| self.scope.clone());
        let request = match identity {
            Some(identity) => {
                let mut form = Url::parse("form:?").map_err(|e| malformed(e.to_string()))?;
                form.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "isle")
                    .append_pair("service", service.as_deref().unwrap_or_default())
                    .append_pair("scope", &scope)
                    .append_pair("refresh_token", &identity);
                self.http
                    .post(url)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            None => {
                {
                    let mut query = url.query_pairs_mut();
                    if let Some(service) = &service {
                        query.append_pair("service", service);
                    }
                    if !scope.is_empty() {
                        query.append_pair("scope", &scope);
                    }
                }
                let request = self.http.get(url);
                match basic {
                    Some(basic) => request.header(AUTHORIZATION, basic),
                    None => request,
                }
            }
        };
        let answer = request.timeout(self.patience.whole).send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let body = body_of(answer).await.map_err(|error| self.unreachable(&error))?;
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let why = Complaint::read(&body).map_or("incorrect username or password".to_owned(), |c| c.message);
            return Err(RegistryError::WrongCredentials(why));
        }
        if !status.is_success() {
            return Err(self.complaint(realm, status, &body));
        }
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let token: Token = serde_json::from_slice(&body).map_err(|e| malformed(e.to_string()))?;
        match (token.token, token.access_token) {
            (token, _) if !token.is_empty() => Ok(token),
            (_, token) if !token.is_empty() => Ok(token),
            _ => Err(malformed("no token in the answer".to_owned())),
        }
    }

    /// What an answer that is no success means, where it means nothing special to the caller.
    pub(super) fn complaint(&self, url: &str, status: StatusCode, body: &[u8]) -> RegistryError {
        let why = match Complaint::read(body) {
            Some(complaint) => complaint.to_string(),
            None => String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned(),
        };
        match status {
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooMany(why),
            _ => RegistryError::Status { url: url.to_owned(), status: status.as_u16(), why },
        }
    }
}

/// The first error in a registry's answer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Complaint {
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    message: String,
}

impl Complaint {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Complaints {
            errors: Vec<Complaint>,
        }
        serde_json::from_slice::<Complaints>(body).ok()?.errors.into_iter().next()
    }
}
impl std::fmt::Display for Complaint {
    /// `manifest unknown: manifest unknown`, as Docker shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.to_ascii_lowercase().replace('_', " "), self.message)
    }
}

/// Reads `Bearer realm="…",service="…"`.
fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').map_or((after, ""), |(value, rest)| (value, rest)),
        };
        let value = Some(value.to_owned());
        match key.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
            "realm" => realm = value,
            "service" => service = value,
            "scope" => scope = value,
            _ => {}
        }
        rest = after;
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The innermost cause: `Connection refused` rather than `error sending request`.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = source.to_string();
        next = source.source();
    }
    if error.is_timeout() { SILENT.to_owned() } else { text }
}

const SILENT: &str = "it does not answer in time";

/// A client for one pull. What is dear, reading the certificates that the machine trusts, is done once; connections are
/// not kept beyond, since they belong to the runtime that made them.
fn http(any_certificate: bool, idle: Option<Duration>) -> reqwest::Client {
    static TLS: [OnceLock<rustls::ClientConfig>; 2] = [OnceLock::new(), OnceLock::new()];
    let tls = TLS[usize::from(any_certificate)].get_or_init(|| tls(any_certificate)).clone();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("isle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(15));
    // It runs while a body is being sent, too.
    let client = match idle {
        Some(idle) => client.read_timeout(idle),
        None => client,
    };
    client.build().expect("a client of constant settings")
}

fn tls(any_certificate: bool) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions");
    if any_certificate {
        let verifier = Arc::new(AnyCertificate(provider));
        return tls.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    }
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read a certificate that this machine trusts");
    }
    roots.add_parsable_certificates(found.certs);
    tls.with_root_certificates(roots).with_no_client_auth()
}

/// For registries that are called insecure: whoever answers is believed, and digests are checked as ever.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer { realm, service, scope }) = challenge(header) else { panic!() };
        assert_eq!(realm, "https://auth.example/token");
        assert_eq!(service.as_deref(), Some("registry.example"));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert!(matches!(challenge("Basic realm=\"x\""), Some(Challenge::Basic)));
        assert!(matches!(challenge("bearer realm=x, service=y"), Some(Challenge::Bearer { .. })));
        assert!(challenge("Negotiate").is_none());
        assert!(challenge("Bearer service=\"x\"").is_none());
    }

    #[tokio::test]
    async fn a_registry_that_keeps_silent_is_given_up_and_not_asked_twice() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = silent.local_addr().unwrap().to_string();
        let bases = [(format!("http://{host}"), true), (format!("http://{host}/twice"), true)];
        let began = std::time::Instant::now();
        let patience = Patience { first: Duration::from_millis(500), ..PATIENCE };
        let given_up = Client::connect_to(&bases, &host, String::new(), None, patience).await.err().unwrap();
        assert_eq!(given_up.to_string(), format!("cannot reach registry {host}: it does not answer in time"));
        // Far below what a whole answer may take.
        assert!(began.elapsed() < Duration::from_secs(30));
        silent.set_nonblocking(true).unwrap();
        assert_eq!(silent.incoming().take_while(Result::is_ok).count(), 1);
    }

    /// A registry that takes its time: it answers at once to who asks whether it is one, and then a byte every 50 ms, or
    /// when all of a body has come.
    fn slow() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                        head.push(byte[0]);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    if head.starts_with("GET /v2/ ") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    } else if head.starts_with("GET") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
                        while stream.write_all(b"x").is_ok() {
                            std::thread::sleep(Duration::from_millis(50));
                        }
                    } else {
                        let mut body = [0; 10];
                        let _ = stream.read_exact(&mut body);
                        let _ =
                            stream.write_all(b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                    }
                });
            }
        });
        host
    }

    #[tokio::test]
    async fn an_answer_comes_to_its_end_in_time_and_a_layer_takes_as_long_as_it_is_sent() {
        let host = slow();
        let base = [(format!("http://{host}"), true)];
        let patience = Patience { whole: Duration::from_millis(500), idle: Duration::from_millis(400), ..PATIENCE };
        let client = Client::connect_to(&base, &host, String::new(), None, patience).await.unwrap();
        // Some of it comes all the time.
        let small = body_of(client.get("x/manifests/1", "*/*").await.unwrap()).await;
        assert!(small.unwrap_err().is_timeout());
        // One byte every 100 ms, ten in all: longer than any silence may be.
        let body = |beat: &Beat, parts: usize| {
            let beat = beat.clone();
            let part = move |n: usize| {
                let beat = beat.clone();
                async move {
                    if n == parts {
                        return std::future::pending().await;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    beat.touch();
                    (n < 10).then(|| (Ok::<_, std::io::Error>(vec![b'x']), n + 1))
                }
            };
            reqwest::Body::wrap_stream(futures_util::stream::unfold(0, part))
        };
        let put = |http: &reqwest::Client, beat: &Beat, parts| {
            http.put(format!("http://{host}/upload")).header("content-length", 10).body(body(beat, parts))
        };
        let sent = client.upload(|http, beat| put(http, beat, usize::MAX)).await.unwrap();
        assert_eq!(sent.status(), StatusCode::CREATED);
        let silent = client.upload(|http, beat| put(http, beat, 3)).await.unwrap_err();
        assert_eq!(silent.to_string(), format!("cannot reach registry {host}: {SILENT}"));
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("registry.example:5000", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
