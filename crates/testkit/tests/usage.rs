//! What containers use and which processes they have: `stats` and `top`, by API, docker and our own client.

use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Lab, program, within};

#[test]
fn stats_and_top_show_what_a_container_does() {
    let lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "net" }));
    let script = "echo up; while :; do :; done";
    let host = json!({ "Memory": 64 << 20, "PidsLimit": 50, "NetworkMode": "net" });
    let id = lab.run("busy", json!({ "Cmd": ["sh", "-c", script], "HostConfig": host }));
    lab.up("busy");
    lab.exec("busy", &["ping", "-c", "1", "-W", "1", "127.0.0.11"]);
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value}"));

    let once = lab.get("/containers/busy/stats?stream=false").unwrap().json();
    assert_eq!((once["id"].as_str(), once["name"].as_str()), (Some(id.as_str()), Some("/busy")));
    let used = |stats: &Value| number(&stats["cpu_usage"]["total_usage"]);
    assert!(used(&once["cpu_stats"]) > used(&once["precpu_stats"]), "two samples: {once}");
    assert!(number(&once["cpu_stats"]["system_cpu_usage"]) > number(&once["precpu_stats"]["system_cpu_usage"]));
    assert!(number(&once["cpu_stats"]["online_cpus"]) >= 1);
    assert_ne!(once["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(once["memory_stats"]["limit"], 64 << 20);
    assert!(number(&once["memory_stats"]["usage"]) > 0);
    assert_eq!((number(&once["pids_stats"]["limit"]), number(&once["pids_stats"]["current"])), (50, 1));
    assert_eq!(once["networks"].as_object().unwrap().keys().collect::<Vec<_>>(), ["eth0"]);
    assert!(once["networks"]["eth0"]["rx_bytes"].is_u64() && once["networks"]["eth0"]["tx_dropped"].is_u64());

    let shot = lab.get("/containers/busy/stats?stream=false&one-shot=true").unwrap().json();
    assert_eq!(shot["preread"], "0001-01-01T00:00:00Z");
    // The stream goes on until the container is gone.
    let request = "GET /containers/busy/stats HTTP/1.1\r\nHost: isle\r\nConnection: close\r\n\r\n";
    let mut stream = testkit::http::raw(&lab.socket(), request.as_bytes()).unwrap();
    let mut text = String::new();
    within(Duration::from_secs(20), "two samples come", || {
        let mut bytes = [0; 4096];
        let length = std::io::Read::read(&mut stream, &mut bytes).unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        text.matches("\"precpu_stats\"").count() >= 2
    });

    let top = lab.get("/containers/busy/top").unwrap().json();
    assert_eq!(top["Titles"], json!(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]));
    let row = &top["Processes"][0];
    assert_eq!((row[0].as_str(), row[7].as_str()), (Some("root"), Some(format!("sh -c {script}").as_str())));
    assert_eq!(row[1].as_str().unwrap(), lab.inspect("busy")["State"]["Pid"].to_string());
    let chosen = lab.get("/containers/busy/top?ps_args=-o%20pid,comm").unwrap().json();
    assert_eq!((&chosen["Titles"], &chosen["Processes"][0][1]), (&json!(["PID", "COMMAND"]), &json!("sh")));

    let shown = |output: String| {
        let row = output.lines().find(|l| l.contains("busy")).expect("a row").to_owned();
        assert!(output.starts_with("CONTAINER ID   NAME"), "{output}");
        assert!(row.starts_with(&id[..12]) && row.contains(" / 64MiB"), "{output}");
        let share = row.split_whitespace().nth(2).and_then(|w| w.strip_suffix('%')).and_then(|n| n.parse::<f64>().ok());
        assert!(share.expect("a share") > 0.0, "{output}");
    };
    lab.create("idle", json!({ "Cmd": ["true"] }));
    shown(lab.isle(&["stats", "--no-stream", "--all"]).ok());
    assert_eq!(lab.isle(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "idle"]).ok(), "idle --");
    assert!(lab.isle(&["stats", "--no-stream", "none"]).refused().contains("No such container: none"));
    assert!(lab.isle(&["top", "busy", "aux"]).ok().starts_with("USER"));
    if let Some(stats) = lab.docker(&["stats", "--no-stream"]) {
        shown(stats.ok());
        assert!(lab.docker(&["top", "busy", "-o", "pid,args"]).expect("docker").ok().contains("while :"));
    }

    // One that does not run uses nothing, and has no processes.
    let idle = lab.get("/containers/idle/stats?stream=false").unwrap().json();
    assert_eq!((idle["name"].as_str(), idle["read"].as_str()), (Some("/idle"), Some("0001-01-01T00:00:00Z")));
    let refused = lab.get("/containers/idle/top").unwrap();
    assert_eq!(refused.status, 409);
    assert!(refused.message().ends_with("is not running"), "{}", refused.text());
    assert_eq!(lab.get("/containers/none/stats").unwrap().status, 404);
    lab.remove("busy");
    // What is left of it comes, and then the end: the connection is not kept open.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
}
