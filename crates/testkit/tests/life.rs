//! What is chosen when a container is made: log drivers, and the flags that decide how it lives.

use serde_json::{Value, json};
use testkit::{Lab, program};

#[test]
fn logs_are_rotated_read_back_whole_or_kept_nowhere() {
    let lab = Lab::start(&program()).unwrap();
    let run = |name: &str, log: Value| {
        let script = "for i in $(seq 400); do echo line-$i; test $((i % 10)) != 0 || sleep 0.01; done; echo last >&2";
        lab.run(name, json!({ "Cmd": ["sh", "-c", script], "HostConfig": { "LogConfig": log } }));
        lab.wait(name);
    };
    let files = |name: &str| {
        let id = lab.inspect(name)["Id"].as_str().unwrap().to_owned();
        let directory = lab.root_directory().join("containers").join(&id);
        let names =
            std::fs::read_dir(directory).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|n| n.contains("json.log")).count()
    };
    // Three files of two thousand bytes have the end of it, in order and whole.
    run("rotated", json!({ "Type": "json-file", "Config": { "max-size": "2k", "max-file": "3" } }));
    assert_eq!(files("rotated"), 3);
    let (stdout, stderr) = lab.logs("rotated", "");
    assert_eq!(stderr, "last\n");
    let numbers: Vec<u32> = stdout.lines().map(|l| l.strip_prefix("line-").unwrap().parse().unwrap()).collect();
    assert!(numbers.len() > 20 && numbers.len() < 400 && numbers.last() == Some(&400), "{stdout}");
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "none is missing between: {stdout}");
    assert_eq!(lab.logs("rotated", "tail=40").0.lines().count(), 39, "from older files, too");

    run("local", json!({ "Type": "local" }));
    assert_eq!(lab.logs("local", "").0.lines().count(), 400);
    assert_eq!(lab.inspect("local")["LogPath"], "");
    run("whole", json!({ "Type": "", "Config": {} }));
    assert_eq!(lab.logs("whole", "").0.lines().count(), 400);
    assert_eq!(lab.inspect("whole")["HostConfig"]["LogConfig"]["Type"], "json-file");

    run("none", json!({ "Type": "none" }));
    let refused = lab.get("/containers/none/logs?stdout=1").unwrap();
    assert_eq!((refused.status, refused.message()), (501, "configured logging driver does not support reading".into()));
    assert_eq!((files("none"), lab.inspect("none")["LogPath"].as_str()), (0, Some("")));

    for (log, words) in [
        (json!({ "Type": "json-file", "Config": { "nope": "1" } }), "unknown log opt 'nope' for json-file log driver"),
        (json!({ "Type": "local", "Config": { "tag": "x" } }), "unknown log opt 'tag' for local log driver"),
        (json!({ "Type": "syslog" }), "logger: no log driver named 'syslog' is registered"),
    ] {
        let body = json!({ "Image": "busybox", "HostConfig": { "LogConfig": log } });
        assert_eq!(lab.tell("/containers/create", body, 400).message(), words);
    }
    let journald = json!({ "Image": "busybox", "HostConfig": { "LogConfig": { "Type": "journald" } } });
    assert!(lab.tell("/containers/create", journald, 400).message().contains("failed to initialize logging driver"));
}

#[test]
fn lines_of_a_log_that_cannot_be_written_are_told_of() {
    let mut lab = Lab::start(&program()).unwrap();
    let id = lab.create("loser", json!({ "Cmd": ["sh", "-c", "echo one; echo two; exec sleep 600"] }));
    let log = lab.root_directory().join("containers").join(&id).join(format!("{id}-json.log"));
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", log).unwrap();
    lab.ask("/containers/loser/start", 204);
    let warnings = |lab: &Lab| lab.get("/info").unwrap().json()["Warnings"].to_string();
    let is_told = |lab: &Lab| {
        testkit::within(std::time::Duration::from_secs(10), "a client is told", || {
            warnings(lab).contains("2 lines of container loser's log are lost")
        });
    };
    is_told(&lab);
    let said = lab.log();
    assert!(said.contains("lines of its log are lost"), "{said}");
    // The next daemon was not there when it happened.
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    is_told(&lab);
    lab.remove("loser");
    assert!(!warnings(&lab).contains("loser"));
}

#[test]
fn all_files_of_a_log_are_read_however_many_it_may_have() {
    let lab = Lab::start(&program()).unwrap();
    let script = "for i in $(seq 400); do echo line-$i; test $((i % 10)) != 0 || sleep 0.01; done";
    let log = json!({ "Type": "json-file", "Config": { "max-size": "2k", "max-file": "30" } });
    lab.run("many", json!({ "Cmd": ["sh", "-c", script], "HostConfig": { "LogConfig": log } }));
    lab.wait("many");
    let directory = lab.root_directory().join("containers").join(lab.inspect("many")["Id"].as_str().unwrap());
    let names = || std::fs::read_dir(&directory).unwrap().flatten().map(|e| e.file_name());
    let files = names().filter(|n| n.to_string_lossy().contains("json.log")).count();
    assert!((17..30).contains(&files), "none was taken away, and there are {files}");
    let whole: String = (1..=400).map(|i| format!("line-{i}\n")).collect();
    assert_eq!(lab.logs("many", "").0, whole);
    let attached = lab.open("/containers/many/attach?logs=1&stdout=1", "").rest();
    assert_eq!(testkit::http::demultiplex(&attached).0, whole);
}

#[test]
fn the_flags_of_a_life_reach_the_container() {
    let lab = Lab::start(&program()).unwrap();
    let cid = lab.directory().join("cid").display().to_string();
    let sh = |flags: &[&str], script: &str| {
        let arguments: Vec<&str> = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
        let ours = lab.isle(&arguments);
        let _ = std::fs::remove_file(&cid);
        if let Some(theirs) = lab.docker(&arguments) {
            assert_eq!((ours.code, &ours.stdout), (theirs.code, &theirs.stdout), "{arguments:?}: {}", theirs.stderr);
        }
        ours.stdout.trim().to_owned()
    };
    assert_eq!(sh(&["--sysctl", "net.ipv4.ip_default_ttl=33"], "cat /proc/sys/net/ipv4/ip_default_ttl"), "33");
    assert_eq!(sh(&["--oom-score-adj", "500", "--userns=host"], "cat /proc/self/oom_score_adj"), "500");
    assert_eq!(sh(&["--shm-size", "10m"], "df /dev/shm | awk 'END { print $2 }'"), "10240");
    assert_eq!(sh(&["--group-add", "4", "--group-add", "nogroup"], "id -G"), "0 4 65534");
    // The bare name beside the whole one, as in Docker.
    assert_eq!(sh(&["--hostname", "h1.example.com"], "grep h1 /etc/hosts | cut -f2"), "h1.example.com h1");
    assert_eq!(sh(&["--cgroupns", "private"], "grep -v ':/$' /proc/self/cgroup"), "");
    assert_ne!(sh(&["--cgroupns", "host"], "sed 's/.*isle/isle/; s/[^/]*$//' /proc/self/cgroup | grep isle"), "");
    assert_eq!(
        sh(&["--uts", "host"], "hostname"),
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim()
    );
    assert_eq!(sh(&["--pid", "host"], "test -d /proc/2 && echo host"), "host");
    let ipc = std::fs::read_link("/proc/self/ns/ipc").unwrap().display().to_string();
    assert_eq!(sh(&["--ipc", "host"], "readlink /proc/self/ns/ipc"), ipc);
    assert_eq!(sh(&["--device", "/dev/zero:/dev/nought:r"], "head -c 3 /dev/nought | wc -c"), "3");
    assert_eq!(sh(&["--device-cgroup-rule", "c 10:229 rwm"], "mknod /k c 10 229 && : < /k && echo may"), "may");
    assert_eq!(sh(&[], "mknod /k c 10 229; : < /k && echo may"), "");
    assert_eq!(sh(&["-a", "stderr"], "echo out; echo err >&2"), "");
    assert!(sh(&["--add-host", "here:host-gateway"], "grep here /etc/hosts").starts_with("172.17.0.1"));
    assert_eq!(sh(&["--cidfile", &cid], "true"), "");
    let _ = std::fs::remove_file(&cid);
    lab.isle(&["run", "--cidfile", &cid, "--name", "named", "busybox", "true"]).ok();
    assert_eq!(std::fs::read_to_string(&cid).unwrap(), lab.inspect("named")["Id"].as_str().unwrap());
    assert!(
        lab.isle(&["run", "--cidfile", &cid, "busybox", "true"])
            .refused()
            .to_lowercase()
            .contains("container id file found")
    );
    let gpus = lab.isle(&["run", "--gpus", "all", "busybox", "true"]);
    assert!(gpus.code == 125 && gpus.stderr.contains("could not select device driver"), "{gpus:?}");
    for (command, code) in [("/none", 127), ("/etc", 126)] {
        assert_eq!(lab.isle(&["run", "--rm", "busybox", command]).code, code);
    }
}

#[test]
fn a_pause_that_meets_a_command_keeps_no_daemon_waiting() {
    let mut lab = Lab::start(&program()).unwrap();
    let id = lab.run("still", json!({ "Cmd": ["sleep", "600"] }));
    for _ in 0..12 {
        let body = json!({ "Cmd": ["true"] });
        let exec = lab.post(&format!("/containers/{id}/exec"), body).unwrap().json()["Id"].as_str().unwrap().to_owned();
        let socket = lab.socket();
        let begin = std::thread::spawn(move || {
            testkit::http::request(&socket, "POST", &format!("/exec/{exec}/start"), br#"{"Detach":true}"#)
        });
        lab.ask(&format!("/containers/{id}/pause"), 204);
        // It began before, or is told that it cannot: it is not left half begun, and nothing waits for it.
        let begun = begin.join().unwrap().unwrap();
        assert!([200, 409].contains(&begun.status), "{}", begun.text());
        lab.ask(&format!("/containers/{id}/unpause"), 204);
    }
    lab.ask(&format!("/containers/{id}/pause"), 204);
    lab.kill_daemon();
    lab.start_daemon().unwrap();
    assert_eq!(lab.inspect("still")["State"]["Paused"], true);
    lab.ask(&format!("/containers/{id}/unpause"), 204);
    assert_eq!(lab.exec("still", &["echo", "on"]).ok(), "on");
}
