//! Linked as `dockerd`, and daemon.json: what suites that start a daemon of their own say to it.

use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testkit::traffic::{At, sleeper};
use testkit::{Lab, program, within};

/// A daemon that was started by the name `dockerd`, in a lab; ended when it is dropped.
struct Dockerd<'a> {
    lab: &'a Lab,
    daemon: Option<Child>,
}

fn path(lab: &Lab, name: &str) -> PathBuf {
    lab.directory().join(name)
}

fn command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg0("dockerd").args(arguments).stdin(Stdio::null());
    command.arg("--shim").arg(lab.shim()).arg("--resolv-conf").arg(lab.resolv_conf());
    command
}

/// As docker-py's and moby's suites start theirs.
fn start<'a>(lab: &'a Lab, more: &[&str]) -> Dockerd<'a> {
    let own = |name: &str| path(lab, name).display().to_string();
    let socket = format!("unix://{}", lab.socket().display());
    let (root, run, pid) = (own("root"), own("run"), own("docker.pid"));
    let usual =
        ["--data-root", &root, "--exec-root", &run, "--pidfile", &pid, "--host", &socket, "--storage-driver=overlay2"];
    let log = std::fs::OpenOptions::new().create(true).append(true).open(path(lab, "daemon.log")).unwrap();
    let mut command = command(lab, &[usual.as_slice(), more].concat());
    command.stdout(Stdio::null()).stderr(log);
    let daemon = lab.in_host(move || command.spawn().unwrap());
    let dockerd = Dockerd { lab, daemon: Some(daemon) };
    within(Duration::from_secs(15), "it answers", || lab.get("/_ping").is_ok_and(|r| r.status == 200));
    dockerd
}

impl Dockerd<'_> {
    fn signal(&self, signal: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let _ = Command::new("kill").arg(daemon.id().to_string()).status();
        within(Duration::from_secs(20), "it ends", || daemon.try_wait().is_ok_and(|ended| ended.is_some()));
        assert!(!path(self.lab, "docker.pid").exists(), "its pidfile goes with it");
    }
}

/// What a daemon that does not start says.
fn refused(lab: &Lab, arguments: &[&str]) -> String {
    lab.on_host(&mut command(lab, arguments)).refused()
}

fn write(file: &Path, value: &Value) {
    std::fs::write(file, value.to_string()).unwrap();
}

fn info(lab: &Lab) -> Value {
    lab.get("/info").unwrap().json()
}

#[test]
fn it_starts_as_dockerd_does_with_the_options_of_its_file() {
    let lab = Lab::empty(&program()).unwrap();
    let file = path(&lab, "daemon.json");
    let config = json!({
        "bip": "10.77.0.1/24", "mtu": 1400, "dns": ["10.255.255.53"], "dns-search": ["corp.example"],
        "dns-opts": ["ndots:3"], "labels": ["rack=7"], "debug": true, "hosts": ["tcp://127.0.0.1:2375"],
        "default-address-pools": [{ "base": "10.78.0.0/16", "size": 26 }],
        "default-ulimits": { "nofile": { "Name": "nofile", "Soft": 640, "Hard": 1280 } },
        "log-opts": { "max-size": "1m" }, "containerd": "/run/containerd/containerd.sock",
        "default-runtime": "runc", "min-api-version": "1.44",
    });
    write(&file, &config);
    let file = file.to_str().unwrap();
    // `hosts` is said by the flag, too.
    let said = refused(&lab, &["--config-file", file, "--host", "unix:///nowhere"]);
    assert!(said.contains(&format!("unable to configure the Docker daemon with file {file}")), "{said}");
    let twice = "the following directives are specified both as a flag and in the configuration file: hosts: ";
    assert!(said.contains(twice), "{said}");

    let mut without_hosts = config.clone();
    without_hosts.as_object_mut().unwrap().remove("hosts");
    write(Path::new(file), &without_hosts);
    let dockerd = start(&lab, &["--config-file", file, "--host", "tcp://127.0.0.1:2375"]);
    let pid = std::fs::read_to_string(path(&lab, "docker.pid")).unwrap();
    assert_eq!(pid, dockerd.daemon.as_ref().unwrap().id().to_string());
    let by_tcp = lab.command(At::Host, &["curl", "-sSfm", "5", "http://127.0.0.1:2375/_ping"]);
    assert_eq!(by_tcp, "OK");
    let (labels, debug) = (info(&lab)["Labels"].clone(), info(&lab)["Debug"].clone());
    assert_eq!((labels, debug), (json!(["rack=7"]), json!(true)));
    assert_eq!(info(&lab)["LiveRestoreEnabled"], false, "dockerd's own default");
    assert!(std::fs::read_to_string(path(&lab, "daemon.log")).unwrap().contains("--containerd has no effect"));

    // What a container has of it.
    let image = testkit::images::busybox().unwrap();
    let import = "/images/create?fromSrc=-&repo=busybox&tag=latest&changes=CMD%20%5B%22sh%22%5D";
    assert_eq!(lab.post_bytes(import, &image).unwrap().status, 200);
    lab.network(json!({ "Name": "front" }));
    let subnet = lab.get("/networks/front").unwrap().json()["IPAM"]["Config"][0]["Subnet"].clone();
    assert_eq!(subnet, "10.78.0.0/26");
    lab.run("plain", sleeper("bridge"));
    lab.run("named", sleeper("front"));
    assert!(lab.address("plain", "bridge").starts_with("10.77.0."));
    assert!(lab.exec("plain", &["ip", "link", "show", "eth0"]).stdout.contains("mtu 1400"));
    let resolv = lab.exec("plain", &["cat", "/etc/resolv.conf"]).stdout;
    for line in ["nameserver 10.255.255.53\n", "search corp.example\n", "options ndots:3\n"] {
        assert!(resolv.contains(line), "{line}{resolv}");
    }
    assert_eq!(lab.lookup("named", testkit::upstream::KNOWN.0), [testkit::upstream::KNOWN.1.to_string()]);
    assert_eq!(lab.exec("named", &["sh", "-c", "ulimit -n"]).stdout, "640\n");
    assert_eq!(lab.inspect("named")["HostConfig"]["LogConfig"]["Config"], json!({ "max-size": "1m" }));

    assert_eq!(lab.inspect("named")["HostConfig"]["Runtime"], "runc");
    assert_eq!(info(&lab)["DefaultRuntime"], "runc");
    let older = lab.get("/v1.43/info").unwrap();
    let words = "client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a \
                 newer version";
    assert_eq!((older.status, older.message()), (400, words.to_owned()));
    assert_eq!(lab.get("/v1.44/version").unwrap().json()["MinAPIVersion"], "1.44");

    // A second one with the same pidfile does not start.
    let pidfile = path(&lab, "docker.pid");
    let second = refused(&lab, &["--data-root", "/nowhere/a", "--pidfile", pidfile.to_str().unwrap()]);
    assert!(second.contains(&format!("process with PID {pid} is still running")), "{second}");

    // SIGHUP: what can be told anew is; a file that is wrong changes nothing.
    without_hosts["labels"] = json!(["rack=8"]);
    without_hosts["debug"] = json!(false);
    without_hosts["live-restore"] = json!(true);
    write(Path::new(file), &without_hosts);
    dockerd.signal("-HUP");
    within(Duration::from_secs(5), "it is told anew", || info(&lab)["Labels"] == json!(["rack=8"]));
    let now = info(&lab);
    assert_eq!((&now["Debug"], &now["LiveRestoreEnabled"]), (&json!(false), &json!(true)));
    let told = lab.get("/events?since=1&until=0s&filters=%7B%22type%22%3A%5B%22daemon%22%5D%7D").unwrap().text();
    let reloaded: Vec<Value> = told.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((reloaded.len(), &reloaded[0]["Action"]), (1, &json!("reload")), "{told}");
    assert_eq!(reloaded[0]["Actor"]["Attributes"]["labels"], r#"["rack=8"]"#);
    assert_eq!((&reloaded[0]["Actor"]["ID"], &reloaded[0]["Actor"]["Attributes"]["name"]), (&now["ID"], &now["Name"]));
    std::fs::write(file, "{").unwrap();
    dockerd.signal("-HUP");
    within(Duration::from_secs(5), "it says what is wrong", || {
        std::fs::read_to_string(path(&lab, "daemon.log")).unwrap().contains("the configuration is not reloaded")
    });
    assert_eq!(info(&lab)["Labels"], json!(["rack=8"]));
    lab.remove("plain");
    lab.remove("named");
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_is_done() {
    let lab = Lab::empty(&program()).unwrap();
    let file = path(&lab, "daemon.json");
    let file = file.to_str().unwrap();
    let check = |config: Value, words: &[&str], expected: &str| {
        write(Path::new(file), &config);
        let words = [&["--validate", "--config-file", file], words].concat();
        let said = refused(&lab, &words);
        assert!(said.contains(expected), "{config} {words:?}: {said}");
    };
    check(
        json!({ "bip": "10.0.0.1/24" }),
        &["--bip", "10.1.0.1/24"],
        "the following directives are specified both as a flag and in the configuration file: \
         bip: (from flag: 10.1.0.1/24, from file: 10.0.0.1/24)",
    );
    check(json!({ "nosuch": 1 }), &[], "the following directives don't match any configuration option: nosuch");
    check(json!({ "userns-remap": "default" }), &[], "--userns-remap=default is not supported");
    check(json!({ "iptables": false }), &[], "the firewall cannot be turned off");
    check(json!({ "authorization-plugins": ["x"] }), &[], "--authorization-plugin=x is not supported");
    check(json!({ "log-driver": "journald" }), &[], "no log driver named 'journald' is registered");
    check(json!({ "log-opts": { "max-sise": "1m" } }), &[], "unknown log opt 'max-sise' for json-file log driver");
    check(json!({ "log-opts": { "max-size": "many" } }), &[], "max-size must be a positive number");
    check(json!({ "log-driver": "local", "log-opts": { "max-file": "0" } }), &[], "max-file cannot be less than 1");
    check(json!({ "fixed-cidr": "10.9.0.0/24", "bip": "10.8.0.1/24" }), &[], "not within the default bridge's subnet");
    check(json!({}), &["--storage-driver", "btrfs"], "--storage-driver=btrfs is not supported");
    check(json!({ "default-runtime": "crun" }), &[], "specified default runtime 'crun' does not exist");
    check(json!({ "min-api-version": "1.12" }), &[], "minimum supported API version is 1.24: got 1.12");
    check(json!({ "min-api-version": "v1.44" }), &[], "API version must be provided without \"v\" prefix");
    write(Path::new(file), &json!({ "registry-mirrors": ["https://mirror.example"], "bip": "10.0.0.1/24" }));
    let fine = lab.on_host(&mut command(&lab, &["--validate", "--config-file", file]));
    assert_eq!((fine.code, fine.stderr.as_str()), (0, "configuration OK\n"));
    let missing = refused(&lab, &["--validate", "--config-file", "/nowhere/daemon.json"]);
    let why = "unable to configure the Docker daemon with file /nowhere/daemon.json: no such file or directory\n";
    assert!(missing.ends_with(why.trim_end()), "{missing}");
    // Nothing was made.
    assert!(!path(&lab, "root").exists() && !path(&lab, "run").exists());
}

#[test]
fn every_key_that_docker_28_knows_is_known() {
    let lab = Lab::empty(&program()).unwrap();
    let file = path(&lab, "daemon.json");
    let text = |key: &str| (key.to_owned(), json!("x"));
    let texts = "authorization-plugins storage-driver storage-opts data-root exec-root pidfile exec-opts hosts log-level \
                 log-format tlscacert tlscert tlskey swarm-default-advertise-addr metrics-addr log-driver bridge bip bip6 \
                 fixed-cidr fixed-cidr-v6 default-gateway default-gateway-v6 ip dns dns-opts dns-search \
                 host-gateway-ip containerd containerd-namespace containerd-plugins-namespace default-runtime labels \
                 allow-nondistributable-artifacts registry-mirrors insecure-registries node-generic-resources \
                 cdi-spec-dirs min-api-version http-proxy https-proxy no-proxy cgroup-parent init-path seccomp-profile \
                 default-ipc-mode default-cgroupns-mode userns-remap group userland-proxy-path resolv-conf \
                 default-shm-size bridge-accept-fwmark firewall-backend";
    let switches = "debug tls tlsverify experimental raw-logs iptables ip6tables ip-forward ip-forward-no-drop ip-masq \
                    userland-proxy icc ipv6 allow-direct-routing live-restore no-new-privileges init rootless \
                    selinux-enabled";
    let numbers = "max-concurrent-downloads max-concurrent-uploads max-download-attempts shutdown-timeout mtu \
                   network-control-plane-mtu network-diagnostic-port swarm-raft-heartbeat-tick \
                   swarm-raft-election-tick oom-score-adjust cpu-rt-period cpu-rt-runtime";
    let mut config: serde_json::Map<String, Value> = texts.split_whitespace().map(text).collect();
    config.extend(switches.split_whitespace().map(|key| (key.to_owned(), json!(true))));
    config.extend(numbers.split_whitespace().map(|key| (key.to_owned(), json!(1))));
    let objects = json!({
        "log-opts": { "max-size": "1m" }, "runtimes": { "crun": { "path": "crun" } }, "features": { "buildkit": true },
        "builder": { "gc": { "enabled": true } }, "proxies": { "http-proxy": "http://p" },
        "default-address-pools": [{ "base": "10.0.0.0/8", "size": 24 }],
        "default-ulimits": { "nofile": { "Name": "nofile", "Soft": 64, "Hard": 128 } },
        "default-network-opts": { "bridge": { "com.docker.network.driver.mtu": "1234" } }, "nosuch": 1,
    });
    config.extend(objects.as_object().unwrap().clone());
    write(&file, &Value::Object(config));
    let said = refused(&lab, &["--validate", "--config-file", file.to_str().unwrap()]);
    let unknown = said.split("don't match any configuration option: ").nth(1);
    assert_eq!(unknown, Some("nosuch"), "{said}");
}

#[test]
fn it_serves_the_socket_that_systemd_has_opened() {
    let lab = Lab::empty(&program()).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(lab.socket()).unwrap();
    let own = |name: &str| path(&lab, name).display().to_string();
    // As Debian's docker.service has it; the descriptor is the third, as sd_listen_fds(3) wants it.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 0</dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(program()).args(["daemon", "-H", "fd://", "--root", &own("root")]);
    command.args(["--run", &own("run")]).arg("--shim").arg(lab.shim()).arg("--resolv-conf").arg(lab.resolv_conf());
    command.args(["--containerd=/run/containerd/containerd.sock"]);
    command.stdin(std::os::fd::OwnedFd::from(socket)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = lab.in_host(move || command.spawn().unwrap());
    within(Duration::from_secs(15), "it answers", || lab.get("/_ping").is_ok_and(|r| r.status == 200));
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    within(Duration::from_secs(20), "it ends", || daemon.try_wait().is_ok_and(|ended| ended.is_some()));
    let none = lab.on_host(
        Command::new(program())
            .args(["daemon", "-H", "fd://", "--root", &own("r2")])
            .args(["--run", &own("run2")])
            .arg("--shim")
            .arg(lab.shim()),
    );
    assert!(none.refused().contains("no sockets found via socket activation"));
}
