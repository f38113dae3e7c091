//! What a client experiences of a build: by the classic builder.

use serde_json::Value;
use std::io::{Read, Write};
use std::time::Duration;
use testkit::{Lab, http, program, within};

/// A context with these files.
fn context(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// What the stream of a build says in the end.
fn last_line(text: &str) -> Value {
    serde_json::from_str(text.trim().lines().last().unwrap_or_default()).unwrap()
}

/// Names of the containers that run a build's steps.
fn steps(lab: &Lab) -> usize {
    let filters = "%7B%22name%22%3A%5B%22build-%22%5D%7D";
    lab.get(&format!("/containers/json?all=1&filters={filters}")).unwrap().json().as_array().unwrap().len()
}

#[test]
fn a_command_that_fails_says_its_exit_code_and_a_client_that_goes_ends_its_build() {
    let lab = Lab::start(&program()).unwrap();

    let failing = context(&[("Dockerfile", "FROM busybox\nRUN exit 7\n")]);
    let last = last_line(&lab.post_bytes("/build", &failing).unwrap().text());
    assert_eq!(last["errorDetail"]["code"], 7, "{last}");
    assert_eq!(last["error"], last["errorDetail"]["message"]);
    let wrong = context(&[("Dockerfile", "FROM busybox\nCOPY missing /\n")]);
    let last = last_line(&lab.post_bytes("/build", &wrong).unwrap().text());
    assert!(last["errorDetail"]["message"].is_string() && last["errorDetail"]["code"].is_null(), "{last}");

    // it says something, then nothing for a long time: nothing that is written tells the daemon that nobody reads
    let endless = context(&[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 3600\n")]);
    let head = format!(
        "POST /build HTTP/1.1\r\nHost: isle\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        endless.len()
    );
    let mut stream = http::raw(&lab.socket(), head.as_bytes()).unwrap();
    stream.write_all(&endless).unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("\"begun") {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(steps(&lab), 1);
    drop(stream);
    within(Duration::from_secs(20), "the step has ended", || steps(&lab) == 0);
}
