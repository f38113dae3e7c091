//! runc as the oracle: the same specifications, started by our launcher and by runc, look the same from inside.
//!
//! Not compared, since no program behaves otherwise for it, or since we mean it:
//! - options of super blocks: where runc makes a read-only sysfs, we mount one read-only; what may be written is the same
//! - the tmpfs of cgroup v1, which Debian's runc leaves writable: ours is as the specification asks for it
//! - the names of mounts' sources (`cgroup`, where runc repeats the host's `systemd`), and the order of mounts that do
//!   not lie on each other
//! - the propagation of the root beside a bind that is `rshared`: the specification asks for `shared`, and ours is
//! - `c 10:200 rwm`, /dev/net/tun, among the devices: runc allowed it until 1.2 whatever was asked for; who wants it says
//!   `--device /dev/net/tun`
//! - where an init lies: runc finds it at /sbin/docker-init, ours is executed by a descriptor

mod common;

use common::{World, bind, collect, netns, possible, until};
use model::spec::{Description, Mount, Seccomp, Ulimit, User};
use runtime::{AttachOptions, FailureKind, RuntimeKind};
use std::path::Path;

/// Everything that a process can see of what it is.
const LOOK: &str = "
    echo -- mounts; cat /proc/self/mountinfo
    echo -- status; grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups|Umask|SigBlk|SigIgn|SigCgt)' /proc/self/status
    echo -- devices; ls -l /dev /dev/pts /dev/shm
    echo -- limits; cat /proc/self/limits
    echo -- cgroup; cat /proc/self/cgroup
    echo -- environment; env | sort
    echo -- directory; pwd
    echo -- host; hostname; cat /proc/sys/kernel/domainname
    echo -- init; tr '\\0' ' ' </proc/1/cmdline | cut -c -25; cut -d' ' -f2,4 /proc/1/stat; grep -E \"^Sig(Blk|Ign|Cgt)\" /proc/1/status
    echo -- session; cut -d' ' -f5-8 /proc/self/stat | sed \"s/^$$ /own /\"
    echo -- descriptors; ls /proc/self/fd
    echo -- score; cat /proc/self/oom_score_adj
    echo -- masked; for p in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do test -e $p && echo $p $(head -c 1 $p 2>&1 | wc -c); done; ls /sys/firmware
    echo -- read-only; (: > /proc/sys/kernel/domainname) 2>&1; (: > /sys/x) 2>&1; (: > /y) 2>&1
    echo -- calls; unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; mknod /dev/shm/k b 7 7 2>&1; chroot / true 2>&1
    echo -- keys; cat /proc/key-users 2>&1 | wc -l
    true
";

/// Without what differs from one container to the next: mount ids, device numbers of anonymous file systems, layers.
fn plain(text: &str, id: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut part = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("-- ") {
            part = name;
        }
        let line = line.replace(id, "ID");
        lines.push(match part {
            "mounts" if !line.starts_with("-- ") => {
                let (mount, fs) = line.split_once(" - ").unwrap();
                let fields: Vec<&str> = mount.split(' ').collect();
                let mut fs: Vec<&str> = fs.split(' ').collect();
                // The super block's options of what is shared with the host are the host's.
                if fs[0] == "overlay" || fs[0] == "sysfs" || fs[0] == "cgroup" {
                    fs.truncate(1);
                }
                format!("{} {} {} {} {}", fields[3], fields[4], fields[5], fields[6..].len(), fs.join(" "))
            }
            "devices" => line.split_whitespace().filter(|word| !word.contains(':')).collect::<Vec<_>>().join(" "),
            _ => line,
        });
    }
    lines
}

struct Case {
    name: &'static str,
    change: fn(&mut Description, &Path),
}

const CASES: &[Case] = &[
    Case { name: "plain", change: |_, _| () },
    Case { name: "a user", change: |d, _| d.user = User { uid: 1000, gid: 1001, groups: vec![20, 30], umask: None } },
    Case {
        name: "a user who may",
        change: |d, _| {
            d.user = User { uid: 7, gid: 7, groups: vec![], umask: Some(0o077) };
            d.no_new_privileges = true;
            d.cap_add = vec!["SYS_TIME".to_owned()];
        },
    },
    Case {
        name: "few capabilities",
        change: |d, _| {
            d.cap_drop = vec!["ALL".to_owned()];
            d.cap_add = vec!["NET_BIND_SERVICE".to_owned(), "SYS_CHROOT".to_owned()];
        },
    },
    Case {
        name: "unconfined",
        change: |d, _| {
            d.seccomp = Seccomp::Unconfined;
            d.system_paths_unconfined = true;
            d.cap_add = vec!["SYS_ADMIN".to_owned()];
        },
    },
    Case { name: "privileged", change: |d, _| d.privileged = true },
    Case {
        name: "read-only with mounts",
        change: |d, data| {
            d.readonly_root = true;
            d.mounts = vec![
                bind(data, "/data"),
                Mount::Tmpfs { target: "/scratch".to_owned(), options: vec!["size=2m".to_owned(), "exec".to_owned()] },
                Mount::Bind {
                    source: data.join("file").display().to_string(),
                    target: "/etc/file".to_owned(),
                    readonly: true,
                    recursive: true,
                    recursive_readonly: false,
                    propagation: model::spec::Propagation::RecursivelyPrivate,
                },
            ];
            d.shm_size = Some(1 << 20);
        },
    },
    Case {
        name: "limits",
        change: |d, _| {
            let ulimit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
            d.ulimits = vec![ulimit("nofile", 100, 200), ulimit("core", 0, 0), ulimit("stack", 1 << 20, 1 << 22)];
            d.resources.memory = Some(64 << 20);
            d.resources.pids_limit = Some(50);
            d.resources.cpu_shares = Some(100);
            d.oom_score_adj = Some(500);
        },
    },
    Case {
        name: "names and parameters",
        change: |d, _| {
            d.hostname = "other".to_owned();
            d.domainname = "example.org".to_owned();
            d.cwd = "/srv/app".to_owned();
            d.env.push("X=1 2".to_owned());
            d.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
            d.sysctls.insert("kernel.msgmax".to_owned(), "1234".to_owned());
        },
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn the_same_specification_looks_the_same_by_runc() {
    if !possible() {
        return;
    }
    assert!(Path::new("/usr/sbin/runc").exists(), "runc is missing: apt-get install runc");
    // A program in Go raises its own soft limit to the hard one, and so its container's.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();
    let world = World::new();
    let data = world.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "").unwrap();
    let mut different = Vec::new();
    // By an init, too: as root, and as somebody.
    let cases = CASES.iter().map(|case| (case, false)).chain(CASES[..2].iter().map(|case| (case, true)));
    for (case, init) in cases {
        let mut description = world.describe(&["sh", "-c", LOOK]);
        (case.change)(&mut description, &data);
        let mut looks = Vec::new();
        for runtime in [RuntimeKind::Launcher, RuntimeKind::Runc] {
            let mut order = world.order(&description);
            order.runtime = runtime;
            order.init = init;
            order.netns = Some(netns());
            let id = order.id.to_string();
            let (status, out, err) =
                world.run(order).await.unwrap_or_else(|error| panic!("{} {init}: {error}", case.name));
            assert_eq!(status.code, 0, "{} {init} {out} {err}", case.name);
            looks.push(plain(&out, &id));
        }
        // Where we mean to differ: this runc leaves the cgroup tmpfs writable, and knows no domain names.
        let meant = |line: &&String| {
            line.contains(" /sys/fs/cgroup ro,")
                || line.contains(" /sbin/docker-init ")
                || line.contains(" /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime 0 tmpfs")
                || *line == "example.org"
                || *line == "(none)"
        };
        looks.iter_mut().for_each(|look| look.retain(|line| !meant(&line)));
        let (ours, runcs) = (&looks[0], &looks[1]);
        for line in ours.iter().filter(|line| !runcs.contains(line)) {
            different.push(format!("{}: only ours: {line}", case.name));
        }
        for line in runcs.iter().filter(|line| !ours.contains(line)) {
            different.push(format!("{}: only runc's: {line}", case.name));
        }
    }
    assert!(different.is_empty(), "\n{}", different.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn runc_starts_and_fails_with_the_same_words_and_has_terminals() {
    if !possible() || !Path::new("/usr/sbin/runc").exists() {
        eprintln!("SKIP: runc is not installed");
        return;
    }
    let world = World::new();
    let runc = |description: &Description| {
        let mut order = world.order(description);
        order.runtime = RuntimeKind::Runc;
        order.netns = Some(netns());
        order
    };
    let (status, out, err) =
        world.run(runc(&world.describe(&["sh", "-c", "echo out; echo err >&2; exit 5"]))).await.unwrap();
    assert_eq!((status.code, &*out, &*err), (5, "out\n", "err\n"));
    let error = world.run(runc(&world.describe(&["nosuch"]))).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), FailureKind::NotFound, "{error}");
    assert!(error.to_string().contains("exec: \"nosuch\": executable file not found in $PATH"), "{error}");
    let mut description = world.describe(&["sh", "-c", "tty; read x; echo $x"]);
    description.tty = true;
    let mut order = runc(&description);
    order.stdio.open_stdin = true;
    let prepared = world.runtime.prepare(order).await.unwrap();
    let mut attached = prepared.attach(AttachOptions::ALL).await.unwrap();
    let container = prepared.launch().await.unwrap();
    until(&mut attached, "/dev/pts/0").await;
    attached.stdin.write(b"typed\n").await.unwrap();
    until(&mut attached, "typed\r\ntyped").await;
    collect(attached).await;
    assert_eq!(container.wait().await.code, 0);
    world.runtime.forget(container.id()).await;

    // What it has made is as much ours afterwards as what we make.
    let container = world.runtime.start(runc(&world.describe(&["sleep", "100"]))).await.unwrap();
    let command = world.describe(&["sh", "-c", "echo $$; readlink /proc/1/ns/pid; exit 8"]).spec().unwrap();
    let order = runtime::ExecOrder {
        process: command.process().clone().unwrap(),
        seccomp: command.linux().as_ref().and_then(|linux| linux.seccomp().clone()),
        open_stdin: false,
        size: None,
    };
    let exec = container.exec(order).await.unwrap();
    let attached = exec.attach(AttachOptions::OUTPUT).await.unwrap();
    exec.start().await.unwrap();
    let own = std::fs::read_link(format!("/proc/{}/ns/pid", container.pid())).unwrap();
    assert!(collect(attached).await.0.ends_with(&format!("{}\n", own.display())));
    assert_eq!(exec.wait().await.code, 8);
    assert_eq!(container.stats().await.unwrap().pids, 1);
    container.signal(9).await.unwrap();
    assert_eq!(container.wait().await.code, 137);
    world.runtime.forget(container.id()).await;
}
