//! Daemons come and go, shims are killed, launches fail: what is there afterwards.

mod common;

use common::{World, bind, collect, open, possible, until};
use runtime::{AttachOptions, Log, Reconnected, Stdio, Step, logs};
use std::time::Duration;

macro_rules! world {
    () => {{
        if !possible() {
            return;
        }
        World::new()
    }};
}

fn cgroups(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for mount in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        let Some(point) = mount.split(' ').nth(4).filter(|point| point.starts_with("/sys/fs/cgroup")) else { continue };
        for entry in std::fs::read_dir(format!("{point}/isle-{}", world.root)).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

fn shims() -> usize {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            stat.contains("(isle-shim)") && stat.rsplit(')').next().unwrap().split(' ').nth(2) == Some(&own.to_string())
        })
        .count()
}

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_fails_at_any_step_leaves_nothing() {
    let world = world!();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    for step in Step::ALL {
        let mut description = world.describe(&["true"]);
        description.tty = step == Step::Terminal;
        if step == Step::IdMaps {
            // Only a user namespace has this step.
            let maps = vec![(0, 100_000, 65536)];
            description.id_maps = Some(model::spec::IdMaps { uids: maps.clone(), gids: maps });
        }
        let mut order = world.order(&description);
        order.fail_at = Some(step);
        let id = order.id;
        let error = world.run(order).await.map(|_| ()).expect_err(&format!("{step:?} was not reached"));
        assert!(error.to_string().ends_with("operation canceled"), "{step:?}: {error}");
        // The same container starts at once: what is left is taken away first.
        let again = world.runtime.reconnect(id, None).await.unwrap();
        assert!(again.is_none(), "{step:?}");
        assert_eq!(cgroups(&world), Vec::<String>::new(), "{step:?}");
        assert_eq!(mounts(), before, "{step:?}");
        eventually("the shim has gone", || shims() == 0).await;
        assert!(!world.path().join(format!("run/containers/{id}")).exists(), "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_container_that_is_given_up_leaves_nothing() {
    let world = world!();
    let order = world.order(&world.describe(&["true"]));
    let id = order.id;
    drop(world.runtime.prepare(order).await.unwrap());
    assert!(world.runtime.reconnect(id, None).await.unwrap().is_none());
    assert!(cgroups(&world).is_empty());
    eventually("the shim has gone", || shims() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_leaves_its_status_until_it_is_forgotten() {
    let world = world!();
    let order = world.order(&world.describe(&["sh", "-c", "exit 9"]));
    let id = order.id;
    let container = world.runtime.start(order).await.unwrap();
    assert_eq!(container.wait().await.code, 9);
    let Some(Reconnected::Exited(status)) = world.runtime.reconnect(id, None).await.unwrap() else { panic!() };
    assert_eq!(status, container.exit_status().unwrap());
    assert!(cgroups(&world).is_empty());
    eventually("the shim has gone", || shims() == 0).await;
    world.runtime.forget(id).await;
    assert!(world.runtime.reconnect(id, None).await.unwrap().is_none());
}

/// A daemon, as far as containers can tell: a tokio runtime of its own, which is then gone at once.
fn daemon<T>(act: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(act);
    runtime.shutdown_background();
    result
}

#[test]
fn the_next_daemon_finds_what_runs_and_what_has_ended() {
    let world = world!();
    let script = "echo one; read x; echo got $x; exit 4";
    let mut order = world.order(&world.describe(&["sh", "-c", script]));
    order.stdio = Stdio { open_stdin: true, ..Stdio::default() };
    let (id, log) = (order.id, order.log.clone().unwrap());
    let lives = daemon(async { world.runtime.start(order).await.unwrap().pid() });
    let short = world.order(&world.describe(&["sh", "-c", "sleep 0.2; echo ended; exit 6"]));
    let (short_id, short_log) = (short.id, short.log.clone().unwrap());
    daemon(async { world.runtime.start(short).await.unwrap() });
    std::thread::sleep(Duration::from_millis(500));
    daemon(async {
        let next = open(world.path(), &world.root);
        let Some(Reconnected::Exited(status)) = next.reconnect(short_id, None).await.unwrap() else { panic!() };
        assert_eq!((status.code, status.unknown), (6, false));
        assert!(std::fs::read_to_string(&short_log.path).unwrap().contains("ended"));
        let Some(Reconnected::Running(container)) = next.reconnect(id, None).await.unwrap() else { panic!() };
        assert_eq!(container.pid(), lives);
        let mut attached = container.attach(AttachOptions::ALL).await.unwrap();
        attached.stdin.write(b"word\n").await.unwrap();
        until(&mut attached, "got word").await;
        assert_eq!(container.wait().await.code, 4);
        let text = std::fs::read_to_string(&log.path).unwrap();
        assert!(text.contains("one\\n") && text.contains("got word\\n"), "{text}");
        next.forget(id).await;
        next.forget(short_id).await;
    });
    assert!(cgroups(&world).is_empty());
}

/// Kills the shim beside a container's process.
fn kill_shim(pid: i32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim: i32 = stat.rsplit(')').next().unwrap().split(' ').nth(2).unwrap().parse().unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
}

const ECHO: &str = "i=0; while read x; do echo $i $x; i=$((i+1)); done; exit 3";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_costs_neither_the_container_nor_a_line() {
    let world = world!();
    let mut order = world.order(&world.describe(&["sh", "-c", ECHO]));
    order.stdio = Stdio { open_stdin: true, ..Stdio::default() };
    let log = order.log.clone().unwrap();
    let container = world.runtime.start(order).await.unwrap();
    for round in 0..3 {
        let mut attached = container.attach(AttachOptions::ALL).await.unwrap();
        attached.stdin.write(format!("round {round}\n").as_bytes()).await.unwrap();
        until(&mut attached, &format!("{round} round {round}")).await;
        kill_shim(container.pid());
    }
    assert_eq!(container.exit_status(), None);
    container.signal(9).await.unwrap();
    let status = container.wait().await;
    // From 6.15 on the kernel tells; before, it may not.
    assert!(status.unknown || status.code == 137, "{status:?}");
    let text = std::fs::read_to_string(&log.path).unwrap();
    for line in ["0 round 0", "1 round 1", "2 round 2"] {
        assert_eq!(text.matches(line).count(), 1, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_does_not_cost_a_line_that_has_not_ended() {
    let world = world!();
    let mut order = world.order(&world.describe(&["sh", "-c", "printf 'name? '; read x; echo $x"]));
    order.stdio = Stdio { open_stdin: true, ..Stdio::default() };
    let log = order.log.clone().unwrap();
    let prepared = world.runtime.prepare(order).await.unwrap();
    let mut attached = prepared.attach(AttachOptions::ALL).await.unwrap();
    let container = prepared.launch().await.unwrap();
    until(&mut attached, "name? ").await;
    kill_shim(container.pid());
    let mut attached = container.attach(AttachOptions::ALL).await.unwrap();
    attached.stdin.write(b"Ada\n").await.unwrap();
    until(&mut attached, "Ada").await;
    container.wait().await;
    let text = std::fs::read_to_string(&log.path).unwrap();
    assert!(text.contains("\"name? Ada\\n\""), "{text}");
}

#[test]
fn what_was_held_elsewhere_lets_the_next_daemon_take_over_from_a_killed_shim() {
    let world = world!();
    let mut order = world.order(&world.describe(&["sh", "-c", ECHO]));
    order.stdio = Stdio { open_stdin: true, ..Stdio::default() };
    let (id, stdio, log) = (order.id, order.stdio, order.log.clone());
    let mut short = world.order(&world.describe(&["sh", "-c", "echo begun; sleep 1; echo last; exit 5"]));
    short.stdio.tty = true;
    let (short_id, short_stdio, short_log) = (short.id, short.stdio, short.log.clone());
    let (held, short_held) = daemon(async {
        let container = world.runtime.start(order).await.unwrap();
        let terminal = world.runtime.start(short).await.unwrap();
        let path = short_log.as_ref().unwrap().path.clone();
        eventually("it has begun", || std::fs::read_to_string(&path).unwrap_or_default().contains("begun")).await;
        (container.held().unwrap(), (terminal.held().unwrap(), terminal.pid(), container.pid()))
    });
    let (short_held, short_pid, pid) = short_held;
    kill_shim(pid);
    kill_shim(short_pid);
    // It ends meanwhile, and what it says waits in the terminal.
    std::thread::sleep(Duration::from_millis(1500));
    daemon(async {
        let next = open(world.path(), &world.root);
        assert!(next.reconnect(id, log.clone()).await.unwrap().is_none());
        let container = next.adopt(id, held, stdio, log.clone()).await.unwrap().unwrap();
        let mut attached = container.attach(AttachOptions::ALL).await.unwrap();
        attached.stdin.write(b"after\n").await.unwrap();
        until(&mut attached, "0 after").await;
        container.signal(9).await.unwrap();
        assert!(matches!(container.wait().await.code, 137 | 255));

        let ended = next.adopt(short_id, short_held, short_stdio, short_log.clone()).await.unwrap().unwrap();
        let status = ended.wait().await;
        assert!(status.unknown || status.code == 5, "{status:?}");
        let text = std::fs::read_to_string(&short_log.unwrap().path).unwrap();
        assert!(text.contains("last"), "{text}");
        next.forget(id).await;
        next.forget(short_id).await;
    });
    assert!(cgroups(&world).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_backwards_by_time_and_as_they_grow() {
    let world = world!();
    let go = world.path().join("go");
    std::fs::create_dir(&go).unwrap();
    let script = "i=1; while [ $i -le 500 ]; do echo out $i; i=$((i+1)); done; echo error >&2; \
                  while [ ! -e /go/now ]; do sleep 0.02; done; \
                  i=1; while [ $i -le 500 ]; do echo more $i; i=$((i+1)); done";
    let mut description = world.describe(&["sh", "-c", script]);
    description.mounts = vec![bind(&go, "/go")];
    let mut order = world.order(&description);
    let log = Log { max_size: Some(20_000), max_files: 20, ..order.log.clone().unwrap() };
    order.log = Some(log.clone());
    let container = world.runtime.start(order).await.unwrap();
    let path = log.path.clone();
    eventually("the first half is logged", || std::fs::read_to_string(&path).unwrap_or_default().contains("error"))
        .await;

    let all = async |query: logs::Query| {
        let mut lines = logs::read(&log, query, std::future::pending()).unwrap();
        let mut texts = Vec::new();
        while let Some(line) = lines.recv().await {
            texts.push(line.unwrap());
        }
        texts
    };
    let query = logs::Query::default;
    let lines = all(query()).await;
    assert_eq!(lines.len(), 501);
    assert_eq!((&*lines[0].text, &*lines[499].text, &*lines[500].text), ("out 1\n", "out 500\n", "error\n"));
    let tail = all(logs::Query { tail: Some(3), ..query() }).await;
    assert_eq!(tail, lines[498..]);
    assert_eq!(all(logs::Query { tail: Some(0), ..query() }).await, []);
    assert_eq!(all(logs::Query { tail: Some(9999), ..query() }).await.len(), 501);
    assert_eq!(all(logs::Query { stdout: false, ..query() }).await, lines[500..]);
    let (since, until) = (lines[100].time, lines[200].time);
    let some = all(logs::Query { since: Some(since), until: Some(until), ..query() }).await;
    assert!(some.iter().all(|line| line.time >= since && line.time <= until) && some.contains(&lines[150]));

    let ended = {
        let container = container.clone();
        async move {
            container.wait().await;
        }
    };
    let mut lines = logs::read(&log, logs::Query { follow: true, tail: Some(1), ..query() }, ended).unwrap();
    assert_eq!(lines.recv().await.unwrap().unwrap().text, "error\n");
    std::fs::write(go.join("now"), "").unwrap();
    for n in 1..=500 {
        let line = tokio::time::timeout(Duration::from_secs(10), lines.recv()).await.unwrap().unwrap().unwrap();
        assert_eq!(line.text, format!("more {n}\n"));
    }
    assert!(tokio::time::timeout(Duration::from_secs(10), lines.recv()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_disk_costs_lines_and_is_told() {
    let world = world!();
    let mut order = world.order(&world.describe(&["sh", "-c", "echo one; echo two; sleep 0.2; echo three"]));
    order.log = Some(Log { path: "/dev/full".into(), max_size: None, max_files: 1 });
    let prepared = world.runtime.prepare(order).await.unwrap();
    let attached = prepared.attach(AttachOptions::OUTPUT).await.unwrap();
    let container = prepared.launch().await.unwrap();
    assert_eq!(collect(attached).await.0, "one\ntwo\nthree\n");
    assert_eq!(container.wait().await.code, 0);
    assert_eq!(container.lines_lost(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_can_be_forgotten_and_started_again_at_once() {
    let world = world!();
    let container = world.started(&["sleep", "100"]).await;
    let (id, pid) = (container.id(), container.pid());
    world.runtime.forget(id).await;
    assert_eq!(container.wait().await.code, 137);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    for _ in 0..5 {
        let mut order = world.order(&world.describe(&["true"]));
        order.id = id;
        assert_eq!(world.runtime.start(order).await.unwrap().wait().await.code, 0);
    }
}
