//! Commands beside a container's own process.

mod common;

use common::{World, collect, possible, until};
use model::id::ContainerId;
use model::spec::{Description, User};
use runtime::{AttachOptions, Container, ExecOrder, FailureKind, Size};

macro_rules! world {
    () => {{
        if !possible() {
            return;
        }
        World::new()
    }};
}

/// An order for a command, as a container's description would have it.
fn order(world: &World, args: &[&str], change: impl FnOnce(&mut Description)) -> ExecOrder {
    let mut description = world.describe(args);
    change(&mut description);
    let spec = description.spec().unwrap();
    ExecOrder {
        process: spec.process().clone().unwrap(),
        seccomp: spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()),
        open_stdin: false,
        size: None,
    }
}

async fn exec(container: &Container, order: ExecOrder) -> (i32, String, String) {
    let exec = container.exec(order).await.unwrap();
    let attached = exec.attach(AttachOptions::OUTPUT).await.unwrap();
    exec.start().await.unwrap();
    let (out, err) = collect(attached).await;
    let code = exec.wait().await.code;
    exec.forget().await;
    (code, out, err)
}

async fn end(world: &World, container: Container) {
    container.signal(9).await.unwrap();
    assert_eq!(container.wait().await.code, 137);
    let id: ContainerId = container.id();
    world.runtime.forget(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_in_the_same_world_as_somebody_else() {
    let world = world!();
    let container = world.started(&["sleep", "100"]).await;
    let script = "for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done; ps | grep -c 'sleep 10[0]'; \
                  id -u; id -G; env | grep -c WHAT=yes; pwd; grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status; \
                  cat /proc/self/cgroup | sort; ls /proc/self/fd | wc -l; exit 7";
    let change = |d: &mut Description| {
        d.user = User { uid: 5, gid: 6, groups: vec![9], umask: None };
        d.env.push("WHAT=yes".to_owned());
        d.cwd = "/tmp".to_owned();
    };
    let (code, out, err) = exec(&container, order(&world, &["sh", "-c", script], change)).await;
    assert_eq!(code, 7, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    for (name, line) in ["pid", "ipc", "uts", "net", "mnt"].iter().zip(&lines) {
        let main = std::fs::read_link(format!("/proc/{}/ns/{name}", container.pid())).unwrap();
        assert_eq!(**line, main.display().to_string());
    }
    assert_eq!(
        lines[5..13],
        ["1", "5", "6 9", "1", "/tmp", "CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb", "Seccomp:\t2"]
    );
    let mut own: Vec<String> = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid()))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    own.sort();
    assert_eq!(lines[13..lines.len() - 1], own);
    // The pipes, and the directory that ls reads.
    assert_eq!(*lines.last().unwrap(), "4");
    end(&world, container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_commands_run_at_once_and_each_has_its_own_end() {
    let world = world!();
    let container = world.started(&["sleep", "100"]).await;
    let runs = (0..8).map(|n| {
        let order = order(&world, &["sh", "-c", &format!("sleep 0.1; echo {n}; echo e{n} >&2; exit {n}")], |_| ());
        let container = container.clone();
        tokio::spawn(async move { (n, exec(&container, order).await) })
    });
    for run in runs.collect::<Vec<_>>() {
        let (n, (code, out, err)) = run.await.unwrap();
        assert_eq!((code, out, err), (n, format!("{n}\n"), format!("e{n}\n")));
    }
    end(&world, container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_a_terminal_of_its_own_and_stdin() {
    let world = world!();
    let container = world.started(&["sleep", "100"]).await;
    let mut with_tty = order(&world, &["sh", "-c", "tty; stty size; read x; echo =$x=; stty size"], |d| d.tty = true);
    with_tty.open_stdin = true;
    with_tty.size = Some(Size { rows: 10, columns: 20 });
    let exec = container.exec(with_tty).await.unwrap();
    let mut attached = exec.attach(AttachOptions::ALL).await.unwrap();
    exec.start().await.unwrap();
    assert!(until(&mut attached, "10 20").await.contains("/dev/pts/"));
    exec.resize(Size { rows: 11, columns: 22 }).await.unwrap();
    attached.stdin.write(b"hi\n").await.unwrap();
    until(&mut attached, "=hi=\r\n11 22").await;
    assert_eq!(exec.wait().await.code, 0);

    let mut piped = order(&world, &["wc", "-c"], |_| ());
    piped.open_stdin = true;
    let exec = container.exec(piped).await.unwrap();
    let mut attached = exec.attach(AttachOptions::ALL).await.unwrap();
    attached.stdin.write(&[b'x'; 1234]).await.unwrap();
    attached.stdin.close().await.unwrap();
    exec.start().await.unwrap();
    assert_eq!(collect(attached).await.0, "1234\n");
    end(&world, container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_started_says_why_and_the_container_lives_on() {
    let world = world!();
    let container = world.started(&["sleep", "100"]).await;
    let check = async |args: &[&str], cwd: &str, kind: FailureKind, words: &str| {
        let order = order(&world, args, |d| d.cwd = cwd.to_owned());
        let exec = container.exec(order).await.unwrap();
        let error = exec.start().await.unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (kind, words));
    };
    let not_found = "exec: \"nosuch\": executable file not found in $PATH";
    check(&["nosuch"], "/", FailureKind::NotFound, not_found).await;
    check(&["/etc/notes"], "/", FailureKind::NotExecutable, "exec: \"/etc/notes\": permission denied").await;
    let directory = "cannot change to the working directory /nowhere: no such file or directory";
    check(&["true"], "/nowhere", FailureKind::Other, directory).await;
    assert_eq!(exec(&container, order(&world, &["true"], |_| ())).await.0, 0);
    end(&world, container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_the_container() {
    let world = world!();
    let container = world.started(&["sleep", "100"]).await;
    let exec = container.exec(order(&world, &["sleep", "100"], |_| ())).await.unwrap();
    exec.start().await.unwrap();
    container.signal(9).await.unwrap();
    assert_eq!(container.wait().await.code, 137);
    assert_eq!(exec.wait().await.code, 137);
    let late = container.exec(order(&world, &["true"], |_| ())).await;
    assert!(late.is_err() || late.unwrap().start().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_behind_does_not_hold_it_up() {
    let world = world!();
    let container = world.started(&["sleep", "100"]).await;
    let begun = std::time::Instant::now();
    let (code, out, _) = exec(&container, order(&world, &["sh", "-c", "sleep 50 & echo left"], |_| ())).await;
    assert_eq!((code, &*out), (0, "left\n"));
    assert!(begun.elapsed().as_secs() < 5);
    assert!(container.top().await.unwrap().iter().any(|process| process.command == "sleep 50"));
    end(&world, container).await;
}
