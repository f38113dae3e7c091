//! The client as people and scripts meet it: statuses, streams, terminals, and the daemon that it starts.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::{Lab, within};

const ISLE: &str = env!("CARGO_BIN_EXE_isle");

fn lab() -> Lab {
    Lab::start(Path::new(ISLE)).expect("a lab: root and 'cargo build -p isle-shim' are needed")
}

#[test]
fn statuses_are_docker_s() {
    let lab = lab();
    let status = |arguments: &[&str]| lab.isle(arguments).code;
    assert_eq!(status(&["run", "--rm", "busybox", "sh", "-c", "exit 7"]), 7);
    assert_eq!(status(&["run", "--rm", "busybox", "nosuchcommand"]), 127);
    assert_eq!(status(&["run", "--rm", "busybox", "/etc/passwd"]), 126);
    assert_eq!(status(&["run", "--rm", "--network", "nosuch", "busybox", "true"]), 125);
    assert_eq!(status(&["run", "--nosuch", "busybox"]), 125);
    assert_eq!(status(&["run", "--rm", "--isolation", "foo", "busybox", "true"]), 125);
    assert_eq!(status(&["run"]), 1);
    assert_eq!(status(&["network", "rm", "nosuch"]), 1);
    assert_eq!(status(&["network", "rm", "-f", "nosuch"]), 0);
    assert_eq!(status(&["network", "nosuch"]), 1);
    lab.isle(&["run", "-d", "--name", "cc", "busybox", "sleep", "60"]).ok();
    assert_eq!(status(&["exec", "cc", "sh", "-c", "exit 9"]), 9);
    assert_eq!(status(&["exec", "cc", "nosuchcommand"]), 127);
}

#[test]
fn errors_say_where_to_read_on() {
    let lab = lab();
    assert_eq!(
        lab.isle(&["run", "--rm", "--network", "nosuch", "busybox", "true"]).refused(),
        "isle: Error response from daemon: failed to set up container networking: network nosuch not found\n\n\
         Run 'isle run --help' for more information"
    );
    assert_eq!(
        lab.isle(&["network", "create"]).refused(),
        "isle: 'isle network create' requires 1 argument\n\nUsage:  isle network create [OPTIONS] NETWORK\n\n\
         Run 'isle network create --help' for more information"
    );
    assert_eq!(
        lab.isle(&["-H", "unix:///nosuch.sock", "ps"]).refused(),
        "Cannot connect to the Isle daemon at unix:///nosuch.sock. Is the isle daemon running?"
    );
}

#[test]
fn the_daemons_help_says_how_it_is_called() {
    for (name, arguments, usage) in [
        ("isle", &["daemon", "--help"][..], "Usage: isle daemon [OPTIONS]"),
        ("dockerd", &["--help"], "Usage: dockerd [OPTIONS]"),
    ] {
        let link = tempfile::tempdir().unwrap();
        let program = link.path().join(name);
        std::os::unix::fs::symlink(ISLE, &program).unwrap();
        let help = Command::new(&program).args(arguments).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.lines().any(|line| line == usage), "{help}");
    }
}

#[test]
fn what_a_start_and_a_removal_refuse_is_said_once_and_in_docker_s_words() {
    let lab = lab();
    let device = lab.isle(&["run", "--rm", "--device", "/dev/nosuch", "busybox", "true"]);
    // docker's own client makes 127 of these words, in lower case.
    assert!(device.stderr.contains("no such file or directory") && !device.stderr.contains("(os error"), "{device:?}");
    assert_eq!(device.code, 127);
    let directory = lab.directory().display().to_string();
    for mount in [
        ["-v", &format!("{directory}:/etc/passwd")],
        ["-v", "/etc/passwd:/tmp"],
        ["--tmpfs", "/etc/passwd"],
        ["-v", "/etc/passwd:/etc/passwd/below"],
    ] {
        let refused = lab.isle(&["run", "--rm", mount[0], mount[1], "busybox", "true"]);
        let words = "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?";
        assert!(refused.stderr.contains(words), "{mount:?}: {}", refused.stderr);
        assert_eq!(refused.code, 125);
    }
    lab.isle(&["create", "--name", "user", "busybox"]).ok();
    let conflict = lab.isle(&["rmi", "busybox"]).refused();
    assert_eq!(conflict.matches("unable to remove repository reference").count(), 1, "{conflict}");
    assert!(
        conflict.contains("conflict: unable to remove repository reference \"busybox\" (must force)"),
        "{conflict}"
    );
}

#[test]
fn linked_as_docker_it_answers_as_docker() {
    let lab = lab();
    let link = lab.directory().join("docker");
    std::os::unix::fs::symlink(ISLE, &link).unwrap();
    let mut command = Command::new(link);
    let output = lab.on_host(command.args(["run", "--nosuch", "x"]).env("DOCKER_HOST", lab.docker_host()));
    assert_eq!(output.code, 125);
    assert!(output.stderr.contains("Run 'docker run --help' for more information"), "{}", output.stderr);
    let mut command = Command::new(lab.directory().join("docker"));
    let output = lab.on_host(command.arg("ps").env_remove("ISLE_HOST").env("DOCKER_HOST", "unix:///nosuch.sock"));
    assert_eq!(
        output.stderr.trim_end(),
        "Cannot connect to the Docker daemon at unix:///nosuch.sock. Is the docker daemon running?"
    );
}

#[test]
fn the_rest_of_docker_s_words_is_known() {
    let lab = lab();
    assert_eq!(lab.isle(&["context", "show"]).ok(), "default");
    assert_eq!(lab.isle(&["context", "use", "default"]).ok(), "default");
    assert!(lab.isle(&["context", "use", "other"]).refused().contains("context \"other\": context not found"));
    let contexts = lab.isle(&["context", "ls"]).ok();
    assert!(contexts.starts_with("NAME        DESCRIPTION") && contexts.contains(&lab.docker_host()), "{contexts}");
    assert_eq!(
        lab.isle(&["context", "inspect", "-f", "{{.Endpoints.docker.Host}}", "default"]).ok(),
        lab.docker_host()
    );
    // A list as docker's raw one, a blank line behind each.
    let shown = lab.isle(&["network", "ls", "--filter", "driver=host", "--format", "raw"]).ok();
    let id = lab.isle(&["network", "ls", "-q", "--filter", "driver=host"]).ok();
    assert_eq!(shown, format!("network_id: {id}\nname: host\ndriver: host\nscope: local"));
    assert_eq!(lab.isle(&["images", "-q", "--format", "raw"]).ok().split(": ").next(), Some("image_id"));
    if let Some(theirs) = lab.docker(&["images", "--format", "raw"]) {
        assert_eq!(lab.isle(&["images", "--format", "raw"]).ok(), theirs.ok());
        lab.isle(&["run", "-d", "--label", "a=b", "busybox", "sleep", "600"]).ok();
        assert_eq!(lab.isle(&["ps", "--format", "raw"]).ok(), lab.docker(&["ps", "--format", "raw"]).unwrap().ok());
        for list in [&["network", "ls", "--format", "raw"][..], &["volume", "ls", "--format", "raw"], &["images"]] {
            assert_eq!(lab.isle(list).ok(), lab.docker(list).unwrap().ok(), "{list:?}");
        }
    }
    let bad = lab.isle(&["tag", "busybox", "BAD"]).refused();
    assert!(bad.starts_with("Error parsing reference: \"BAD\" is not a valid repository/tag: "), "{bad}");
    // Help that was not asked for is no output.
    for command in [&[][..], &["network"]] {
        let said = lab.isle(command);
        assert!(said.stdout.is_empty() && said.stderr.contains("Commands:"), "{said:?}");
    }
}

#[test]
fn streams_are_kept_apart_and_input_ends() {
    let lab = lab();
    let output = lab.isle(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    let mut child = spawn(&lab, &["run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo end"], Stdio::piped());
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| u8::try_from(n % 26).unwrap_or_default() + b'a').collect();
    let mut input = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let feeding = std::thread::spawn(move || input.write_all(&sent));
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    feeding.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(back.len(), bytes.len() + 4);
    assert!(back.starts_with(&bytes) && back.ends_with(b"end\n"));
}

#[test]
fn a_signal_reaches_the_container() {
    let lab = lab();
    let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = spawn(&lab, &["run", "--rm", "busybox", "sh", "-c", script], Stdio::null());
    let mut out = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    out.read_exact(&mut ready).unwrap();
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

fn spawn(lab: &Lab, arguments: &[&str], stdin: Stdio) -> Child {
    let mut command = Command::new(ISLE);
    command.args(arguments).env("ISLE_HOST", lab.docker_host()).stdin(stdin).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// A person's terminal with a client on it.
struct Terminal {
    master: File,
    line: OwnedFd,
    shown: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    fn open(lab: &Lab, arguments: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let line = File::options().read(true).write(true).open(path).unwrap();
        tcsetwinsize(&line, Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        let mut command = Command::new(ISLE);
        command.args(arguments).env("ISLE_HOST", lab.docker_host()).stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, seen) = (master.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Terminal { master, line: line.into(), shown, child }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn shows(&self, text: &str) {
        let seen = || self.shown.lock().unwrap().clone();
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !seen().contains(text) {
            assert!(std::time::Instant::now() < end, "{text:?} is not in {:?}", seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_cooked(&self) -> bool {
        tcgetattr(&self.line).unwrap().local_modes.contains(rustix::termios::LocalModes::ICANON)
    }

    fn ends(mut self) -> i32 {
        let mut status = None;
        within(Duration::from_secs(10), "the client ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(self.is_cooked(), "the terminal was left raw");
        status.and_then(|s| s.code()).unwrap_or(-1)
    }
}

#[test]
fn a_terminal_is_raw_sized_and_given_back() {
    let lab = lab();
    let mut terminal = Terminal::open(&lab, &["run", "--rm", "-it", "busybox", "sh"]);
    terminal.types("stty size\n");
    terminal.shows("33 101");
    assert!(!terminal.is_cooked());
    tcsetwinsize(&terminal.line, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    Command::new("kill").args(["-WINCH", &terminal.child.id().to_string()]).status().unwrap();
    // The daemon hears of it a moment later.
    terminal.types("while [ \"$(stty size)\" != '40 120' ]; do :; done; echo re-sized | tr -d -\n");
    terminal.shows("resized");
    terminal.types("exit 5\n");
    assert_eq!(terminal.ends(), 5);
}

#[test]
fn a_terminal_without_input_passes_its_signals_on() {
    let lab = lab();
    let script = "trap 'echo got; exit 7' INT; echo rea''dy; while :; do sleep 0.05; done";
    let terminal = Terminal::open(&lab, &["run", "-t", "--rm", "busybox", "sh", "-c", script]);
    terminal.shows("ready");
    // What Ctrl-C is to a client that does not read the keys.
    Command::new("kill").args(["-INT", &terminal.child.id().to_string()]).status().unwrap();
    terminal.shows("got");
    assert_eq!(terminal.ends(), 7);
}

#[test]
fn a_terminal_detaches_and_attaches_again() {
    let lab = lab();
    lab.isle(&["run", "-dit", "--name", "cc", "busybox", "sh"]).ok();
    let mut terminal = Terminal::open(&lab, &["attach", "cc"]);
    terminal.types("echo fi''rst\n");
    terminal.shows("first");
    terminal.types("\x10\x11");
    terminal.shows("read escape sequence");
    assert_eq!(terminal.ends(), 1);
    let mut terminal = Terminal::open(&lab, &["exec", "-it", "cc", "sh"]);
    terminal.types("echo wit''hin\n");
    terminal.shows("within");
    terminal.types("\x10\x11");
    terminal.shows("read escape sequence");
    assert_eq!(terminal.ends(), 1);
    let mut terminal = Terminal::open(&lab, &["attach", "--detach-keys", "ctrl-x,y", "cc"]);
    terminal.types("echo sec''ond\n");
    terminal.shows("second");
    terminal.types("exit 4\n");
    assert_eq!(terminal.ends(), 4);
    let mut terminal = Terminal::open(&lab, &["start", "-ai", "cc"]);
    terminal.types("exit 6\n");
    assert_eq!(terminal.ends(), 6);
}

#[test]
fn a_directory_is_built_without_what_it_ignores() {
    let lab = lab();
    let context = lab.directory().join("context");
    std::fs::create_dir_all(context.join("sub")).unwrap();
    for (name, text) in [
        (
            "Dockerfile",
            "FROM busybox\nARG WHO\nCOPY . /ctx\nRUN echo \"for $WHO\" > /who\nCMD find /ctx -type f | sort\n",
        ),
        (".dockerignore", "**/*.tmp\n!sub/keep.tmp\nDockerfile\n"),
        ("a.tmp", ""),
        ("sub/b.tmp", ""),
        ("sub/keep.tmp", ""),
        ("sub/c.txt", ""),
    ] {
        std::fs::write(context.join(name), text).unwrap();
    }
    let path = context.display().to_string();
    let said = lab.isle(&["build", "-t", "built", "--build-arg", "WHO=me", "--label", "a=b", &path]).ok();
    assert!(said.contains("Successfully tagged built:latest"), "{said}");
    assert_eq!(lab.isle(&["run", "--rm", "built"]).ok(), "/ctx/.dockerignore\n/ctx/sub/c.txt\n/ctx/sub/keep.tmp");
    assert_eq!(lab.isle(&["run", "--rm", "built", "cat", "/who"]).ok(), "for me");
    assert_eq!(lab.isle(&["inspect", "-f", "{{.Config.Labels.a}}", "built"]).ok(), "b");
    let id = lab.isle(&["build", "-q", "-f", &context.join("Dockerfile").display().to_string(), &path]).ok();
    assert!(id.starts_with("sha256:"), "{id}");
    let failed = lab.isle(&["build", "-f", "nosuch", &path]);
    assert!(failed.refused().starts_with("unable to prepare context: "));
}

#[test]
fn images_are_saved_and_loaded() {
    let lab = lab();
    let file = lab.directory().join("image.tar").display().to_string();
    lab.isle(&["tag", "busybox", "mine/box:1"]).ok();
    lab.isle(&["save", "-o", &file, "mine/box:1"]).ok();
    lab.isle(&["rmi", "mine/box:1"]).ok();
    let said = lab.isle(&["load", "-i", &file]).ok();
    assert!(said.contains("mine/box:1"), "{said}");
    let names = lab.isle(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    assert!(names.lines().any(|n| n == "mine/box:1"), "{names}");
}

/// A namespace of mounts makes the default socket ours; both programs lie side by side, as installed.
#[test]
fn a_daemon_is_started_where_none_listens() {
    let shim = testkit::shim_of(Path::new(ISLE));
    let script = r#"
        mount -t tmpfs none /run && ip link set lo up
        mkdir /run/bin && cp "$ISLE" /run/bin/isle && cp "$SHIM" /run/bin/isle-shim
        ISLE=/run/bin/isle
        "$ISLE" --no-autostart ps 2>&1; echo "status $?"
        "$ISLE" --root /run/root network ls --format '{{.Name}}' 2>/run/said; echo "status $?"
        "$ISLE" network ls -q 2>&1 | wc -l
        cat /run/said; cat /run/root/daemon.log >&2
        for pid in $(cat /proc/[0-9]*/stat 2>/dev/null | awk '$2 == "(isle)" {print $1}'); do
            if tr '\0' ' ' </proc/$pid/cmdline | grep -q -- '--root /run/root'; then kill $pid; fi
        done
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "bash", "-c", script]);
    command.env("ISLE", ISLE).env("SHIM", shim);
    command.env_remove("ISLE_HOST").env_remove("DOCKER_HOST").stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "\
Cannot connect to the Isle daemon at unix:///run/isle/isle.sock. Is the isle daemon running?
status 1
bridge
host
none
status 0
3
isle: no daemon was running, so one has been started (its log: /run/root/daemon.log)
";
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn names_are_completed_at_a_prompt() {
    let lab = lab();
    lab.isle(&["network", "create", "front"]).ok();
    lab.isle(&["create", "--name", "web", "busybox"]).ok();
    assert_eq!(lab.isle(&["__complete", "network", "rm", ""]).ok(), "front\tbridge\n:4");
    assert_eq!(lab.isle(&["__complete", "run", "--network=fr"]).ok(), "--network=front\tbridge\n:4");
    assert_eq!(lab.isle(&["-H", "unix:///nosuch.sock", "__complete"]).code, 1);
    assert_eq!(lab.isle(&["__complete", "-H", "unix:///nosuch.sock", "rm", ""]).ok(), ":4");
    // Bash itself, as at its prompt.
    let script = format!(
        "source <(isle completion bash); COMP_WORDS=(isle {}) COMP_CWORD=2 COMP_WORDBREAKS=' '; _isle; \
         echo \"${{COMPREPLY[@]}}\"",
        "run bu"
    );
    let directory = Path::new(ISLE).parent().unwrap().display().to_string();
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).env("ISLE_HOST", lab.docker_host());
    bash.env("PATH", format!("{directory}:{}", std::env::var("PATH").unwrap_or_default()));
    assert_eq!(lab.on_host(&mut bash).ok(), "busybox");
}

#[test]
fn the_network_explains_itself() {
    let lab = lab();
    lab.isle(&["network", "create", "front"]).ok();
    lab.isle(&["network", "create", "--opt", "com.docker.network.bridge.enable_icc=false", "back"]).ok();
    for (name, network) in [("web", "front"), ("client", "front"), ("db", "back")] {
        lab.isle(&["run", "-d", "--network", network, "--name", name, "busybox", "sleep", "600"]).ok();
    }
    let web = lab.isle(&["inspect", "-f", "{{.NetworkSettings.Networks.front.IPAddress}}", "web"]).ok();
    assert_eq!(
        lab.isle(&["network", "explain", "client", "web:80"]).ok(),
        format!("web is found on the networks of client (front)\n{web} port 80/tcp reaches web: both are on front")
    );
    let unknown = lab.isle(&["network", "explain", "client", "db:5432"]);
    assert_eq!(unknown.code, 1);
    assert_eq!(
        unknown.stdout.trim_end(),
        "db is not known on the networks of client (front): container db is on back; \
         join a network of both, e.g. 'isle network connect front db'"
    );
    let outside = lab.isle(&["network", "explain", "outside", &format!("{web}:80/udp")]);
    assert_eq!(
        (outside.code, outside.stdout.trim_end()),
        (
            1,
            format!(
                "{web} port 80/udp is stopped: the port is not open to packets from outside front: publish it, and use \
                 the host's address"
            )
            .as_str()
        )
    );
    assert_eq!(
        lab.isle(&["network", "explain", "client", "web"]).refused(),
        "\"web\" names no port: TO:PORT or TO:PORT/udp does, e.g. web:80"
    );
}

#[test]
fn without_its_id_file_no_container_is_made() {
    let lab = lab();
    let missing = lab.directory().join("missing/id").display().to_string();
    let words = format!("failed to create the container ID file: open {missing}: no such file or directory");
    for verb in ["run", "create"] {
        let refused = lab.isle(&[verb, "--cidfile", &missing, "busybox", "true"]).refused();
        assert!(refused.contains(&words), "{refused}");
    }
    assert_eq!(lab.isle(&["ps", "-aq"]).ok(), "");
    // It goes where there is no container; and keeps another's.
    let file = lab.directory().join("id").display().to_string();
    lab.isle(&["create", "--cidfile", &file, "nosuch.invalid/image"]).refused();
    assert!(!Path::new(&file).exists());
    let id = lab.isle(&["create", "--cidfile", &file, "busybox", "true"]).ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), id);
    let refused = lab.isle(&["create", "--cidfile", &file, "busybox", "true"]).refused();
    assert!(refused.contains("container ID file found, make sure the other container isn't running"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), id);
}

#[test]
fn a_name_with_a_slash_is_one_name() {
    let lab = lab();
    for (words, said) in [
        (&["network", "rm", "a/b"][..], "Error response from daemon: network a/b not found"),
        (&["rm", "a/b"], "Error response from daemon: No such container: a/b"),
        (&["volume", "rm", "a/b"], "Error response from daemon: get a/b: no such volume"),
        (&["rmi", "a/b"], "Error response from daemon: No such image: a/b:latest"),
    ] {
        let refused = lab.isle(words).refused();
        assert!(refused.starts_with(said), "{words:?}: {refused}");
    }
}

#[test]
fn a_daemon_is_spoken_to_over_loopback() {
    let port = "127.0.0.1:4243";
    let lab = Lab::start_with(Path::new(ISLE), &["--host", &format!("tcp://{port}")]).unwrap();
    let host = format!("tcp://{port}");
    assert_eq!(lab.isle(&["-H", &host, "run", "--rm", "busybox", "echo", "by tcp"]).ok(), "by tcp");
    let by_environment = |name: &str| {
        let mut command = Command::new(ISLE);
        command.args(["run", "-d", "busybox", "true"]).env_remove("ISLE_HOST").env_remove("DOCKER_HOST");
        lab.on_host(command.env(name, &host)).ok()
    };
    for name in ["DOCKER_HOST", "ISLE_HOST"] {
        assert_eq!(by_environment(name).len(), 64, "{name}");
    }
    let nobody = lab.isle(&["-H", "tcp://127.0.0.1:4244", "ps"]).refused();
    assert!(nobody.starts_with("Cannot connect to the Isle daemon at tcp://127.0.0.1:4244."), "{nobody}");
    // The streams of a container both ways.
    let mut typed = lab.in_host(|| spawn_to(&host));
    typed.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    assert_eq!(typed.wait_with_output().unwrap().stdout, b"typed\n");
}

fn spawn_to(host: &str) -> Child {
    let mut command = Command::new(ISLE);
    command.args(["-H", host, "run", "-i", "--rm", "busybox", "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}
