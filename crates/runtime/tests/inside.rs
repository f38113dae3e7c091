//! What a container is, seen from inside.

mod common;

use common::{World, bind, netns, possible};
use model::spec::{Description, Device, Mount, Namespace, Seccomp, Ulimit, User};

macro_rules! world {
    () => {{
        if !possible() {
            return;
        }
        World::new()
    }};
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_process_one_with_its_own_name_in_a_world_of_its_own() {
    let world = world!();
    let out = world.script(|_| (), "echo $$; hostname; pwd; ls /; ls /proc/self/fd | tr '\\n' ' '; id").await;
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["1", "box", "/", "bin", "dev", "etc", "proc", "root", "sys", "tmp", "0 1 2 3 uid=0(root) gid=0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_is_in_the_hosts_mount_table() {
    let world = world!();
    let count = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = count();
    let container = world.started(&["sleep", "100"]).await;
    assert_eq!(count(), before);
    container.signal(9).await.unwrap();
    container.wait().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_and_working_directory_are_as_asked() {
    let world = world!();
    let out = world
        .script(
            |d| {
                d.env.push("A=b c".to_owned());
                d.cwd = "/made/for me".to_owned();
            },
            "env | sort; pwd; cd ..; ls",
        )
        .await;
    assert!(out.contains("A=b c\n") && out.contains("PATH=/usr/local/bin:/bin\n"), "{out}");
    assert!(out.ends_with("/made/for me\nfor me\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_no_capabilities_and_owns_its_output() {
    let world = world!();
    let user = User { uid: 1000, gid: 1001, groups: vec![7, 8], umask: None };
    let script = "id -u; id -g; id -G; grep Cap /proc/self/status; echo through > /dev/stdout; umask";
    let out = world.script(|d| d.user = user, script).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["1000", "1001", "1001 7 8"]);
    assert_eq!(
        lines[3..6].iter().map(|line| line.split('\t').nth(1).unwrap()).collect::<Vec<_>>(),
        ["0000000000000000"; 3]
    );
    assert_eq!(lines[6], "CapBnd:\t00000000a80425fb");
    assert_eq!(lines[8..], ["through", "0022"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_dockers_and_as_asked() {
    let world = world!();
    let caps = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | tr -s '\\t\\n' ' '";
    let out = world.script(|_| (), caps).await;
    let usual = "00000000a80425fb";
    assert_eq!(
        out.trim(),
        format!("CapInh: 0000000000000000 CapPrm: {usual} CapEff: {usual} CapBnd: {usual} CapAmb: 0000000000000000")
    );
    let drop = |d: &mut Description| {
        d.cap_drop = strings(&["ALL"]);
        d.cap_add = strings(&["net_admin"]);
    };
    assert!(world.script(drop, caps).await.contains("CapEff: 0000000000001000"));
    let out = world.script(|d| d.privileged = true, caps).await;
    assert!(out.contains(&format!("CapEff: {:016x}", world.runtime.available_capabilities().0)), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_is_read_only_and_its_mounts_are_not() {
    let world = world!();
    let data = world.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let change = |d: &mut Description| {
        d.readonly_root = true;
        d.mounts = vec![
            bind(&data, "/data"),
            Mount::Tmpfs { target: "/scratch".to_owned(), options: strings(&["size=1m", "mode=1770"]) },
        ];
    };
    let script = "touch /x 2>&1; touch /data/y /scratch/z /dev/shm/w && echo fine; stat -c %a /scratch; \
                  grep ' /scratch ' /proc/mounts; dd if=/dev/zero of=/scratch/big bs=1k count=2000 2>&1 | grep -c space";
    let out = world.script(change, &format!("{script}; true")).await;
    assert!(out.starts_with("touch: /x: Read-only file system\nfine\n1770\n"), "{out}");
    assert!(out.contains("rw,nosuid,nodev,noexec,relatime,size=1024k,mode=1770") && out.ends_with("\n1\n"), "{out}");
    assert!(data.join("y").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn binds_are_of_files_and_directories_and_may_be_read_only() {
    let world = world!();
    let (file, directory) = (world.path().join("file"), world.path().join("dir"));
    std::fs::write(&file, "content\n").unwrap();
    std::fs::create_dir_all(directory.join("sub")).unwrap();
    let mut readonly = bind(&directory, "/deep/down/dir");
    if let Mount::Bind { readonly, recursive_readonly, .. } = &mut readonly {
        (*readonly, *recursive_readonly) = (true, true);
    }
    let mounts = vec![bind(&file, "/etc/new/file"), readonly];
    let out = world
        .script(
            |d| d.mounts = mounts,
            "cat /etc/new/file; echo more >> /etc/new/file; touch /deep/down/dir/x 2>&1; touch /deep/down/dir/sub/x 2>&1; true",
        )
        .await;
    assert_eq!(
        out,
        "content\ntouch: /deep/down/dir/x: Read-only file system\ntouch: /deep/down/dir/sub/x: Read-only file system\n"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "content\nmore\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_images_symlinks_lead_nowhere_else() {
    let world = world!();
    let outside = world.path().join("outside");
    let data = world.path().join("data");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("seen"), "").unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, world.image().join(name)).unwrap();
    let up = format!("../../../../../../../../../..{}", outside.display());
    link(&up, "climb");
    link(&outside.display().to_string(), "absolute");
    link("nowhere/yet", "dangling");
    link("round", "round");
    for target in ["/climb", "/absolute", "/climb/new", "/dangling", "/../../../../x"] {
        let out = world.script(|d| d.mounts = vec![bind(&data, target)], &format!("ls {target}")).await;
        assert_eq!(out, "seen\n", "{target}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{target} has reached the host");
        let hosts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!hosts.contains(&outside.display().to_string()), "{target}");
    }
    let mut description = world.describe(&["true"]);
    description.mounts = vec![bind(&data, "/round")];
    let error = world.run(world.order(&description)).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("too many levels of symbolic links"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_mounted_inside_proc() {
    let world = world!();
    let (data, file) = (world.path().join("data"), world.path().join("file"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(&file, "fake\n").unwrap();
    std::os::unix::fs::symlink("/proc", world.image().join("alias")).unwrap();
    let refusals = [
        ("/proc/sys", "\"/proc/sys\" cannot be mounted because it is inside /proc"),
        ("/proc/self/attr", "\"/proc/self/attr\" cannot be mounted because it is inside /proc"),
        ("/alias/fs", "cannot mount /alias/fs: operation not permitted"),
    ];
    for (target, refusal) in refusals {
        let mut description = world.describe(&["true"]);
        description.mounts = vec![bind(&data, target)];
        let error = world.run(world.order(&description)).await.map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, refusal);
    }
    assert_eq!(world.script(|d| d.mounts = vec![bind(&file, "/proc/meminfo")], "cat /proc/meminfo").await, "fake\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_masked_and_read_only_as_dockers_are() {
    let world = world!();
    let script = "cat /proc/kcore /proc/keys | wc -c; ls /sys/firmware | wc -l; \
                  echo 1 2>&1 > /proc/sys/net/ipv4/ip_forward; touch /sys/x 2>&1; true";
    let out = world.script(|_| (), script).await;
    assert!(out.starts_with("0\n0\n"), "{out}");
    assert_eq!(out.matches("Read-only file system").count(), 2, "{out}");
    let masked = "grep -c -E ' /proc/(keys|sys|timer_list) ' /proc/mounts; true";
    assert_eq!(world.script(|_| (), masked).await, "3\n");
    assert_eq!(world.script(|d| d.system_paths_unconfined = true, masked).await, "0\n");
    assert_eq!(world.script(|d| d.privileged = true, masked).await, "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_new_privileges_and_seccomp_are_on_and_off() {
    let world = world!();
    let script = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -s '\\t\\n' ' '; unshare -U true 2>&1; true";
    let check = async |change: fn(&mut Description), expected: &str, may: bool| {
        let out = world.script(change, script).await;
        assert!(out.starts_with(expected), "{out}");
        assert_eq!(!out.contains("not permitted"), may, "{out}");
    };
    check(|_| (), "NoNewPrivs: 0 Seccomp: 2", false).await;
    check(|d| d.no_new_privileges = true, "NoNewPrivs: 1 Seccomp: 2", false).await;
    check(|d| d.seccomp = Seccomp::Unconfined, "NoNewPrivs: 0 Seccomp: 0", true).await;
    let user = |d: &mut Description| d.user = User { uid: 7, ..User::default() };
    check(user, "NoNewPrivs: 0 Seccomp: 2", false).await;
    let profile = |d: &mut Description| {
        d.seccomp = Seccomp::Profile(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#.to_owned(),
        );
    };
    let out = world.script(profile, "mkdir /x 2>&1; true").await;
    assert_eq!(out, "mkdir: can't create directory '/x': Operation not permitted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_the_usual_ones_and_those_asked_for() {
    let world = world!();
    let script = "ls -l /dev | grep -E '^[cb]' | tr -s ' ' | while read mode n u g major minor rest; do \
                  echo $mode $u $g $major $minor ${rest##* }; done; \
                  readlink /dev/fd; readlink /dev/ptmx; echo x > /dev/null && head -c 3 /dev/zero | wc -c; \
                  cat /dev/loud 2>&1 | head -c 0; test -r /dev/loud && echo readable";
    let loud = Device {
        path: "/dev/loud".to_owned(),
        kind: 'c',
        major: 1,
        minor: 5,
        mode: 0o640,
        uid: 5,
        gid: 6,
        access: "r".to_owned(),
    };
    let out = world.script(|d| d.devices = vec![loud], script).await;
    for device in ["crw-rw-rw- 0 0 1, 3 null", "crw-rw-rw- 0 0 5, 0 tty", "crw-r----- 5 6 1, 5 loud"] {
        let squeezed = device.replace(" 0 0 ", " root 0 ");
        assert!(out.contains(device) || out.contains(&squeezed), "{device}: {out}");
    }
    assert!(out.contains("/proc/self/fd\npts/ptmx\n3\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_not_given_cannot_be_used() {
    let world = world!();
    // /dev/kmsg: made by whoever may make nodes, opened by nobody.
    let script = "mknod /tmp/k c 1 11 && cat /tmp/k 2>&1 | head -1; true";
    let out = world.script(|_| (), script).await;
    assert!(out.contains("Operation not permitted"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_and_clamped_where_they_must_be() {
    let world = world!();
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
    let mut description = world.describe(&["sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -u"]);
    description.ulimits = vec![ulimit("nofile", 100, 200), ulimit("nproc", 50, 50)];
    let (_, out, _) = world.run(world.order(&description)).await.unwrap();
    assert_eq!(out, "100\n200\n50\n");
    description.ulimits = vec![ulimit("nofile", 1 << 25, 1 << 25)];
    let container = world.runtime.start(world.order(&description)).await;
    let may = world.runtime.available_capabilities().contains("SYS_RESOURCE");
    if !may {
        let container = container.unwrap();
        assert_eq!(container.wait().await.code, 0);
        assert!(container.warnings().iter().any(|text| text.contains("limit nofile cannot be raised")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cgroup_limits_memory_and_processes() {
    let world = world!();
    let change = |d: &mut Description| {
        d.resources.memory = Some(32 << 20);
        d.resources.pids_limit = Some(20);
        d.resources.nano_cpus = Some(500_000_000);
        d.resources.cpu_shares = Some(512);
    };
    let mut description = world.describe(&["sleep", "100"]);
    change(&mut description);
    let container = world.runtime.start(world.order(&description)).await.unwrap();
    let usage = container.stats().await.unwrap();
    assert_eq!((usage.memory_limit, usage.pids_limit, usage.pids), (Some(32 << 20), Some(20), 1));
    assert!(usage.memory > 0);
    let mut resources = oci_spec::runtime::LinuxResources::default();
    let mut pids = oci_spec::runtime::LinuxPids::default();
    pids.set_limit(30);
    resources.set_pids(Some(pids));
    container.update(&resources).await.unwrap();
    assert_eq!(container.stats().await.unwrap().pids_limit, Some(30));
    container.signal(9).await.unwrap();
    container.wait().await;

    let mut description = world.describe(&["sh", "-c", "x=y; while :; do x=$x$x; done"]);
    description.resources.memory = Some(16 << 20);
    description.resources.memory_swap = Some(16 << 20);
    let (status, _, _) = world.run(world.order(&description)).await.unwrap();
    assert_eq!((status.code, status.oom_killed), (137, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stands_still_while_it_is_paused() {
    let world = world!();
    let counter = world.path().join("counter");
    std::fs::create_dir(&counter).unwrap();
    let mut description = world.describe(&["sh", "-c", "while :; do echo x >> /count/n; sleep 0.01; done"]);
    description.mounts = vec![bind(&counter, "/count")];
    let container = world.runtime.start(world.order(&description)).await.unwrap();
    let size = || std::fs::metadata(counter.join("n")).map_or(0, |data| data.len());
    while size() < 6 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    container.pause().await.unwrap();
    assert!(container.is_paused());
    let before = size();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(size(), before);
    container.unpause().await.unwrap();
    assert!(!container.is_paused());
    while size() == before {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let top = container.top().await.unwrap();
    assert!(top.iter().any(|process| process.pid == container.pid() && process.command.starts_with("sh -c while")));
    container.signal(9).await.unwrap();
    container.wait().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_shared_where_asked() {
    let world = world!();
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let script = "for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done";
    let out = world.script(|_| (), script).await;
    for name in ["pid", "ipc", "uts", "net", "mnt"] {
        assert!(!out.contains(&own(name)), "{name}");
    }
    let host = |d: &mut Description| {
        (d.pid, d.ipc, d.uts, d.host_network) = (Namespace::Host, Namespace::Host, Namespace::Host, true);
    };
    let out = world.script(host, script).await;
    for name in ["pid", "ipc", "uts", "net"] {
        assert!(out.contains(&own(name)), "{name}: {out}");
    }
    // Another container's.
    let first = world.started(&["sh", "-c", "echo shared > /dev/shm/note; exec sleep 100"]).await;
    while !std::path::Path::new(&format!("/proc/{}/root/dev/shm/note", first.pid())).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let script = "ps | grep -c 'sleep 10[0]'; readlink /proc/self/ns/ipc; sleep 0.1; cat /dev/shm/note";
    let mut order = world.order(&world.describe(&["sh", "-c", script]));
    order.join.pid = Some(first.pidfd().unwrap());
    order.join.ipc = Some(first.pidfd().unwrap());
    let (status, out, err) = world.run(order).await.unwrap();
    let ipc = std::fs::read_link(format!("/proc/{}/ns/ipc", first.pid())).unwrap();
    assert_eq!(out, format!("1\n{}\nshared\n", ipc.display()), "{status:?} {err}");
    first.signal(9).await.unwrap();
    first.wait().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_namespace_is_the_one_that_was_handed_over() {
    let world = world!();
    let sandbox = netns();
    use std::os::fd::AsRawFd;
    let name = std::fs::read_link(format!("/proc/self/fd/{}", sandbox.as_raw_fd())).unwrap();
    let mut description =
        world.describe(&["sh", "-c", "readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_default_ttl"]);
    description.sysctls.insert("net.ipv4.ip_default_ttl".to_owned(), "77".to_owned());
    let mut order = world.order(&description);
    order.netns = Some(sandbox);
    let (_, out, err) = world.run(order).await.unwrap();
    assert_eq!(out, format!("{}\n77\n", name.display()), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_outlive_a_container_on_the_hosts_pids_are_killed() {
    let world = world!();
    let mut description = world.describe(&["sh", "-c", "sleep 1234 & sleep 1234 & echo started"]);
    description.pid = Namespace::Host;
    let order = world.order(&description);
    let id = order.id;
    let (status, out, _) = world.run(order).await.unwrap();
    assert_eq!((status.code, &*out), (0, "started\n"));
    for mount in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        let point = mount.split(' ').nth(4).unwrap();
        assert!(!std::path::Path::new(point).join(format!("isle-{}/{id}", world.root)).exists(), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_reaps_and_passes_signals_on() {
    let world = world!();
    let script = "cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $$; sh -c 'sleep 0.05 & exit 0'; sleep 0.3; \
                  grep -l '^State:.Z' /proc/[0-9]*/status | wc -l; trap 'echo term; exit 5' TERM; kill -TERM 1; while :; do sleep 0.05; done";
    let mut order = world.order(&world.describe(&["sh", "-c", script]));
    order.init = true;
    let (status, out, err) = world.run(order).await.unwrap();
    assert_eq!(status.code, 5, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("/sbin/docker-init -- sh -c"), "{out}");
    assert_ne!(lines[1], "1");
    assert_eq!(lines[2..], ["0", "term"]);
    let mut order = world.order(&world.describe(&["nosuch"]));
    order.init = true;
    let error = world.run(order).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), runtime::FailureKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_program_cannot_write_the_shims() {
    let world = world!();
    let mut order = world.order(&world.describe(&["sh", "-c", "readlink /proc/1/exe; (: > /proc/1/exe) 2>&1; true"]));
    order.init = true;
    let (_, out, _) = world.run(order).await.unwrap();
    assert!(out.contains("memfd:isle-shim"), "{out}");
    assert!(out.contains("Text file busy") || out.contains("Operation not permitted"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_namespace_makes_its_root_somebody_else() {
    let world = world!();
    let maps = model::spec::IdMaps { uids: vec![(0, 100_000, 65536)], gids: vec![(0, 100_000, 65536)] };
    let mut description = world.describe(&[
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map | tr -s ' '; touch /mine && stat -c %u /mine; grep CapEff /proc/self/status; \
         echo x > /dev/null; hostname; touch /dev/shm/x && echo ok",
    ]);
    description.id_maps = Some(maps);
    let order = world.order(&description);
    // As an image unpacked for this namespace is.
    for path in [world.image(), order.rootfs.upper.clone()] {
        let chown = std::process::Command::new("chown").args(["-R", "100000:100000"]).arg(path).status().unwrap();
        assert!(chown.success());
    }
    let upper = order.rootfs.upper.clone();
    let mut order = order;
    order.netns = Some(netns());
    let (status, out, err) = world.run(order).await.unwrap();
    assert_eq!(status.code, 0, "{out}{err}");
    assert_eq!(out, "0\n 0 100000 65536\n0\nCapEff:\t00000000a80425fb\nbox\nok\n", "{err}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(upper.join("mine")).unwrap().uid(), 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_start_at_once() {
    let world = world!();
    let orders: Vec<_> = (0..24).map(|n| world.order(&world.describe(&["sh", "-c", &format!("echo {n}")]))).collect();
    let runs: Vec<_> = orders
        .into_iter()
        .map(|order| {
            let runtime = world.runtime.clone();
            tokio::spawn(async move {
                let prepared = runtime.prepare(order).await.unwrap();
                let attached = prepared.attach(runtime::AttachOptions::OUTPUT).await.unwrap();
                let container = prepared.launch().await.unwrap();
                let (out, _) = common::collect(attached).await;
                (out, container.wait().await.code)
            })
        })
        .collect();
    for (n, run) in runs.into_iter().enumerate() {
        assert_eq!(run.await.unwrap(), (format!("{n}\n"), 0));
    }
}
