//! The daemon may go, by SIGTERM or SIGKILL, and so may the keeper: containers run on, names and ports answer.
//!
//! ```text
//!   outside ── eth0 ── host ── front: web (8000, published 18000), client
//! ```

use serde_json::json;
use std::process::Command;
use std::time::Duration;
use testkit::client::POLITE;
use testkit::{HOST, Lab, program, within};

const WEB: &str = "mkdir -p /w; echo hello >/w/index.html; exec httpd -f -p 8000 -h /w";

/// A network with a web server that is published, and a client beside it.
fn lab() -> Lab {
    let lab = testkit::lab();
    lab.network(json!({ "Name": "front" }));
    lab.run(
        "web",
        json!({
            "Cmd": ["sh", "-c", WEB],
            "HostConfig": { "NetworkMode": "front", "PortBindings": { "8000/tcp": [{ "HostPort": "18000" }] } },
        }),
    );
    lab.run("client", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } }));
    within(Duration::from_secs(5), "the server answers", || published(&lab));
    lab
}

/// Whether the outside reaches the published port.
fn published(lab: &Lab) -> bool {
    let url = format!("http://{HOST}:18000/");
    lab.outside(Command::new("curl").args(["-fsS", "-m", "2", &url])).stdout == "hello\n"
}

/// Runs a command in a container's namespaces without a daemon.
fn inside(lab: &Lab, pid: &str, command: &[&str]) -> testkit::Output {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-t", pid, "-n", "-m", "-p", "--"]).args(command);
    lab.on_host(&mut nsenter)
}

fn resolves(lab: &Lab, pid: &str, name: &str) -> bool {
    inside(lab, pid, &["nslookup", "-type=a", name]).stdout.contains("Name:")
}

fn pid(lab: &Lab, name: &str) -> String {
    lab.inspect(name)["State"]["Pid"].to_string()
}

fn check_absence(mut lab: Lab, leave: impl Fn(&mut Lab)) {
    let client = pid(&lab, "client");
    let dying = lab.run(
        "dying",
        json!({
            "Cmd": ["sh", "-c", "echo first; sleep 2; echo last; exit 7"],
            "HostConfig": { "NetworkMode": "front" },
        }),
    );
    let id = lab.inspect("web")["Id"].clone();
    leave(&mut lab);
    assert!(resolves(&lab, &client, "web"), "names are answered without a daemon");
    assert!(inside(&lab, &client, &["wget", "-q", "-O", "-", "http://web:8000/"]).stdout == "hello\n");
    assert!(published(&lab), "published ports answer without a daemon");
    within(Duration::from_secs(6), "the dead one's name is gone", || !resolves(&lab, &client, "dying"));
    assert!(resolves(&lab, &client, "web"));

    lab.start_daemon().unwrap();
    let web = lab.inspect("web");
    assert_eq!((web["Id"].clone(), web["State"]["Running"].clone()), (id, json!(true)));
    let dead = lab.inspect(&dying);
    assert_eq!((dead["State"]["Status"].clone(), dead["State"]["ExitCode"].clone()), (json!("exited"), json!(7)));
    let logs = lab.get(&format!("/containers/{dying}/logs?stdout=1&stderr=1")).unwrap();
    assert_eq!(testkit::http::demultiplex(&logs.body).0, "first\nlast\n", "nothing of the log is lost");
    assert!(published(&lab) && resolves(&lab, &client, "web"));
    assert_eq!(lab.exec("client", &["wget", "-q", "-O", "-", "http://web:8000/"]).ok(), "hello");
    // What the next daemon makes joins what the last one left.
    lab.run("late", json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": "front" } }));
    assert!(resolves(&lab, &client, "late"));
    let removed = lab.delete("/containers/web?force=1").unwrap();
    assert_eq!(removed.status, 204, "{}", removed.text());
    assert!(!published(&lab));
    assert!(!resolves(&lab, &client, "web"));
}

#[test]
fn lc_05_the_daemon_stops_and_nobody_notices() {
    check_absence(lab(), Lab::stop_daemon);
}

#[test]
fn lc_06_the_daemon_is_killed_and_nobody_notices() {
    check_absence(lab(), Lab::kill_daemon);
}

#[test]
fn a_killed_keeper_is_back_at_once_with_every_name() {
    let lab = lab();
    let client = pid(&lab, "client");
    let keeper = lab.keeper_pid().expect("a keeper");
    assert!(Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap().success());
    // The query waits in the socket, which the daemon holds too.
    assert!(resolves(&lab, &client, "web"), "no query that was waiting is lost");
    within(Duration::from_secs(2), "another keeper", || lab.keeper_pid().is_some_and(|pid| pid != keeper));
    lab.run("late", json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": "front" } }));
    assert!(resolves(&lab, &client, "late"));
    assert!(published(&lab));
}

#[test]
fn keeper_and_daemon_killed_together_are_made_up_for_by_the_next_daemon() {
    let mut lab = lab();
    let client = pid(&lab, "client");
    let keeper = lab.keeper_pid().expect("a keeper");
    lab.kill_daemon();
    assert!(Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap().success());
    lab.start_daemon().unwrap();
    within(Duration::from_secs(1), "names answer", || resolves(&lab, &client, "web"));
    assert!(published(&lab));
    assert_eq!(lab.exec("client", &["wget", "-q", "-O", "-", "http://web:8000/"]).ok(), "hello");
}

#[test]
fn a_daemon_that_stops_with_nothing_running_leaves_only_files_and_networks() {
    let mut lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    let cgroups = |keeper: u32| {
        let line = std::fs::read(format!("/proc/{keeper}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let root = line.split('\0').skip_while(|word| *word != "--root-id").nth(1).expect("a root id").to_owned();
        let hierarchies = kernel::cgroup::Hierarchies::detect().unwrap();
        hierarchies.cgroup(&format!("isle-{root}"))
    };
    lab.run("web", json!({ "Cmd": ["sleep", "600"] }));
    let keeper = lab.keeper_pid().expect("a keeper");
    let cgroup = cgroups(keeper);
    lab.stop_daemon();
    assert_eq!(lab.keeper_pid(), Some(keeper), "somebody runs, and is answered");
    assert!(cgroup.exists());

    lab.start_daemon().unwrap();
    lab.ask("/containers/web/kill", 204);
    lab.wait("web");
    lab.stop_daemon();
    within(Duration::from_secs(10), "the keeper goes", || lab.keeper_pid().is_none());
    assert!(!cgroup.exists());
    let host = |command: &[&str]| lab.on_host(Command::new(command[0]).args(&command[1..])).ok();
    // The kernel takes a namespace's devices away when it has the time.
    within(Duration::from_secs(10), "only networks have devices", || {
        let links = host(&["ip", "-o", "link"]);
        let names: Vec<&str> = links.lines().filter_map(|l| l.split([':', '@']).nth(1)).map(str::trim).collect();
        names[..3] == ["lo", "eth0", "isle0"] && names.len() == 4 && names[3].starts_with("br-")
    });
    assert_eq!(host(&["nft", "list", "tables"]), "");
    // And all of it is there again with the next daemon.
    lab.start_daemon().unwrap();
    lab.ask("/containers/web/start", 204);
    assert!(lab.keeper_pid().is_some() && cgroup.exists());
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    let lab = testkit::lab();
    let mut second = Command::new(program());
    second.arg("daemon").arg("--root").arg(lab.root_directory()).arg("--run").arg(lab.directory().join("run2"));
    second.arg("--shim").arg(lab.shim());
    let socket = lab.directory().join("second.sock");
    let refused = lab.on_host(second.args(["--host", &format!("unix://{}", socket.display())])).refused();
    assert!(refused.contains("another daemon works on"), "{refused}");
    assert!(!socket.exists(), "nobody would answer there");
}

#[test]
fn a_daemon_that_cannot_listen_leaves_the_machine_as_it_was() {
    let lab = Lab::empty(&program()).unwrap();
    let _taken = lab.in_host(|| std::net::TcpListener::bind("127.0.0.1:2375").unwrap());
    let seen = |command: &[&str]| lab.on_host(Command::new(command[0]).args(&command[1..])).ok();
    let links = seen(&["ip", "-o", "link"]);
    let socket = lab.docker_host();
    let nowhere = format!("unix://{}/file/isle.sock", lab.directory().display());
    std::fs::write(lab.directory().join("file"), "no directory").unwrap();
    for arguments in [
        ["--host", "tcp://127.0.0.1:2375"],
        ["--host", nowhere.as_str()],
        ["--metrics-addr", "127.0.0.1:2375"],
        ["--group", "no-such-group"],
    ] {
        let mut daemon = Command::new(program());
        daemon.args(["daemon", "--host", &socket]).args(arguments).arg("--shim").arg(lab.shim());
        daemon.arg("--root").arg(lab.root_directory()).arg("--run").arg(lab.run_directory());
        daemon.arg("--resolv-conf").arg(lab.resolv_conf());
        let refused = lab.on_host(&mut daemon).refused();
        assert!(refused.contains("cannot") || refused.contains("not found"), "{refused}");
        assert_eq!(lab.keeper_pid(), None, "{arguments:?}");
        assert_eq!((seen(&["nft", "list", "tables"]), seen(&["ip", "-o", "link"])), (String::new(), links.clone()));
        assert!(!lab.root_directory().exists() && !lab.socket().exists(), "{arguments:?}");
    }
}

/// Asks for `web` a thousand times a second from inside the client's namespace, while `harm` is done; how many questions
/// were not answered, at first and after one retry.
fn unanswered(pid: &str, harm: impl FnOnce()) -> (usize, usize) {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let socket = kernel::netns::inside(std::os::fd::AsFd::as_fd(&namespace), || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket
    })
    .unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (harmed, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let answered = Mutex::new(BTreeSet::new());
    let ask = |id: u16| {
        let mut query = id.to_be_bytes().to_vec();
        query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'w', b'e', b'b', 0, 0, 1, 0, 1]);
        socket.send(&query).expect("the socket is never refused");
    };
    // The client's own buffer is small: answers are taken as they come.
    let listen = || {
        let mut answer = [0; 512];
        loop {
            match socket.recv(&mut answer) {
                Ok(length) => {
                    assert!(
                        length > 12 && answer[3] & 15 == 0 && answer[7] == 1,
                        "a wrong answer: {:?}",
                        &answer[..length]
                    );
                    answered.lock().unwrap().insert(u16::from_be_bytes([answer[0], answer[1]]));
                }
                Err(_) if done.load(Ordering::Relaxed) => return,
                Err(_) => {}
            }
        }
    };
    let (asked, first, retried) = std::thread::scope(|scope| {
        scope.spawn(listen);
        let asking = scope.spawn(|| {
            let mut asked = BTreeSet::new();
            while !harmed.load(Ordering::Relaxed) {
                let id = u16::try_from(asked.len()).expect("a minute at most");
                ask(id);
                asked.insert(id);
                std::thread::sleep(Duration::from_millis(1));
            }
            asked
        });
        // Whatever happens, the others end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(harm));
        harmed.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            done.store(true, Ordering::Relaxed);
            std::panic::resume_unwind(panic);
        }
        let asked = asking.join().unwrap();
        let open = || -> Vec<u16> { asked.difference(&answered.lock().unwrap()).copied().collect() };
        let end = Instant::now() + Duration::from_secs(1);
        while !open().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let first = open();
        first.iter().for_each(|id| ask(*id));
        let end = Instant::now() + Duration::from_secs(1);
        while !open().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        done.store(true, Ordering::Relaxed);
        (asked.len(), first.len(), open().len())
    });
    assert!(asked > 100, "only {asked} questions were asked");
    (first, retried)
}

#[test]
fn a_thousand_queries_a_second_are_all_answered_while_keepers_and_daemons_are_killed() {
    let mut lab = lab();
    let client = pid(&lab, "client");
    let (first, _) = unanswered(&client, || std::thread::sleep(Duration::from_secs(1)));
    assert_eq!(first, 0, "nothing is lost when nothing happens");
    let (first, retried) = unanswered(&client, || {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            let keeper = lab.keeper_pid().expect("a keeper");
            assert!(Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap().success());
            within(Duration::from_secs(2), "another keeper", || lab.keeper_pid().is_some_and(|pid| pid != keeper));
        }
        std::thread::sleep(Duration::from_millis(300));
    });
    // What a keeper had read and not yet answered when it was killed: at most one question each.
    assert!(first <= 3, "{first} questions were lost");
    assert_eq!(retried, 0, "a retry is answered");
    lab.kill_daemon();
    let (first, _) = unanswered(&client, || std::thread::sleep(Duration::from_secs(1)));
    assert_eq!(first, 0, "nothing is lost without a daemon");
    assert!(!lab.log().contains("panicked"), "{}", lab.log());
    lab.start_daemon().unwrap();
}

#[test]
fn an_upgrade_replaces_the_keeper_too_and_nobody_notices() {
    let mut lab = lab();
    let client = pid(&lab, "client");
    let keeper = lab.keeper_pid().expect("a keeper");
    let (first, _) = unanswered(&client, || {
        lab.stop_daemon();
        lab.upgrade();
        lab.start_daemon().unwrap();
        within(Duration::from_secs(2), "another keeper", || lab.keeper_pid().is_some_and(|pid| pid != keeper));
        std::thread::sleep(Duration::from_millis(200));
    });
    assert_eq!(first, 0, "no question is lost");
    assert!(published(&lab));
    lab.run("late", json!({ "Cmd": ["sleep", "60"], "HostConfig": { "NetworkMode": "front" } }));
    assert!(resolves(&lab, &client, "late"));
}

#[test]
fn dr_03_a_sharer_keeps_its_owners_names_over_a_new_keeper_and_its_own_rename() {
    let lab = lab();
    lab.run("sharer", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "container:client" } }));
    let client = pid(&lab, "client");
    let renamed = lab.post("/containers/sharer/rename?name=guest", serde_json::Value::Null).unwrap();
    assert_eq!(renamed.status, 204, "{}", renamed.text());
    assert!(resolves(&lab, &client, "web"));
    let keeper = lab.keeper_pid().expect("a keeper");
    assert!(Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap().success());
    within(Duration::from_secs(2), "another keeper", || lab.keeper_pid().is_some_and(|pid| pid != keeper));
    assert!(resolves(&lab, &client, "web"));
}

#[test]
fn a_container_that_leaves_its_last_network_sees_no_names_any_more() {
    let lab = lab();
    let client = pid(&lab, "client");
    assert!(resolves(&lab, &client, "web"));
    let left = lab.post("/networks/front/disconnect", json!({ "Container": "client" })).unwrap();
    assert_eq!(left.status, 200, "{}", left.text());
    let asked = inside(&lab, &client, &["nslookup", "-type=a", "web", "127.0.0.11"]);
    assert!(!asked.stdout.contains("Name:"), "{}", asked.stdout);
}

#[test]
fn dns_24_a_death_without_a_daemon_takes_out_the_names_on_networks_joined_later_too() {
    let mut lab = lab();
    lab.network(json!({ "Name": "back" }));
    lab.run("watcher", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "back" } }));
    let connect = |what: &str, network: &str, container: &str| {
        let path = format!("/networks/{network}/{what}");
        assert_eq!(lab.post(&path, json!({ "Container": container })).unwrap().status, 200);
    };
    connect("connect", "back", "web");
    // Where it has left and come back it is under another endpoint.
    connect("disconnect", "front", "web");
    connect("connect", "front", "web");
    let (client, watcher, web) = (pid(&lab, "client"), pid(&lab, "watcher"), pid(&lab, "web"));
    lab.kill_daemon();
    assert!(resolves(&lab, &client, "web") && resolves(&lab, &watcher, "web"));
    assert!(Command::new("kill").args(["-9", &web]).status().unwrap().success());
    within(Duration::from_secs(3), "the names are gone", || {
        !resolves(&lab, &watcher, "web") && !resolves(&lab, &client, "web")
    });
    lab.start_daemon().unwrap();
}

/// How many keepers run for the lab.
fn keepers(lab: &Lab) -> usize {
    let marker = lab.resolv_conf().display().to_string();
    testkit::processes().filter(|(_, line)| line.contains("keeper\0--root-id") && line.contains(&marker)).count()
}

#[test]
fn a_proxied_connection_outlives_its_keepers_upgrade() {
    use std::io::{Read, Write};
    let mut lab = lab();
    let connect = |lab: &Lab| {
        let stream = lab.in_host(|| std::net::TcpStream::connect("[::1]:18000")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    let fetch = |mut stream: std::net::TcpStream| {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.ends_with("hello\n"), "{page}");
    };
    let old = connect(&lab);
    // It is carried by the keeper that goes, once the server has taken it.
    let established = || {
        let shown = inside(&lab, &pid(&lab, "web"), &["netstat", "-tn"]).stdout;
        shown.lines().any(|line| line.contains(":8000") && line.contains("ESTABLISHED"))
    };
    within(Duration::from_secs(5), "the server has it", established);
    lab.stop_daemon();
    lab.upgrade();
    lab.start_daemon().unwrap();
    assert_eq!(keepers(&lab), 2, "the old keeper carries on");
    fetch(connect(&lab));
    fetch(old);
    within(Duration::from_secs(5), "the old keeper goes", || keepers(&lab) == 1);
}

#[test]
fn nobody_but_root_comes_near_the_keeper() {
    use std::os::unix::fs::PermissionsExt;
    let mut lab = Lab::start(&program()).unwrap();
    let directory = lab.run_directory();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    lab.stop_daemon();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    lab.start_daemon().unwrap();
    assert_eq!(mode(&directory), 0o711, "a directory that was there is closed");
    assert_eq!(mode(&directory.join("keeper.sock")), 0o600);
}

#[test]
fn without_live_restore_the_daemon_stops_its_containers_first_and_the_next_one_starts_them() {
    let mut lab = Lab::start_with(&program(), &["--live-restore=false"]).unwrap();
    assert_eq!(lab.get("/info").unwrap().json()["LiveRestoreEnabled"], false);
    for policy in ["no", "always", "unless-stopped"] {
        lab.run(policy, json!({ "Cmd": POLITE, "HostConfig": { "RestartPolicy": { "Name": policy } } }));
        lab.up(policy);
    }
    lab.run("stopped", json!({ "Cmd": POLITE, "HostConfig": { "RestartPolicy": { "Name": "unless-stopped" } } }));
    lab.ask("/containers/stopped/stop?t=1", 204);
    lab.stop_daemon();
    assert_eq!((lab.shims(), lab.keeper_pid()), (0, None));
    lab.start_daemon().unwrap();
    for policy in ["always", "unless-stopped"] {
        within(Duration::from_secs(10), &format!("{policy} is back"), || lab.status(policy) == "running");
    }
    let ended = lab.inspect("no")["State"].clone();
    assert_eq!((ended["Status"].as_str(), ended["ExitCode"].as_i64()), (Some("exited"), Some(3)));
    assert_eq!(lab.status("stopped"), "exited");
}

#[test]
fn a_daemon_that_may_not_hold_its_containers_says_so_and_loses_none() {
    let mut lab = Lab::start(&program()).unwrap();
    lab.network(json!({ "Name": "front" }));
    let names: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
    for name in &names {
        lab.run(name, json!({ "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "front" } }));
    }
    let pids: Vec<String> = names.iter().map(|name| pid(&lab, name)).collect();
    lab.kill_daemon();
    for limit in [40, 100, 160] {
        let mut poor = Command::new("prlimit");
        poor.arg(format!("--nofile={limit}:{limit}")).arg(program()).arg("daemon");
        poor.args(["--host", &lab.docker_host()]).arg("--shim").arg(lab.shim());
        poor.arg("--root").arg(lab.root_directory()).arg("--run").arg(lab.run_directory());
        poor.arg("--resolv-conf").arg(lab.resolv_conf());
        let refused =
            lab.on_host(Command::new("timeout").arg("20").arg(poor.get_program()).args(poor.get_args())).refused();
        assert!(
            refused.contains(&format!("12 containers run, and this daemon may open {limit} files only")),
            "{refused}"
        );
    }
    lab.start_daemon().unwrap();
    for (name, pid_before) in names.iter().zip(&pids) {
        assert_eq!((lab.status(name), &pid(&lab, name)), ("running".into(), pid_before));
    }
    assert_eq!(lab.lookup("c0", "c11"), [lab.address("c11", "front")]);
}
