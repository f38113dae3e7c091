//! A container's life, experienced: exit codes, signals, stdio, commands, limits.

mod common;

use common::{World, collect, possible, until};
use runtime::{AttachOptions, FailureKind, Stdio};
use std::time::Duration;

macro_rules! check_possible {
    () => {
        if !possible() {
            return;
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_the_programs_own() {
    check_possible!();
    let world = World::new();
    let check = async |args: &[&str], code: i32, signal: Option<i32>| {
        let (status, _, err) = world.run(world.order(&world.describe(args))).await.unwrap();
        assert_eq!((status.code, status.signal), (code, signal), "{args:?} {err}");
    };
    check(&["true"], 0, None).await;
    check(&["false"], 1, None).await;
    check(&["sh", "-c", "exit 42"], 42, None).await;
    check(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_started_is_told_apart() {
    check_possible!();
    let world = World::new();
    let check = async |args: &[&str], kind: FailureKind, words: &str| {
        let error = world.run(world.order(&world.describe(args))).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), kind, "{args:?}: {error}");
        assert_eq!(error.to_string(), words, "{args:?}");
    };
    check(&["nosuch"], FailureKind::NotFound, "exec: \"nosuch\": executable file not found in $PATH").await;
    check(&["/nosuch"], FailureKind::NotFound, "exec: \"/nosuch\": stat /nosuch: no such file or directory").await;
    check(&["/etc/notes"], FailureKind::NotExecutable, "exec: \"/etc/notes\": permission denied").await;
    check(&["/etc"], FailureKind::NotExecutable, "exec: \"/etc\": is a directory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_process_or_all_of_them() {
    check_possible!();
    let world = World::new();
    let order = world.order(&world.describe(&[
        "sh",
        "-c",
        "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.05; done",
    ]));
    let prepared = world.runtime.prepare(order).await.unwrap();
    let mut attached = prepared.attach(AttachOptions::OUTPUT).await.unwrap();
    let container = prepared.launch().await.unwrap();
    until(&mut attached, "up").await;
    container.signal(15).await.unwrap();
    assert_eq!(container.wait().await.code, 3);
    assert!(container.signal(15).await.is_err(), "it has ended");

    let container = world.started(&["sleep", "1000"]).await;
    container.signal_all(9).await.unwrap();
    let status = container.wait().await;
    assert_eq!((status.code, status.signal, status.oom_killed), (137, Some(9), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_told_apart_and_logged_as_docker_logs() {
    check_possible!();
    let world = World::new();
    let order = world.order(&world.describe(&["sh", "-c", "echo out; echo err >&2; printf 'no end <&>'"]));
    let path = order.log.clone().unwrap().path;
    let (_, out, err) = world.run(order).await.unwrap();
    assert_eq!((&*out, &*err), ("out\nno end <&>", "err\n"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<&str> = text.lines().map(|line| line.split(",\"time\":\"20").next().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            r#"{"log":"err\n","stream":"stderr""#,
            r#"{"log":"no end \u003c\u0026\u003e","stream":"stdout""#,
            r#"{"log":"out\n","stream":"stdout""#,
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stdin_ends_a_cat_and_others_stay_attached() {
    check_possible!();
    let world = World::new();
    let mut order = world.order(&world.describe(&["cat"]));
    order.stdio = Stdio { open_stdin: true, stdin_once: true, ..Stdio::default() };
    let prepared = world.runtime.prepare(order).await.unwrap();
    let mut first = prepared.attach(AttachOptions::ALL).await.unwrap();
    let mut second = prepared.attach(AttachOptions::OUTPUT).await.unwrap();
    // Written before there is a process.
    first.stdin.write(b"early\n").await.unwrap();
    let container = prepared.launch().await.unwrap();
    assert_eq!(until(&mut first, "early\n").await, "early\n");
    let big = vec![b'x'; 300_000];
    let mut all = String::new();
    let writing = async {
        first.stdin.write(&big).await.unwrap();
        first.stdin.close().await.unwrap();
    };
    let reading = async {
        while let Some((_, bytes)) = first.output.next().await {
            all.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    let also = async { while second.output.next().await.is_some() {} };
    tokio::join!(writing, reading, also);
    assert_eq!(all.len(), big.len());
    assert_eq!(container.wait().await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_detaches_changes_nothing() {
    check_possible!();
    let world = World::new();
    let mut order = world.order(&world.describe(&["cat"]));
    order.stdio = Stdio { open_stdin: true, ..Stdio::default() };
    let container = world.runtime.start(order).await.unwrap();
    let mut one = container.attach(AttachOptions::ALL).await.unwrap();
    one.stdin.write(b"one\n").await.unwrap();
    until(&mut one, "one\n").await;
    one.stdin.close().await.unwrap();
    drop(one);
    let mut two = container.attach(AttachOptions::ALL).await.unwrap();
    two.stdin.write(b"two\n").await.unwrap();
    until(&mut two, "two\n").await;
    container.signal(9).await.unwrap();
    assert_eq!(container.wait().await.code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_up_the_process_and_not_its_end() {
    check_possible!();
    let world = World::new();
    let container = world.started(&["sh", "-c", "yes | head -c 3000000; echo; echo done"]).await;
    let lazy = container.attach(AttachOptions::OUTPUT).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(700), container.wait()).await.is_err(),
        "it waits for the client"
    );
    drop(lazy);
    let status = tokio::time::timeout(Duration::from_secs(10), container.wait()).await.unwrap();
    assert_eq!(status.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_and_is_the_containers_own() {
    check_possible!();
    let world = World::new();
    let mut description = world.describe(&["sh", "-c", "tty; stty size; read line; stty size; ls -l /dev/console"]);
    description.tty = true;
    let mut order = world.order(&description);
    order.stdio =
        Stdio { tty: true, open_stdin: true, size: Some(runtime::Size { rows: 33, columns: 99 }), ..Stdio::default() };
    let prepared = world.runtime.prepare(order).await.unwrap();
    let mut attached = prepared.attach(AttachOptions::ALL).await.unwrap();
    let container = prepared.launch().await.unwrap();
    let text = until(&mut attached, "99").await;
    assert!(text.contains("/dev/pts/0\r\n33 99"), "{text:?}");
    container.resize(runtime::Size { rows: 44, columns: 111 }).await.unwrap();
    attached.stdin.write(b"go\n").await.unwrap();
    let text = until(&mut attached, "console").await;
    assert!(text.contains("44 111\r\ncrw--w----"), "{text:?}");
    let (rest, _) = collect(attached).await;
    assert_eq!(rest.trim(), "");
    assert_eq!(container.wait().await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_interrupts_what_has_the_terminal() {
    check_possible!();
    let world = World::new();
    let mut description =
        world.describe(&["sh", "-c", "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.1; done"]);
    description.tty = true;
    let mut order = world.order(&description);
    order.stdio.open_stdin = true;
    let prepared = world.runtime.prepare(order).await.unwrap();
    let mut attached = prepared.attach(AttachOptions::ALL).await.unwrap();
    let container = prepared.launch().await.unwrap();
    until(&mut attached, "up").await;
    attached.stdin.write(b"\x03").await.unwrap();
    assert_eq!(container.wait().await.code, 9);
}
