//! What a client experiences of a build: by the classic builder.

use serde_json::{Value, json};
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

#[test]
fn ob_01_what_builds_and_archives_do_to_images_is_told() {
    let lab = Lab::start(&program()).unwrap();
    let seen = |since: &str| -> Vec<Value> {
        let filters = "%7B%22type%22%3A%5B%22image%22%2C%22builder%22%5D%7D";
        let told = lab.get(&format!("/events?since={since}&until=0s&filters={filters}")).unwrap().text();
        told.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let mut before = seen("1").len();
    // Of what was told since the last time: kind, action, name.
    let mut news = || -> Vec<String> {
        let all = seen("1");
        let new = all[before..].iter().map(|e| {
            let name = e["Actor"]["Attributes"]["name"].as_str().unwrap_or("-");
            format!("{} {} {name}", e["Type"].as_str().unwrap(), e["Action"].as_str().unwrap())
        });
        let new = new.collect();
        before = all.len();
        new
    };
    let id = |name: &str| lab.get(&format!("/images/{name}/json")).unwrap().json()["Id"].as_str().unwrap().to_owned();

    let dockerfile = [("Dockerfile", "FROM busybox\nRUN head -c 20000 /dev/urandom > /file\n")];
    build(&lab, "t=made", &dockerfile);
    let first = id("made");
    build(&lab, "t=made&nocache=1", &dockerfile);
    assert_eq!(news(), ["image tag made:latest", "image tag made:latest"]);
    let pruned = lab.post_bytes("/build/prune", b"").unwrap().json();
    assert_eq!(news(), [format!("image delete {first}"), "builder prune -".to_owned()]);
    let told = seen("1").pop().unwrap();
    let reclaimed = told["Actor"]["Attributes"]["reclaimed"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(reclaimed >= 20000, "{told}");
    assert_eq!(pruned["SpaceReclaimed"], reclaimed);

    let made = id("made");
    let archive = lab.get("/images/made/get").unwrap().body;
    assert_eq!(news(), [format!("image save {made}")]);
    assert_eq!(lab.post_bytes("/images/load", &archive).unwrap().status, 200);
    assert_eq!(news(), ["image load made:latest"]);
    let files = context(&[("file", "content")]);
    assert_eq!(lab.post_bytes("/images/create?fromSrc=-&repo=imported", &files).unwrap().status, 200);
    assert_eq!(news(), [format!("image import {}", id("imported"))]);
    lab.tell("/images/prune", json!({}), 200);
    assert_eq!(news(), ["image prune -"]);
}

#[test]
fn a_step_names_the_container_that_runs_it_and_ancestors_have_what_is_built_on_them() {
    let lab = Lab::start(&program()).unwrap();
    let said = build(&lab, "t=child", &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let running = said.split("Running in ").nth(1).and_then(|rest| rest.get(..12)).unwrap();
    let filters = "%7B%22event%22%3A%5B%22start%22%5D%7D";
    let told = lab.get(&format!("/events?since=1&until=0s&filters={filters}")).unwrap().text();
    let started: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert!(started["Actor"]["ID"].as_str().unwrap().starts_with(running), "{running}: {started}");

    build(&lab, "t=grandchild", &[("Dockerfile", "FROM child\nLABEL a=b\n")]);
    for (name, image) in [("one", "busybox"), ("two", "child"), ("three", "grandchild")] {
        lab.create(name, json!({ "Image": image }));
    }
    let of = |image: &str| {
        let filters = format!("%7B%22ancestor%22%3A%5B%22{image}%22%5D%7D");
        let listed = lab.get(&format!("/containers/json?all=1&filters={filters}")).unwrap().json();
        let name = |c: &Value| c["Names"][0].as_str().unwrap().trim_start_matches('/').to_owned();
        let mut names: Vec<String> = listed.as_array().unwrap().iter().map(name).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(["busybox", "child", "grandchild", "nosuch"].map(of), ["one three two", "three two", "three", ""]);
}

/// Builds; what the stream says. It must not fail.
fn build(lab: &Lab, query: &str, files: &[(&str, &str)]) -> String {
    let text = lab.post_bytes(&format!("/build?{query}"), &context(files)).unwrap().text();
    assert!(!text.contains("errorDetail"), "{text}");
    text
}

#[test]
fn a_build_that_fails_before_it_said_anything_has_a_status_and_a_quiet_one_shows_what_it_kept_back() {
    let lab = Lab::start(&program()).unwrap();
    let ask = |query: &str, dockerfile: &str| {
        lab.post_bytes(&format!("/build?{query}"), &context(&[("Dockerfile", dockerfile)])).unwrap()
    };
    let unknown = ask("q=1", "FROM busybox\nRUM true\n");
    assert_eq!(unknown.status, 400, "{}", unknown.text());
    assert!(unknown.message().contains("unknown instruction: RUM"), "{}", unknown.text());
    assert_eq!(ask("dockerfile=none", "FROM busybox\n").status, 400);
    assert_eq!(ask("memory=1", "FROM busybox\n").status, 400);

    let good = ask("q=1", "FROM busybox\nRUN echo unheard\n");
    let lines: Vec<Value> = good.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["stream"].as_str().is_some_and(|s| s.starts_with("sha256:"))), "{lines:?}");
    assert!(!good.text().contains("unheard"), "{lines:?}");
    let bad = ask("q=1", "FROM busybox\nRUN echo heard; exit 3\n");
    assert_eq!(bad.status, 200);
    assert!(bad.text().contains("heard\\n"), "{}", bad.text());
    assert_eq!(last_line(&bad.text())["errorDetail"]["code"], 3);
}

#[test]
fn a_context_may_end_without_filling_its_last_block_but_not_inside_a_file() {
    let lab = Lab::start(&program()).unwrap();
    let text = format!("FROM busybox\nCOPY last /\nRUN wc -c </last\n#{}", "x".repeat(700));
    let whole = context(&[("Dockerfile", &text), ("last", &"y".repeat(1000))]);
    let ask = |bytes: &[u8]| lab.post_bytes("/build", bytes).unwrap();
    // Two blocks of zeros at the end, and 24 bytes that fill the last of the file's.
    let end = whole.len() - 1024 - 24;
    for length in [whole.len(), end + 24, end] {
        let said = ask(&whole[..length]).text();
        assert!(said.contains("\"1000\\n\"") || said.contains("Using cache"), "{said}");
        assert!(said.contains("Successfully built"), "{said}");
    }
    for length in [end - 1, end - 500, end - 999] {
        let cut = ask(&whole[..length]);
        assert_eq!(cut.status, 400, "{}", cut.text());
        assert!(cut.message().contains("unexpected EOF"), "{}", cut.text());
    }
}

#[test]
fn a_docker_sends_a_dockerfile_from_elsewhere() {
    let lab = Lab::start(&program()).unwrap();
    let directory = lab.directory().join("elsewhere");
    std::fs::create_dir_all(directory.join("context")).unwrap();
    std::fs::write(directory.join("other"), "FROM busybox\nCOPY one /\nRUN cat /one\n").unwrap();
    std::fs::write(directory.join("context/one"), "of the context\n").unwrap();
    let [other, context] = ["other", "context"].map(|name| directory.join(name).display().to_string());
    let Some(built) = lab.docker(&["build", "-f", &other, &context]) else { return };
    assert!(built.code == 0 && built.stdout.contains("of the context"), "{}{}", built.stdout, built.stderr);
}

#[test]
fn a_command_sees_mounts_that_are_not_in_its_image() {
    let lab = Lab::start(&program()).unwrap();
    let dockerfile = "FROM busybox AS made\nRUN mkdir /out && echo made > /out/file\nFROM busybox\nWORKDIR /src\n\
         RUN --mount=from=made,src=/out,target=/from --mount=target=ctx --mount=type=tmpfs,target=/tmpfs \
         --mount=source=one,target=/new/place/one \
         --mount=type=cache,target=/cache --mount=type=secret,id=none \
         cat /from/file ctx/one /new/place/one > /seen; grep ' /tmpfs ' /proc/mounts | cut -d' ' -f1,3 >> /seen; \
         touch ctx/no 2>/dev/null || echo read-only >> /seen; echo x >> /cache/runs; wc -l < /cache/runs >> /seen; \
         ls /run/secrets 2>/dev/null || echo no secret >> /seen\n";
    let files = [("Dockerfile", dockerfile), ("one", "1\n")];
    build(&lab, "t=mounts", &files);
    let said = "made\n1\n1\ntmpfs tmpfs\nread-only\n1\nno secret\n";
    let command = json!(["sh", "-c", "cat /seen; ls -d /from /src/ctx /tmpfs /cache /new /run/secrets 2>/dev/null"]);
    lab.run("seen", json!({ "Image": "mounts", "Cmd": command }));
    lab.wait("seen");
    assert_eq!(lab.logs("seen", "").0, said, "and no places of mounts are left");

    // what it binds is part of the step, what it caches stays
    assert_eq!(build(&lab, "t=mounts", &files).matches("Using cache").count(), 3);
    build(&lab, "t=mounts2", &[("Dockerfile", dockerfile), ("one", "2\n")]);
    lab.run("seen2", json!({ "Image": "mounts2", "Cmd": ["cat", "/seen"] }));
    lab.wait("seen2");
    assert_eq!(lab.logs("seen2", "").0, "made\n2\n2\ntmpfs tmpfs\nread-only\n2\nno secret\n");
    assert_eq!(lab.post_bytes("/build/prune", b"").unwrap().status, 200);
    build(&lab, "t=mounts3&nocache=1", &files);
    lab.run("seen3", json!({ "Image": "mounts3", "Cmd": ["cat", "/seen"] }));
    lab.wait("seen3");
    assert_eq!(lab.logs("seen3", "").0, said);

    let wanting = context(&[("Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=token,required true\n")]);
    let last = last_line(&lab.post_bytes("/build", &wanting).unwrap().text());
    assert!(last["error"].as_str().unwrap().contains("secret token: not found"), "{last}");
}

#[test]
fn files_keep_their_directories_and_are_what_their_digest_says() {
    let lab = Lab::start(&program()).unwrap();
    let dockerfile = "# syntax=docker/dockerfile:1\nFROM busybox AS from\nCOPY --link --parents a/b/x c/./d/y e /to/\n\
         COPY --exclude=*.log --chmod=600 <<one <<two /here/\n1\none\n2\ntwo\nFROM busybox\n\
         COPY --parents --from=from /to/./a /\nCOPY --from=from /to /to\nCOPY --from=from /here /here\n\
         RUN <<EOF\nset -e\nfind /to /a /here -type f | sort\ncat /here/*\nEOF\n";
    let files = [("Dockerfile", dockerfile), ("a/b/x", "x"), ("a/z", "z"), ("c/d/y", "y"), ("e/f/g", "g")];
    let said = build(&lab, "nocache=1", &files);
    let found = "/a/b/x\\n/here/one\\n/here/two\\n/to/a/b/x\\n/to/d/y\\n/to/e/f/g\\n1\\n2\\n";
    let lines: String = said.lines().filter_map(|l| l.strip_prefix("{\"stream\":\"")).collect();
    assert!(lines.replace("\"}", "").contains(found), "{said}");

    // somebody in the daemon's namespace serves a file
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "fetched\n").unwrap();
    let mut server = lab.in_host(|| {
        let mut command = std::process::Command::new("/bin/busybox");
        command.args(["httpd", "-f", "-p", "127.0.0.1:8099", "-h"]).arg(directory.path()).spawn().unwrap()
    });
    let connect = || lab.in_host(|| std::net::TcpStream::connect("127.0.0.1:8099").is_ok());
    within(Duration::from_secs(20), "the server listens", connect);
    let add = |digest: &str| {
        let text = format!("FROM busybox\nADD --checksum=sha256:{digest} http://127.0.0.1:8099/file /\n");
        lab.post_bytes("/build", &context(&[("Dockerfile", &text)])).unwrap().text()
    };
    let (right, wrong) = (add(FETCHED), add(&"0".repeat(64)));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(!right.contains("errorDetail"), "{right}");
    assert!(wrong.contains("does not have the digest that it should have"), "{wrong}");
}

/// The digest of `fetched` and a line's end.
const FETCHED: &str = "f6e379b0639054c51806fd5d67948cbcaebd354b0e91a7683932b043c5c3ba32";

#[test]
fn a_docker_without_buildx_builds_by_the_classic_builder() {
    let lab = Lab::start(&program()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    std::fs::write(directory.path().join("Dockerfile"), "FROM busybox\nRUN echo built > /file\n").unwrap();
    let Some(built) = lab.docker(&["build", "-t", "classic", &path]) else {
        return;
    };
    assert_eq!(built.code, 0, "{} {}", built.stdout, built.stderr);
    assert_eq!(lab.get("/images/classic/json").unwrap().status, 200);
    std::fs::write(directory.path().join("Dockerfile"), "FROM busybox\nRUN exit 7\n").unwrap();
    assert_eq!(lab.docker(&["build", &path]).map(|o| o.code), Some(7));
}

#[test]
fn stages_that_nobody_needs_are_not_built() {
    let lab = Lab::start(&program()).unwrap();
    let dockerfile = "ARG BASE=one\nFROM busybox AS one\nRUN echo 1 > /1\nFROM busybox AS not\nRUN false\n\
         FROM busybox AS two\nRUN echo 2 > /2\nFROM ${BASE}\nCOPY --from=2 /2 /2\nRUN cat /1 /2\n";
    let said = build(&lab, "", &[("Dockerfile", dockerfile)]);
    assert!(said.contains("Step 8/8") && !said.contains("RUN false"), "{said}");
    let failing = lab.post_bytes("/build?target=not", &context(&[("Dockerfile", dockerfile)])).unwrap();
    assert_eq!(last_line(&failing.text())["errorDetail"]["code"], 1);
}

#[test]
fn commands_have_the_limits_that_their_build_is_given() {
    let lab = Lab::start_with(&program(), &["--default-ulimit", "nofile=640:1280"]).unwrap();
    let dockerfile = "FROM busybox\nRUN ulimit -n; ulimit -c; df /dev/shm | awk 'END { print $2 }'; grep -h . \
        /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; grep here /etc/hosts\n";
    let ulimits = "%5B%7B%22Name%22%3A%22core%22%2C%22Soft%22%3A1024%2C%22Hard%22%3A2048%7D%5D";
    let query = format!("memory=67108864&shmsize=10485760&ulimits={ulimits}&extrahosts=here:192.0.2.7");
    let said = build(&lab, &query, &[("Dockerfile", dockerfile)]);
    for line in ["640\\n", "10240\\n", "67108864\\n", "192.0.2.7"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let small = lab.post_bytes("/build?memory=1", &context(&[("Dockerfile", "FROM busybox\n")])).unwrap().text();
    assert!(small.contains("Minimum memory limit allowed is 6MB"), "{small}");
    // By our client, too.
    let directory = lab.directory().join("limited");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("Dockerfile"), "FROM busybox\nRUN ulimit -n; df /dev/shm | awk 'END { print $2 }'\n")
        .unwrap();
    let said = lab.isle(&["build", "--shm-size", "5m", "--ulimit", "nofile=99", directory.to_str().unwrap()]).ok();
    assert!(said.contains("\n99\n5120\n"), "{said}");
}

#[test]
fn what_a_command_says_of_errors_is_red_and_the_last_line_tells_the_name() {
    let lab = Lab::start(&program()).unwrap();
    let said = build(
        &lab,
        "t=named&cachefrom=%5B%22none-such%22%5D",
        &[("Dockerfile", "FROM busybox\nRUN echo o; echo e >&2\n")],
    );
    let texts: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let streams: Vec<&str> = texts.iter().filter_map(|t| t["stream"].as_str()).collect();
    assert!(streams.contains(&"o\n") && streams.contains(&"\u{1b}[91me\n\u{1b}[0m"), "{said}");
    assert_eq!(streams.last(), Some(&"Successfully tagged named:latest\n"));
}

#[test]
fn a_context_comes_from_an_address() {
    let lab = Lab::start(&program()).unwrap();
    let archive = context(&[("Dockerfile", "FROM busybox\nCOPY one /\nRUN cat /one\n"), ("one", "of the archive\n")]);
    let server = lab.in_host(|| std::net::TcpListener::bind("127.0.0.1:8000").unwrap());
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let mut head = [0; 1024];
            let length = stream.read(&mut head).unwrap_or_default();
            let body = match String::from_utf8_lossy(&head[..length]).contains("GET /context.tar ") {
                true => archive.clone(),
                false => b"FROM busybox\nRUN echo by itself\n".to_vec(),
            };
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&body);
        }
    });
    let ask = |remote: &str| lab.post_bytes(&format!("/build?remote={remote}"), b"").unwrap();
    let whole = ask("http://127.0.0.1:8000/context.tar").text();
    assert!(whole.contains("of the archive") && whole.contains("Successfully built"), "{whole}");
    assert!(lab.isle(&["build", "http://127.0.0.1:8000/Dockerfile"]).ok().contains("\nby itself\n"));
    // And what is imported.
    let imported = lab.isle(&["import", "-c", "CMD cat /one", "http://127.0.0.1:8000/context.tar", "fetched"]).ok();
    let (first, id) = imported.split_once('\n').unwrap();
    assert_eq!(first, "Downloading from http://127.0.0.1:8000/context.tar");
    assert_eq!(lab.get("/images/fetched/json").unwrap().json()["Id"], id);
    assert_eq!(lab.isle(&["run", "--rm", "fetched", "true"]).code, 127, "there is nothing but what was fetched");
    let nowhere = lab.isle(&["import", "http://127.0.0.1:8001/x.tar"]).refused();
    assert!(nowhere.contains("http://127.0.0.1:8001/x.tar"), "{nowhere}");
    let refused = ask("https://example.org/x/y.git%23main");
    assert!(refused.status == 400 && refused.message().contains("clone it"), "{}", refused.text());
    assert_eq!(
        (ask("nowhere").status, ask("nowhere").message()),
        (400, "remoteURL (nowhere) could not be recognized as URL".into())
    );
}
