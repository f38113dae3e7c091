//! What tests say to a daemon again and again, in fewer words; and connections that turn into streams.

use crate::http::{self, Response};
use crate::{Lab, within};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A shell that ends on SIGTERM with status 3, once it is up: see [`Lab::up`].
pub const POLITE: [&str; 3] = ["sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"];

impl Lab {
    /// Creates a container without starting it; its id.
    ///
    /// # Panics
    /// It is refused.
    pub fn create(&self, name: &str, mut body: Value) -> String {
        if body["Image"].is_null() {
            body["Image"] = "busybox".into();
        }
        let created = self.post(&format!("/containers/create?name={name}"), body).expect("an answer");
        assert_eq!(created.status, 201, "{}", created.text());
        created.json()["Id"].as_str().unwrap_or_default().to_owned()
    }

    /// Makes a network of both families with these options, whose bridge is called `br-NAME`.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    pub fn bridge(&self, name: &str, mut options: Value) {
        options["com.docker.network.bridge.name"] = format!("br-{name:.12}").into();
        self.network(json!({ "Name": name, "EnableIPv6": true, "Options": options }));
    }

    /// `POST` without a body; the status it must answer with.
    ///
    /// # Panics
    /// It answers otherwise.
    #[track_caller]
    pub fn ask(&self, path: &str, status: u16) -> Response {
        let response = self.post(path, Value::Null).expect("an answer");
        assert_eq!(response.status, status, "{path}: {}", response.text());
        response
    }

    /// `POST` with a body; the status it must answer with.
    ///
    /// # Panics
    /// It answers otherwise.
    #[track_caller]
    pub fn tell(&self, path: &str, body: Value, status: u16) -> Response {
        let response = self.post(path, body.clone()).expect("an answer");
        assert_eq!(response.status, status, "{path} {body}: {}", response.text());
        response
    }

    /// Removes a container, whatever it does.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    pub fn remove(&self, container: &str) {
        let removed = self.delete(&format!("/containers/{container}?force=1&v=1")).expect("an answer");
        assert_eq!(removed.status, 204, "{}", removed.text());
    }

    /// A container's status: `running`, `exited` …; `gone` where there is none.
    ///
    /// # Panics
    /// Nobody answers.
    pub fn status(&self, container: &str) -> String {
        let shown = self.get(&format!("/containers/{container}/json")).expect("an answer");
        if shown.status == 404 {
            return "gone".to_owned();
        }
        shown.json()["State"]["Status"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a container does not run; its exit code.
    ///
    /// # Panics
    /// It does not end within half a minute.
    pub fn wait(&self, container: &str) -> i64 {
        let ended = self.ask(&format!("/containers/{container}/wait"), 200);
        ended.json()["StatusCode"].as_i64().expect("a status code")
    }

    /// Waits until a container has said that it is up: before, process 1 does not hear a signal.
    ///
    /// # Panics
    /// It does not say so.
    pub fn up(&self, container: &str) {
        within(Duration::from_secs(20), &format!("{container} is up"), || self.logs(container, "").0.contains("up\n"));
    }

    /// What a container has written: stdout and stderr.
    ///
    /// # Panics
    /// It keeps no log.
    pub fn logs(&self, container: &str, query: &str) -> (String, String) {
        let path = format!("/containers/{container}/logs?stdout=1&stderr=1&{query}");
        let response = self.get(&path).expect("an answer");
        assert_eq!(response.status, 200, "{}", response.text());
        http::demultiplex(&response.body)
    }

    /// The address of a container on a network.
    ///
    /// # Panics
    /// There is no such container.
    pub fn address(&self, container: &str, network: &str) -> String {
        let shown = self.inspect(container);
        shown["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().unwrap_or_default().to_owned()
    }

    /// The addresses that a name has for a container, in order.
    pub fn lookup(&self, container: &str, name: &str) -> Vec<String> {
        let said = self.exec(container, &["nslookup", "-type=a", name]).stdout;
        let answer = said.split_once("Name:").map_or("", |(_, rest)| rest);
        let words = answer.lines().filter(|l| l.starts_with("Address")).filter_map(|l| l.split_whitespace().last());
        let mut addresses: Vec<String> = words.map(str::to_owned).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// Begins to wait for a container, and returns once the daemon has answered that it does: with the head.
    ///
    /// # Panics
    /// It does not answer.
    pub fn begin_wait(&self, container: &str, condition: &str) -> Hijacked {
        Hijacked::open(
            self,
            &format!("/containers/{container}/wait?condition={condition}"),
            "",
            "Connection: close\r\n",
        )
    }

    /// Opens a stream as docker does: `attach`, or the start of a command.
    ///
    /// # Panics
    /// Nobody answers, or the connection is not handed over.
    pub fn open(&self, path: &str, body: &str) -> Hijacked {
        Hijacked::open(self, path, body, "Connection: Upgrade\r\nUpgrade: tcp\r\n")
    }

    /// The same without asking for an upgrade.
    ///
    /// # Panics
    /// Nobody answers, or the connection is not handed over.
    pub fn open_plainly(&self, path: &str, body: &str) -> Hijacked {
        Hijacked::open(self, path, body, "")
    }
}

/// A connection that has turned into a stream.
pub struct Hijacked {
    stream: UnixStream,
    /// Read, and not yet asked for.
    pending: Vec<u8>,
    /// The response's head.
    pub head: String,
}

impl Hijacked {
    fn open(lab: &Lab, path: &str, body: &str, headers: &str) -> Self {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: isle\r\n{headers}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let stream = http::raw(&lab.socket(), request.as_bytes()).expect("a connection");
        let mut opened = Self { stream, pending: Vec::new(), head: String::new() };
        let end = loop {
            if let Some(at) = opened.pending.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            assert!(opened.fill(), "no head: {}", String::from_utf8_lossy(&opened.pending));
        };
        opened.head = String::from_utf8_lossy(&opened.pending[..end]).into_owned();
        opened.pending.drain(..end + 4);
        assert!(
            opened.head.starts_with("HTTP/1.1 101") || opened.head.starts_with("HTTP/1.1 200"),
            "not handed over: {}\n{}",
            opened.head,
            String::from_utf8_lossy(&opened.pending)
        );
        opened
    }

    /// Reads once; false at the end.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer).expect("the stream goes on or ends");
        self.pending.extend_from_slice(&buffer[..length]);
        length > 0
    }

    /// # Panics
    /// The other side is gone.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("somebody listens");
    }

    /// No more input; output may still come.
    ///
    /// # Panics
    /// The connection is gone.
    pub fn finish_input(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Reads until the text has come, and takes everything up to it.
    ///
    /// # Panics
    /// The stream ends before, or half a minute passes.
    pub fn until(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.pending.windows(text.len()).position(|w| w == text.as_bytes()) {
                let taken: Vec<u8> = self.pending.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let so_far = String::from_utf8_lossy(&self.pending).into_owned();
            assert!(Instant::now() < end && self.fill(), "the stream ended before {text:?}: {so_far:?}");
        }
    }

    /// The exit code that a wait ends with.
    ///
    /// # Panics
    /// It does not end, or says something else.
    pub fn exit_code(self) -> i64 {
        let said = String::from_utf8_lossy(&self.rest()).into_owned();
        let digits = said.split_once("{\"StatusCode\":").and_then(|(_, rest)| rest.split(['}', ',']).next());
        digits.and_then(|d| d.parse().ok()).unwrap_or_else(|| panic!("no status code: {said}"))
    }

    /// Everything until the end of the stream.
    ///
    /// # Panics
    /// It does not end.
    pub fn rest(mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.pending)
    }
}
