//! The life of a container as a client experiences it: created, started, stopped, restarted, removed; and what it is
//! like inside.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::client::POLITE;
use testkit::{Lab, lab, within};

/// What a container writes on stdout until it ends by itself.
fn output(lab: &Lab, body: Value) -> String {
    let id = lab.run("", body);
    lab.wait(&id);
    let (stdout, stderr) = lab.logs(&id, "");
    assert_eq!(stderr, "");
    lab.remove(&id);
    stdout
}

#[test]
fn a_container_is_created_started_stopped_and_removed() {
    let lab = lab();
    let id = lab.create("web", json!({ "Cmd": POLITE, "Labels": { "a": "b" } }));
    let created = lab.inspect("web");
    assert_eq!(created["State"]["Status"], "created");
    assert_eq!(created["State"]["Running"], false);
    assert_eq!(created["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    assert_eq!((created["Name"].as_str(), created["Id"].as_str()), (Some("/web"), Some(id.as_str())));

    lab.ask("/containers/web/stop", 304);
    lab.ask(&format!("/containers/{}/start", &id[..12]), 204);
    lab.ask("/containers/web/start", 304);
    let running = lab.inspect("%2Fweb");
    assert_eq!(running["State"]["Status"], "running");
    assert!(running["State"]["Pid"].as_i64().unwrap() > 1);
    lab.up("web");
    let refused = lab.delete("/containers/web").unwrap();
    assert_eq!(refused.status, 409);
    assert_eq!(
        refused.message(),
        "cannot remove container \"/web\": container is running: stop the container before removing or force remove"
    );

    lab.ask("/containers/web/stop", 204);
    lab.ask("/containers/web/stop", 304);
    let stopped = lab.inspect("web");
    assert_eq!((stopped["State"]["Status"].as_str(), stopped["State"]["ExitCode"].as_i64()), (Some("exited"), Some(3)));
    assert_eq!(stopped["State"]["Pid"], 0);
    assert_ne!(stopped["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    // What it wrote stays for its next run.
    lab.ask("/containers/web/start", 204);
    lab.exec("web", &["touch", "/kept"]).ok();
    lab.ask("/containers/web/restart?t=1", 204);
    lab.exec("web", &["ls", "/kept"]).ok();
    lab.ask("/containers/web/kill", 204);
    assert_eq!(lab.inspect("web")["State"]["ExitCode"], 137);
    assert_eq!(lab.delete("/containers/web").unwrap().status, 204);
    assert_eq!(lab.status("web"), "gone");
}

#[test]
fn signals_reach_the_process_and_stop_waits_its_time() {
    let lab = lab();
    lab.run(
        "deaf",
        json!({ "Cmd": ["sh", "-c", "trap 'echo usr' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done"] }),
    );
    within(Duration::from_secs(5), "it is up", || lab.logs("deaf", "").0 == "up\n");
    lab.ask("/containers/deaf/kill?signal=SIGUSR1", 204);
    within(Duration::from_secs(5), "the signal is heard", || lab.logs("deaf", "").0 == "up\nusr\n");
    let begin = Instant::now();
    lab.ask("/containers/deaf/stop?t=1", 204);
    assert!(begin.elapsed() >= Duration::from_secs(1), "it has its second");
    assert_eq!(lab.inspect("deaf")["State"]["ExitCode"], 137);
    // A stop signal of its own.
    lab.run(
        "own",
        json!({ "Cmd": ["sh", "-c", "trap 'exit 9' USR2; echo up; while :; do sleep 0.05; done"], "StopSignal": "USR2" }),
    );
    lab.up("own");
    lab.ask("/containers/own/stop?t=20", 204);
    assert_eq!(lab.inspect("own")["State"]["ExitCode"], 9);
}

#[test]
fn waiters_hear_of_what_they_wait_for() {
    let lab = lab();
    // One that never ran has nothing to wait for.
    lab.create("never", json!({ "Cmd": ["true"] }));
    assert_eq!(lab.wait("never"), 0);
    lab.run("ww", json!({ "Cmd": ["sh", "-c", "read x; exit 5"], "OpenStdin": true, "StdinOnce": true }));
    let waiters = ["not-running", "next-exit", "removed"].map(|condition| lab.begin_wait("ww", condition));
    lab.open("/containers/ww/attach?stream=1&stdin=1", "").finish_input();
    let [not_running, next_exit, removed] = waiters;
    assert_eq!((not_running.exit_code(), next_exit.exit_code()), (5, 5));
    assert_eq!(lab.status("ww"), "exited");
    lab.remove("ww");
    assert_eq!(removed.exit_code(), 5);
    assert_eq!(lab.ask("/containers/never/wait?condition=nonsense", 400).message(), "invalid condition: \"nonsense\"");
}

#[test]
fn a_container_is_paused_and_goes_on() {
    let lab = lab();
    lab.run("pp", json!({ "Cmd": ["sh", "-c", "trap 'exit 3' TERM; while :; do echo x; sleep 0.02; done"] }));
    lab.ask("/containers/pp/pause", 204);
    assert_eq!(
        lab.ask("/containers/pp/pause", 409).message(),
        format!("Container {} is already paused", lab.inspect("pp")["Id"].as_str().unwrap())
    );
    let paused = lab.inspect("pp");
    assert_eq!(
        (paused["State"]["Status"].as_str(), paused["State"]["Running"].as_bool()),
        (Some("paused"), Some(true))
    );
    lab.ask("/containers/pp/start", 409);
    lab.tell("/containers/pp/exec", json!({ "Cmd": ["true"] }), 409);
    assert_eq!(lab.delete("/containers/pp").unwrap().status, 409);
    let before = lab.logs("pp", "").0.len();
    lab.ask("/containers/pp/unpause", 204);
    lab.ask("/containers/pp/unpause", 409);
    within(Duration::from_secs(5), "it writes again", || lab.logs("pp", "").0.len() > before);
    // A frozen process heeds no signal: stopping lets it run.
    lab.ask("/containers/pp/pause", 204);
    let begin = Instant::now();
    lab.ask("/containers/pp/stop?t=20", 204);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(lab.inspect("pp")["State"]["ExitCode"], 3);
    lab.ask("/containers/pp/pause", 409);
}

#[test]
fn a_renamed_container_is_found_by_its_new_name_only() {
    let lab = lab();
    let id = lab.create("old", json!({ "Cmd": ["true"] }));
    let other = lab.create("other", json!({ "Cmd": ["true"] }));
    let taken = lab.ask("/containers/old/rename?name=other", 409);
    assert_eq!(
        taken.message(),
        format!(
            "Conflict. The container name \"/other\" is already in use by container \"{other}\". You have to remove (or \
             rename) that container to be able to reuse that name."
        )
    );
    lab.ask("/containers/old/rename?name=-x", 400);
    lab.ask("/containers/old/rename", 400);
    lab.ask("/containers/old/rename?name=new", 204);
    assert_eq!(lab.inspect("new")["Id"], id.as_str());
    assert_eq!(lab.status("old"), "gone");
    lab.create("old", json!({ "Cmd": ["true"] }));
}

#[test]
fn lists_are_filtered() {
    let lab = lab();
    let a = lab
        .run("alpha", json!({ "Cmd": ["sleep", "60"], "Labels": { "tier": "one" }, "ExposedPorts": { "80/tcp": {} } }));
    lab.create("beta", json!({ "Cmd": ["true"], "Labels": { "tier": "two" } }));
    lab.run("gamma", json!({ "Cmd": ["sh", "-c", "exit 4"] }));
    lab.wait("gamma");
    let names = |query: &str, filters: Value| -> Vec<String> {
        let encoded: String = filters.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
        let listed = lab.get(&format!("/containers/json?{query}&filters={encoded}")).unwrap();
        assert_eq!(listed.status, 200, "{}", listed.text());
        let all = listed.json();
        all.as_array().unwrap().iter().map(|c| c["Names"][0].as_str().unwrap()[1..].to_owned()).collect()
    };
    assert_eq!(names("", json!({})), ["alpha"]);
    assert_eq!(names("all=1", json!({})), ["gamma", "beta", "alpha"]);
    assert_eq!(names("limit=2", json!({})), ["gamma", "beta"]);
    assert_eq!(names("all=1", json!({ "name": ["^/?beta$"] })), ["beta"]);
    assert_eq!(names("all=1", json!({ "label": ["tier=one"] })), ["alpha"]);
    assert_eq!(names("all=1", json!({ "label": ["tier"] })), ["beta", "alpha"]);
    assert_eq!(names("", json!({ "status": ["created", "exited"] })), ["gamma", "beta"]);
    assert_eq!(names("", json!({ "exited": ["4"] })), ["gamma"]);
    assert_eq!(names("all=1", json!({ "id": [&a[..12]] })), ["alpha"]);
    assert_eq!(names("all=1", json!({ "ancestor": ["busybox"] })).len(), 3);
    assert_eq!(names("all=1", json!({ "ancestor": ["nosuch"] })).len(), 0);
    assert_eq!(names("all=1", json!({ "network": ["bridge"] })).len(), 3);
    assert_eq!(names("all=1", json!({ "expose": ["80"] })), ["alpha"]);
    assert_eq!(names("all=1", json!({ "before": ["beta"] })), ["alpha"]);
    assert_eq!(names("all=1", json!({ "since": ["beta"] })), ["gamma"]);
    let listed = lab.get("/containers/json").unwrap().json();
    assert!(listed[0]["Status"].as_str().unwrap().starts_with("Up "), "{listed}");
    assert_eq!(listed[0]["Ports"], json!([{ "PrivatePort": 80, "Type": "tcp" }]));
}

#[test]
fn lc_03_restart_policies_are_kept_with_growing_patience() {
    let lab = lab();
    lab.run("twice", json!({ "Cmd": ["sh", "-c", "echo x; exit 1"], "HostConfig": { "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 2 } } }));
    within(Duration::from_secs(10), "two restarts", || {
        let shown = lab.inspect("twice");
        shown["State"]["Status"] == "exited" && shown["RestartCount"] == 2
    });
    assert_eq!(lab.logs("twice", "").0, "x\nx\nx\n");
    // Counted anew from where a client starts it.
    lab.ask("/containers/twice/start", 204);
    within(Duration::from_secs(10), "two more restarts", || {
        lab.logs("twice", "").0 == "x\n".repeat(6) && lab.status("twice") == "exited"
    });
    assert_eq!(lab.inspect("twice")["RestartCount"], 2);
    // A success is no failure.
    lab.run("once", json!({ "Cmd": ["true"], "HostConfig": { "RestartPolicy": { "Name": "on-failure" } } }));
    assert_eq!(lab.wait("once"), 0);
    assert_eq!(lab.inspect("once")["RestartCount"], 0);
    // `always` comes back, until a client stops it.
    lab.run("always", json!({ "Cmd": POLITE, "HostConfig": { "RestartPolicy": { "Name": "always" } } }));
    lab.up("always");
    let pid = lab.inspect("always")["State"]["Pid"].clone();
    lab.on_host(std::process::Command::new("kill").args(["-9", &pid.to_string()])).ok();
    within(Duration::from_secs(10), "it is back", || {
        let state = lab.inspect("always")["State"].clone();
        state["Status"] == "running" && state["Pid"] != pid
    });
    within(Duration::from_secs(20), "it is up again", || lab.logs("always", "").0 == "up\nup\n");
    lab.ask("/containers/always/stop", 204);
    assert_eq!(lab.status("always"), "exited");
    // Between two runs: `kill` and `stop` end the waiting.
    for (name, act) in [("kk", "kill"), ("ss", "stop")] {
        lab.run(name, json!({ "Cmd": ["false"], "HostConfig": { "RestartPolicy": { "Name": "always" } } }));
        within(Duration::from_secs(10), "it waits for its next run", || {
            lab.inspect(name)["RestartCount"].as_i64() > Some(2) && lab.status(name) == "restarting"
        });
        let refused = lab.delete(&format!("/containers/{name}")).unwrap();
        assert_eq!(refused.status, 409, "{}", refused.text());
        lab.ask(&format!("/containers/{name}/{act}"), 204);
        assert_eq!(lab.status(name), "exited");
        let runs = lab.inspect(name)["RestartCount"].clone();
        lab.ask(&format!("/containers/{name}/wait"), 200);
        assert_eq!(lab.inspect(name)["RestartCount"], runs);
    }
}

#[test]
fn containers_that_are_removed_on_exit_take_their_volumes_along() {
    let lab = lab();
    let rm = |more: Value| {
        let mut body = json!({ "Cmd": POLITE, "HostConfig": { "AutoRemove": true }, "Volumes": { "/data": {} } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let volumes = || lab.get("/volumes").unwrap().json()["Volumes"].as_array().unwrap().len();
    lab.run("aa", rm(json!({})));
    assert_eq!(volumes(), 1);
    // A restart is no exit; two at a time are none either.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| lab.ask("/containers/aa/restart?t=5", 204));
        }
    });
    assert_eq!(lab.status("aa"), "running");
    assert_eq!(lab.inspect("aa")["HostConfig"]["AutoRemove"], true);
    lab.ask("/containers/aa/stop", 204);
    within(Duration::from_secs(5), "it is gone", || lab.status("aa") == "gone");
    within(Duration::from_secs(5), "its volume is gone", || volumes() == 0);
    // One that cannot be started never exits: it goes at once, and who waits for that hears it.
    lab.create("bb", rm(json!({ "Cmd": ["/nosuch"] })));
    let waiter = lab.begin_wait("bb", "removed");
    let failed = lab.ask("/containers/bb/start", 400);
    assert!(failed.message().contains("/nosuch"), "{}", failed.message());
    assert_eq!(waiter.exit_code(), 127);
    assert_eq!(lab.status("bb"), "gone");
    assert_eq!(volumes(), 0);
}

#[test]
fn a_command_that_cannot_be_executed_fails_the_start() {
    let lab = lab();
    for (name, command, code) in
        [("aa", "nosuch", 127), ("bb", "/nosuch", 127), ("cc", "/etc/passwd", 126), ("dd", "/etc", 126)]
    {
        lab.create(name, json!({ "Cmd": [command] }));
        let failed = lab.ask(&format!("/containers/{name}/start"), 400);
        assert!(failed.message().starts_with("failed to create task for container: "), "{}", failed.message());
        let state = lab.inspect(name)["State"].clone();
        assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("created"), Some(code)), "{command}");
        assert_eq!(state["Error"], failed.message());
        // docker run tells by its own exit code, and does not hang, attached as it is.
        for rm in [&["run"][..], &["run", "--rm"]] {
            let Some(run) = lab.docker(&[rm, &["busybox", command]].concat()) else { continue };
            assert_eq!(run.code, code as i32, "{}", run.stderr);
            assert!(run.stderr.contains("Error response from daemon"), "{}", run.stderr);
        }
    }
    // A later success makes up for it.
    let made = lab.directory().join("made");
    std::fs::write(&made, "#!/bin/sh\nexit 7\n").unwrap();
    let bind = format!("{}:/made", made.display());
    lab.create("later", json!({ "Cmd": ["/made"], "HostConfig": { "Binds": [bind] } }));
    lab.ask("/containers/later/start", 400);
    lab.on_host(std::process::Command::new("chmod").arg("755").arg(&made)).ok();
    lab.ask("/containers/later/start", 204);
    assert_eq!(lab.wait("later"), 7);
    assert_eq!(lab.inspect("later")["State"]["Error"], "");
}

#[test]
fn the_process_finds_what_was_asked_for() {
    let lab = lab();
    let seen = output(
        &lab,
        json!({
            "Cmd": ["sh", "-c", "echo $A-$B-$HOSTNAME; pwd; id; hostname; umask; cat /proc/sys/kernel/domainname"],
            "Env": ["A=1", "B=zwei"], "WorkingDir": "/srv/new", "User": "nobody:adm", "Hostname": "inner", "Domainname": "example.org",
        }),
    );
    assert_eq!(seen, "1-zwei-inner\n/srv/new\nuid=65534(nobody) gid=4(adm) groups=4(adm)\ninner\n0022\nexample.org\n");
    assert_eq!(output(&lab, json!({ "Cmd": ["id", "-u"], "User": "1234:5678" })), "1234\n");
    let more = json!({ "Cmd": ["id", "-G"], "HostConfig": { "GroupAdd": ["adm", "99"] } });
    let groups = output(&lab, more);
    assert!(groups.split_whitespace().any(|g| g == "4") && groups.split_whitespace().any(|g| g == "99"), "{groups}");
    // The primary group is among the others, or giving it up would be a gain.
    let groups = json!({ "Cmd": ["sh", "-c", "grep Groups /proc/self/status | cut -f2"], "User": "1000:1000" });
    assert_eq!(output(&lab, groups.clone()).trim(), "1000");
    lab.run("groups", json!({ "Cmd": ["sleep", "60"], "User": "1000:1001", "HostConfig": { "GroupAdd": ["7"] } }));
    let of_exec = |user: &str| {
        let body = json!({ "Cmd": ["sh", "-c", "grep Groups /proc/self/status"], "User": user, "AttachStdout": true });
        let exec = lab.tell("/containers/groups/exec", body, 201).json()["Id"].as_str().unwrap().to_owned();
        let stream = testkit::http::stream(&lab.socket(), &format!("/exec/{exec}/start"), b"{}").unwrap();
        testkit::http::demultiplex(&stream).0.trim_start_matches("Groups:").trim().to_owned()
    };
    assert_eq!((of_exec("").as_str(), of_exec("5:6").as_str()), ("7 1001", "6 7"));
    lab.remove("groups");
    // Read-only, privileges dropped, limits, sysctls.
    let strict = json!({
        "Cmd": ["sh", "-c", "touch /x 2>/dev/null || echo ro; touch /tmp/x && echo tmp; grep CapEff /proc/self/status | cut -f2; ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; grep NoNewPrivs /proc/self/status | cut -f2; df -k /dev/shm | tail -1 | awk '{print $2}'"],
        "HostConfig": {
            "ReadonlyRootfs": true, "Tmpfs": { "/tmp": "size=1m" }, "CapDrop": ["ALL"], "ShmSize": 1048576,
            "Ulimits": [{ "Name": "nofile", "Soft": 99, "Hard": 99 }], "Sysctls": { "net.ipv4.ip_unprivileged_port_start": "77" },
            "SecurityOpt": ["no-new-privileges"],
        },
    });
    assert_eq!(output(&lab, strict), "ro\ntmp\n0000000000000000\n99\n77\n1\n1024\n");
}

#[test]
fn an_init_is_process_1_and_passes_signals_and_exit_codes_on() {
    let lab = lab();
    for runtime in ["isle", "runc"] {
        let init = lab.run("init", json!({ "Cmd": POLITE, "HostConfig": { "Init": true, "Runtime": runtime } }));
        let first = lab.exec("init", &["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"]).ok();
        assert!(first.starts_with("/sbin/docker-init -- sh -c trap "), "{runtime}: {first}");
        lab.up("init");
        lab.ask("/containers/init/stop", 204);
        assert_eq!(lab.inspect(&init)["State"]["ExitCode"], 3, "{runtime}");
        lab.remove("init");
    }
}

#[test]
fn limits_are_the_kernels() {
    let lab = lab();
    let body = json!({
        "Cmd": ["sleep", "60"],
        "HostConfig": { "Memory": 33_554_432, "PidsLimit": 20, "NanoCpus": 500_000_000, "CpuShares": 512 },
    });
    lab.run("limited", body);
    let pid = lab.inspect("limited")["State"]["Pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let read = |controller: &str, v1: &str, v2: &str| -> String {
        let line = groups.lines().find(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == controller)));
        let path = match line {
            Some(line) => {
                let (names, path) = line.split_once(':').unwrap().1.split_once(':').unwrap();
                let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
                let has = |m: &&str| {
                    let f: Vec<&str> = m.split(' ').collect();
                    f[2] == "cgroup" && names.split(',').all(|n| f[3].split(',').any(|o| o == n))
                };
                let mount = mounts.lines().find(has).unwrap().split(' ').nth(1).unwrap().to_owned();
                format!("{mount}{path}/{v1}")
            }
            None => format!("/sys/fs/cgroup{}/{v2}", groups.lines().next().unwrap().split(':').nth(2).unwrap()),
        };
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    assert_eq!(read("pids", "pids.max", "pids.max"), "20");
    // A container over its memory is killed, and says so.
    lab.run("greedy", json!({ "Cmd": ["sh", "-c", "x=a; while :; do x=$x$x; done"], "HostConfig": { "Memory": 16_777_216, "MemorySwap": 16_777_216 } }));
    assert_ne!(lab.wait("greedy"), 0);
    within(Duration::from_secs(5), "it is told", || lab.inspect("greedy")["State"]["OOMKilled"] == true);
    let warned = lab.create("small", json!({ "Cmd": ["true"], "HostConfig": { "Memory": 6_291_456 } }));
    assert_eq!(lab.status(&warned), "created");
}

#[test]
fn a_cgroup_parent_is_where_the_cgroup_is_while_it_runs() {
    let lab = lab();
    let parent = format!("testkit-{}", std::process::id());
    let hierarchies = kernel::cgroup::Hierarchies::detect().unwrap();
    let id =
        lab.run("cc", json!({ "Cmd": ["sleep", "600"], "HostConfig": { "CgroupParent": format!("/{parent}/inner") } }));
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", lab.inspect("cc")["State"]["Pid"])).unwrap();
    assert!(groups.lines().any(|line| line.ends_with(&format!("/{parent}/inner/{id}"))), "{groups}");
    lab.ask("/containers/cc/pause", 204);
    lab.ask("/containers/cc/unpause", 204);
    lab.remove("cc");
    let own = hierarchies.cgroup(&format!("{parent}/inner/{id}"));
    within(Duration::from_secs(10), "it is gone", || !own.exists());
    hierarchies.cgroup(&parent).remove().unwrap();
}

#[test]
fn an_update_that_the_kernel_refuses_leaves_all_limits_as_they_were() {
    let hierarchies = kernel::cgroup::Hierarchies::detect().unwrap();
    if hierarchies.version == kernel::cgroup::Version::V2 {
        eprintln!("SKIP: only version 1 of cgroups refuses more CPU time than the group above has");
        return;
    }
    let lab = lab();
    let parent = format!("testkit-update-{}", std::process::id());
    let limits = json!({ "CgroupParent": format!("/{parent}"), "Memory": 64 << 20, "CpuShares": 512 });
    let id = lab.run("cc", json!({ "Cmd": ["sleep", "600"], "HostConfig": limits }));
    std::fs::write(hierarchies.cgroup(&parent).v1["cpu"].join("cpu.cfs_quota_us"), "50000").unwrap();
    let shares = hierarchies.cgroup(&format!("{parent}/{id}")).v1["cpu"].join("cpu.shares");
    let now = || {
        let told = lab.get("/containers/cc/stats?stream=0&one-shot=1").unwrap().json();
        let host = lab.inspect("cc")["HostConfig"].clone();
        let shares = std::fs::read_to_string(&shares).unwrap().trim().to_owned();
        (told["memory_stats"]["limit"].clone(), shares, host["Memory"].clone(), host["CpuQuota"].clone())
    };
    let before = now();
    assert_eq!((&before.0, &*before.1), (&json!(64 << 20), "512"));
    let wanted = json!({ "Memory": 96 << 20, "MemorySwap": 192 << 20, "CpuShares": 256, "CpuQuota": 80_000 });
    let refused = lab.tell("/containers/cc/update", wanted, 500).message();
    assert!(refused.contains("Cannot update container") && refused.contains("cpu.cfs_quota_us"), "{refused}");
    assert_eq!(now(), before);
    lab.tell("/containers/cc/update", json!({ "Memory": 96 << 20, "MemorySwap": 192 << 20, "CpuQuota": 40_000 }), 200);
    assert_eq!(now(), (json!(96 << 20), "512".to_owned(), json!(96 << 20), json!(40_000)));
    lab.remove("cc");
    within(Duration::from_secs(10), "its cgroup is gone", || !shares.exists());
    hierarchies.cgroup(&parent).remove().unwrap();
}

#[test]
fn commands_run_beside_the_containers_own() {
    let lab = lab();
    lab.run("cc", json!({ "Cmd": ["sleep", "60"], "Env": ["A=1"], "WorkingDir": "/srv" }));
    let exec = |body: Value| -> (String, String, i64) {
        let id = lab.tell("/containers/cc/exec", body, 201).json()["Id"].as_str().unwrap().to_owned();
        let before = lab.get(&format!("/exec/{id}/json")).unwrap().json();
        assert_eq!((before["Running"].as_bool(), before["ExitCode"].clone()), (Some(false), Value::Null));
        let (out, err) = testkit::http::demultiplex(&lab.open(&format!("/exec/{id}/start"), "{}").rest());
        let after = lab.get(&format!("/exec/{id}/json")).unwrap().json();
        assert_eq!(after["Running"], false);
        (out, err, after["ExitCode"].as_i64().unwrap())
    };
    let both = json!({ "Cmd": ["sh", "-c", "echo $A$B; pwd; echo no >&2; exit 6"], "Env": ["B=2"], "AttachStdout": true, "AttachStderr": true });
    assert_eq!(exec(both), ("12\n/srv\n".into(), "no\n".into(), 6));
    // A name alone takes its variable away.
    let without =
        json!({ "Cmd": ["sh", "-c", "echo ${A-none}; env | grep -c ^A"], "Env": ["A"], "AttachStdout": true });
    assert_eq!(exec(without), ("none\n0\n".into(), String::new(), 1));
    let other =
        json!({ "Cmd": ["sh", "-c", "id -un; pwd"], "User": "nobody", "WorkingDir": "/tmp", "AttachStdout": true });
    assert_eq!(exec(other), ("nobody\n/tmp\n".into(), String::new(), 0));
    // Its own terminal.
    let id = lab.tell(
        "/containers/cc/exec",
        json!({ "Cmd": ["sh", "-c", "tty; stty size"], "Tty": true, "AttachStdout": true, "ConsoleSize": [30, 90] }),
        201,
    );
    let id = id.json()["Id"].as_str().unwrap().to_owned();
    let stream = lab.open(&format!("/exec/{id}/start"), "{\"Tty\":true}");
    assert!(stream.head.contains("application/vnd.docker.raw-stream"), "{}", stream.head);
    let said = String::from_utf8(stream.rest()).unwrap();
    assert!(said.starts_with("/dev/pts/") && said.ends_with("30 90\r\n"), "{said:?}");
    lab.tell(&format!("/exec/{id}/start"), json!({}), 409);
    // What cannot be executed says so, with the codes that shells have.
    for (command, code) in [("nosuch", 127), ("/etc/passwd", 126)] {
        let id = lab.tell("/containers/cc/exec", json!({ "Cmd": [command], "AttachStdout": true }), 201).json()["Id"]
            .clone();
        let id = id.as_str().unwrap();
        let said = lab.open(&format!("/exec/{id}/start"), "{}").rest();
        let (said, _) = testkit::http::demultiplex(&said);
        assert!(said.starts_with("OCI runtime exec failed: exec failed: "), "{said}");
        assert_eq!(lab.get(&format!("/exec/{id}/json")).unwrap().json()["ExitCode"], code);
        if let Some(run) = lab.docker(&["exec", "cc", command]) {
            assert_eq!(run.code, code, "{}", run.stderr);
            assert!(run.stdout.contains("OCI runtime exec failed"), "{run:?}");
        }
    }
    // A name alone takes the variable away, as it does when a container is created.
    let bare = json!({ "Cmd": ["env"], "Env": ["A", "B=2", "C"], "AttachStdout": true });
    let (out, _, code) = exec(bare);
    let shown: Vec<&str> = out.lines().filter(|l| !l.starts_with(['P', 'H'])).collect();
    assert_eq!((shown, code), (vec!["B=2"], 0), "{out}");
    let nobody =
        lab.tell("/containers/cc/exec", json!({ "Cmd": ["true"], "User": "nosuch" }), 201).json()["Id"].clone();
    let nobody = nobody.as_str().unwrap();
    lab.tell(&format!("/exec/{nobody}/start"), json!({ "Detach": true }), 400);
    assert_eq!(lab.get(&format!("/exec/{nobody}/json")).unwrap().json()["ExitCode"], 126);
    // Detached, it runs on without anybody.
    let id = lab.tell("/containers/cc/exec", json!({ "Cmd": ["touch", "/tmp/there"] }), 201).json()["Id"].clone();
    lab.tell(&format!("/exec/{}/start", id.as_str().unwrap()), json!({ "Detach": true }), 200);
    within(Duration::from_secs(5), "it has run", || lab.exec("cc", &["ls", "/tmp/there"]).code == 0);
    // Only running containers have commands, and only while they are there.
    let late = lab.tell("/containers/cc/exec", json!({ "Cmd": ["true"] }), 201).json()["Id"].clone();
    lab.ask("/containers/cc/kill", 204);
    let refused = lab.tell("/containers/cc/exec", json!({ "Cmd": ["true"] }), 409).message();
    assert!(refused.ends_with("is not running"), "{refused}");
    let late = late.as_str().unwrap();
    lab.tell(&format!("/exec/{late}/start"), json!({}), 409);
    lab.remove("cc");
    assert_eq!(lab.get(&format!("/exec/{late}/json")).unwrap().status, 404);
}

#[test]
fn a_command_in_a_container_that_dies_ends_with_it() {
    let lab = lab();
    lab.run("cc", json!({ "Cmd": ["sleep", "60"] }));
    let id = lab.tell("/containers/cc/exec", json!({ "Cmd": ["sleep", "60"], "AttachStdout": true }), 201).json()["Id"]
        .clone();
    let id = id.as_str().unwrap();
    let stream = lab.open(&format!("/exec/{id}/start"), "{}");
    lab.ask("/containers/cc/kill", 204);
    assert_eq!(stream.rest(), b"");
    within(Duration::from_secs(5), "its end is known", || {
        lab.get(&format!("/exec/{id}/json")).unwrap().json()["Running"] == false
    });
}

#[test]
fn stopped_containers_are_pruned_and_no_others() {
    let lab = lab();
    lab.run("runs", json!({ "Cmd": ["sleep", "60"] }));
    let keep = lab.create("keep", json!({ "Cmd": ["true"], "Labels": { "keep": "1" } }));
    let go = lab.create("go", json!({ "Cmd": ["true"] }));
    let pruned = lab.ask("/containers/prune?filters=%7B%22label%21%22%3A%5B%22keep%22%5D%7D", 200).json();
    assert_eq!(pruned["ContainersDeleted"], json!([go]));
    assert_eq!(lab.status("runs"), "running");
    assert_eq!(lab.status(&keep), "created");
    assert_eq!(lab.ask("/containers/prune", 200).json()["ContainersDeleted"], json!([keep]));
}

#[test]
fn the_daemon_says_who_it_is() {
    let lab = lab();
    for path in ["/_ping", "/v1.44/_ping", "/v1.24/_ping"] {
        let head = testkit::http::request(&lab.socket(), "HEAD", path, b"").unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("api-version"), Some("1.51"));
        assert_eq!(head.header("docker-experimental"), Some("false"));
        assert_eq!(lab.get(path).unwrap().text(), "OK");
    }
    assert_eq!(lab.get("/v1.53/version").unwrap().json()["ApiVersion"], "1.51");
    let old = lab.get("/v1.23/version").unwrap();
    assert_eq!(old.status, 400);
    assert!(old.message().contains("client version 1.23 is too old"), "{}", old.message());
    for (method, path) in [("GET", "/nosuch"), ("PUT", "/containers/json"), ("GET", "/containers/create")] {
        let response = testkit::http::request(&lab.socket(), method, path, b"").unwrap();
        assert_eq!((response.status, response.message().as_str()), (404, "page not found"), "{method} {path}");
    }
    if let Some(version) = lab.docker(&["version", "--format", "{{.Server.APIVersion}}"]) {
        assert_eq!(version.ok(), "1.51");
        let shown = lab.docker(&["version"]).expect("docker").ok();
        let server = shown.split_once("Server: Isle").expect("the server's part").1;
        for line in ["Go version: none (Rust)", "Git commit: unknown", "Built: unknown", "Experimental: false"] {
            let is_said = |l: &str| l.split_whitespace().eq(line.split_whitespace());
            assert!(server.lines().any(is_said), "{line}: {shown}");
        }
    }
}

#[test]
fn the_daemon_takes_all_descriptors_it_may_and_containers_get_what_it_was_given() {
    let lab = lab();
    let files = |text: &str| -> Vec<String> {
        let line = text.lines().find(|l| l.starts_with("Max open files")).unwrap_or_default();
        line.split_whitespace().skip(3).take(2).map(str::to_owned).collect()
    };
    let given = files(&std::fs::read_to_string("/proc/self/limits").unwrap());
    let daemons = files(&std::fs::read_to_string(format!("/proc/{}/limits", lab.daemon_pid())).unwrap());
    assert_eq!(daemons[0], daemons[1]);
    lab.run("cc", json!({ "Cmd": ["sleep", "60"] }));
    assert_eq!(files(&lab.exec("cc", &["cat", "/proc/1/limits"]).ok()), given);
    assert_eq!(files(&lab.exec("cc", &["cat", "/proc/self/limits"]).ok()), given);
}

#[test]
fn keys_of_bodies_count_in_any_case() {
    let lab = testkit::lab();
    let network = lab.tell("/networks/create", json!({ "name": "front", "labels": { "Name": "kept" } }), 201).json();
    assert_eq!(lab.get("/networks/front").unwrap().json()["Labels"], json!({ "Name": "kept" }));
    let body = json!({
        "image": "busybox", "cmd": ["sleep", "600"], "hostConfig": { "networkMode": "bridge", "memory": 67_108_864 },
    });
    let id = lab.tell("/containers/create?name=web", body, 201).json()["Id"].clone();
    lab.ask("/containers/web/start", 204);
    let shown = lab.inspect("web");
    assert_eq!(shown["HostConfig"]["Memory"], 67_108_864);
    lab.tell(&format!("/networks/{}/connect", network["Id"].as_str().unwrap()), json!({ "container": id }), 200);
    assert!(!lab.address("web", "front").is_empty());
    let exec = json!({ "cmd": ["echo", "said"], "attachStdout": true, "detachKeys": "ctrl-a" });
    let exec = lab.tell("/containers/web/exec", exec, 201).json()["Id"].as_str().unwrap().to_owned();
    let said = testkit::http::stream(&lab.socket(), &format!("/exec/{exec}/start"), b"{\"detach\":false}").unwrap();
    assert_eq!(testkit::http::demultiplex(&said).0, "said\n");
}

#[test]
fn a_command_is_a_list_of_words_or_a_word() {
    let lab = lab();
    assert_eq!(output(&lab, json!({ "Cmd": "hostname", "Hostname": "own" })), "own\n");
    assert_eq!(output(&lab, json!({ "Entrypoint": "/bin/echo", "Cmd": "two words" })), "two words\n");
    let made = lab.create("", json!({ "Entrypoint": "/bin/echo", "Cmd": "two words" }));
    let config = lab.inspect(&made)["Config"].clone();
    assert_eq!((config["Entrypoint"].clone(), config["Cmd"].clone()), (json!(["/bin/echo"]), json!(["two words"])));
    let commit = lab.tell(&format!("/commit?container={made}&repo=other"), json!({ "Cmd": "from a commit" }), 201);
    let image = lab.get(&format!("/images/{}/json", commit.json()["Id"].as_str().unwrap())).unwrap().json();
    assert_eq!(image["Config"]["Cmd"], json!(["from a commit"]));
    // In a command beside a container's own, Docker takes a list only.
    lab.run("cc", json!({ "Cmd": ["sleep", "60"] }));
    lab.tell("/containers/cc/exec", json!({ "Cmd": "ls" }), 400);
}

#[test]
fn a_repository_is_saved_with_all_its_tags() {
    let lab = lab();
    for tag in ["1", "2"] {
        assert_eq!(lab.post_bytes(&format!("/images/busybox/tag?repo=two&tag={tag}"), b"").unwrap().status, 201);
    }
    let archive = lab.get("/images/get?names=two").unwrap();
    assert_eq!(archive.status, 200);
    for tag in ["1", "2"] {
        assert_eq!(lab.delete(&format!("/images/two:{tag}")).unwrap().status, 200);
    }
    let said = lab.post_bytes("/images/load", &archive.body).unwrap().text();
    assert!(said.contains("two:1") && said.contains("two:2"), "{said}");
}
