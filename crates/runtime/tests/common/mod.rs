//! What the tests with real containers share: a runtime in a directory of its own, and images of busybox alone.

#![allow(dead_code, reason = "each test file uses a part")]

use model::id::{ContainerId, RootId};
use model::rootfs::Rootfs;
use model::spec::{Description, Mount, Namespace};
use oci_spec::runtime::Spec;
use runtime::{
    AttachOptions, Attached, Container, ExitStatus, Join, Log, Runtime, RuntimeKind, Settings, StartError, StartOrder,
    Stdio, Stream,
};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The shim's program, static as in production and with debug assertions: built on first use, in a target directory
/// of its own, since its flags are its own.
pub fn shim() -> PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        // Where there is no cargo: in the virtual machine.
        if let Some(shim) = std::env::var_os("ISLE_SHIM") {
            return shim.into();
        }
        let own = std::env::current_exe().unwrap();
        let target = own.ancestors().find(|path| path.ends_with("deps")).and_then(|deps| deps.parent()?.parent());
        let target = target.unwrap().join("shim");
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "isle-shim", "--target", &triple, "--target-dir"]).arg(&target);
        build.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
        assert!(build.status().unwrap().success(), "the shim does not build");
        target.join(triple).join("debug/isle-shim")
    })
    .clone()
}

/// Whether containers can be made here: root, and busybox to put into them.
pub fn possible() -> bool {
    let possible = rustix::process::geteuid().is_root() && Path::new("/bin/busybox").exists();
    if !possible {
        assert!(std::env::var_os("REQUIRE_NETNS").is_none(), "this test needs root and /bin/busybox");
        eprintln!("SKIP: this test needs root and /bin/busybox");
    }
    possible
}

pub struct World {
    pub directory: tempfile::TempDir,
    pub runtime: Runtime,
    pub root: RootId,
    next: std::cell::Cell<u8>,
}

impl World {
    pub fn new() -> World {
        World::with_shim(shim())
    }

    pub fn with_shim(shim: PathBuf) -> World {
        let directory = tempfile::Builder::new().prefix("isle-runtime-").tempdir().unwrap();
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
        let root = RootId::new(random);
        let runtime = open_with(directory.path(), &root, shim);
        let image = directory.path().join("image");
        for name in ["bin", "etc", "tmp", "root", "proc", "dev", "sys"] {
            std::fs::create_dir_all(image.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "echo", "true", "false", "sleep", "id", "ls", "mount", "kill", "stty", "env", "pwd", "head",
            "grep", "dd", "mkdir", "touch", "wc", "tty", "hostname", "ps", "stat", "mknod", "chmod", "umount", "seq",
            "tr", "sort", "readlink", "printf", "ping", "unshare", "chroot", "su", "sync", "yes", "test", "date",
        ] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(name)).unwrap();
        }
        std::fs::write(image.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        std::fs::write(image.join("etc/notes"), "not a program\n").unwrap();
        World { directory, runtime, root, next: 1.into() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn image(&self) -> PathBuf {
        self.path().join("image")
    }

    pub fn id(&self) -> ContainerId {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let mut bytes = [number; 32];
        bytes[31] = std::process::id() as u8;
        ContainerId::new(bytes)
    }

    pub fn rootfs(&self, id: ContainerId) -> Rootfs {
        let own = self.path().join("layers").join(id.to_string());
        let (upper, work) = (own.join("upper"), own.join("work"));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        Rootfs { lower: vec![self.image()], upper, work, volatile: true }
    }

    pub fn log(&self, id: ContainerId) -> Log {
        Log { path: self.path().join(format!("{id}-json.log")), max_size: None, max_files: 1 }
    }

    pub fn describe(&self, args: &[&str]) -> Description {
        Description {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/usr/local/bin:/bin".to_owned(), "HOME=/root".to_owned()],
            hostname: "box".to_owned(),
            available: self.runtime.available_capabilities(),
            cgroup: if self.runtime.is_cgroup_v1() { Namespace::Host } else { Namespace::Private },
            ..Description::default()
        }
    }

    pub fn order(&self, description: &Description) -> StartOrder {
        self.order_of(description.spec().unwrap())
    }

    pub fn order_of(&self, spec: Spec) -> StartOrder {
        let id = self.id();
        let tty = spec.process().as_ref().unwrap().terminal().unwrap_or(false);
        StartOrder {
            cgroup_parent: None,
            id,
            spec,
            rootfs: self.rootfs(id),
            netns: None,
            stdio: Stdio { tty, ..Stdio::default() },
            log: Some(self.log(id)),
            init: false,
            runtime: RuntimeKind::Launcher,
            join: Join::default(),
            fail_at: None,
        }
    }

    /// Run to the end: status and all output.
    pub async fn run(&self, order: StartOrder) -> Result<(ExitStatus, String, String), StartError> {
        let prepared = self.runtime.prepare(order).await?;
        let attached = prepared.attach(AttachOptions::OUTPUT).await.unwrap();
        let container = prepared.launch().await?;
        let (out, err) = collect(attached).await;
        let status = container.wait().await;
        self.runtime.forget(container.id()).await;
        Ok((status, out, err))
    }

    /// Run a shell script, and say what it printed; it has to succeed.
    pub async fn script(&self, change: impl FnOnce(&mut Description), script: &str) -> String {
        let mut description = self.describe(&["sh", "-c", script]);
        change(&mut description);
        let (status, out, err) = self.run(self.order(&description)).await.unwrap();
        assert_eq!(status.code, 0, "{script}: {out}{err}");
        out
    }

    pub async fn started(&self, args: &[&str]) -> Container {
        self.runtime.start(self.order(&self.describe(args))).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Whatever a failed test has left.
        for entry in std::fs::read_dir(self.path().join("run/containers")).into_iter().flatten().flatten() {
            // The path is longer than an address may be.
            let home = std::fs::File::open(entry.path()).unwrap();
            let path = format!("/proc/self/fd/{}/shim.sock", std::os::fd::AsRawFd::as_raw_fd(&home));
            if let Ok(socket) = std::os::unix::net::UnixStream::connect(path) {
                let mut bytes = Vec::new();
                let call = shim_protocol::Call { number: 1, request: shim_protocol::Request::Go { force: true } };
                shim_protocol::frame::encode_value(&mut bytes, &call, 0).unwrap();
                let _ = std::io::Write::write_all(&mut &socket, &bytes);
                let _ = std::io::copy(&mut &socket, &mut std::io::sink());
            }
        }
        for mount in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            let Some(point) = mount.split(' ').nth(4).filter(|point| point.starts_with("/sys/fs/cgroup")) else {
                continue;
            };
            let own = Path::new(point).join(format!("isle-{}", self.root));
            for _ in 0..200 {
                for child in std::fs::read_dir(&own).into_iter().flatten().flatten() {
                    let _ = std::fs::remove_dir(child.path());
                }
                match std::fs::remove_dir(&own) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
                    _ => break,
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

pub fn open(directory: &Path, root: &RootId) -> Runtime {
    open_with(directory, root, shim())
}

fn open_with(directory: &Path, root: &RootId, shim: PathBuf) -> Runtime {
    Runtime::open(Settings {
        run_dir: directory.join("run"),
        shim,
        root: root.clone(),
        cgroup_parent: String::new(),
        runc: "/usr/sbin/runc".into(),
    })
    .unwrap()
}

/// All of a process's output.
pub async fn collect(mut attached: Attached) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((stream, bytes)) = attached.output.next().await {
        match stream {
            Stream::Stdout => out.extend_from_slice(&bytes),
            Stream::Stderr => err.extend_from_slice(&bytes),
        }
    }
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
}

/// Read output until this text has come.
pub async fn until(attached: &mut Attached, text: &str) -> String {
    let mut all = String::new();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !all.contains(text) {
        match tokio::time::timeout_at(deadline, attached.output.next()).await {
            Ok(Some((_, bytes))) => all.push_str(&String::from_utf8_lossy(&bytes)),
            Ok(None) => panic!("the output ended before {text:?}: {all:?}"),
            Err(_) => panic!("no {text:?} in time: {all:?}"),
        }
    }
    all
}

pub fn bind(source: &Path, target: &str) -> Mount {
    Mount::Bind {
        source: source.display().to_string(),
        target: target.to_owned(),
        readonly: false,
        recursive: true,
        recursive_readonly: false,
        propagation: model::spec::Propagation::RecursivelyPrivate,
    }
}

/// A fresh network namespace: the machine's own is never touched.
pub fn netns() -> OwnedFd {
    #[allow(deprecated, reason = "a thread that ends leaves one namespace, and shares nothing else")]
    std::thread::spawn(|| {
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}
