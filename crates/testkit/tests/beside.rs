//! Beside the real ones: Debian's dockerd, ufw and firewalld, in the network namespace of the lab's host. Each is in a
//! mount namespace of its own, so that the machine's configuration stays as it is.

use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use testkit::traffic::{At, By, publisher, sleeper};
use testkit::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, program, within};

/// A shell on the lab's host, with mounts and processes of its own: what it has started ends with it.
struct Room {
    shell: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Room {
    /// `prepare` is done first, with `$D` as a directory for whatever is to be kept.
    fn open(lab: &Lab, prepare: &str) -> Self {
        let directory = lab.directory().join("room");
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]).env("D", &directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = lab.in_host(move || command.spawn().unwrap());
        let (to, from) = (shell.stdin.take().unwrap(), BufReader::new(shell.stdout.take().unwrap()));
        let mut room = Self { shell, to, from };
        room.succeed(prepare);
        room
    }

    /// Runs commands to their end: what they say, and the last one's status.
    fn run(&mut self, script: &str) -> (String, i32) {
        writeln!(self.to, "{{ {script}\n}} 2>&1 </dev/null; echo \"\n:end $?\"").unwrap();
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "the shell ended: {script}\n{said}");
            if let Some(status) = line.strip_prefix(":end ") {
                return (said, status.trim().parse().unwrap());
            }
            said.push_str(&line);
        }
    }

    #[track_caller]
    fn succeed(&mut self, script: &str) -> String {
        let (said, status) = self.run(script);
        assert_eq!(status, 0, "{script}\n{said}");
        said
    }

    /// Waits until a command succeeds.
    fn until(&mut self, limit: Duration, script: &str) {
        within(limit, script, || self.run(script).1 == 0);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A lab with an outside that answers, beside what `prepare` has started.
fn lab_beside(prepare: &str, more: impl FnOnce(&mut Lab)) -> (Lab, Room) {
    let mut room = None;
    let lab = Lab::start_after(&program(), |lab| {
        room = Some(Room::open(lab, prepare));
        more(lab);
    });
    let lab = lab.unwrap();
    lab.serve(At::Outside, By::Tcp, 80);
    (lab, room.unwrap())
}

fn serve(lab: &Lab) {
    let options = json!({ "com.docker.network.bridge.name": "br-front" });
    lab.network(json!({ "Name": "front", "EnableIPv6": true, "Options": options }));
    lab.run("web", publisher("front", &[("80/tcp", "", "8080")]));
    lab.run("other", sleeper("front"));
    lab.serve(At::Container("web"), By::Tcp, 80);
}

/// Who of these does not get through: nobody, if all is well. Both families.
fn broken(lab: &Lab) -> Vec<&'static str> {
    let seen = |at, to: IpAddr, port| lab.seen(at, By::Tcp, to, port).is_some();
    let web = lab.addresses("web", "front");
    let checks = [
        ("out by IPv4", seen(At::Container("web"), OUTSIDE.into(), 80)),
        ("out by IPv6", seen(At::Container("web"), OUTSIDE6.into(), 80)),
        ("published, IPv4", seen(At::Outside, HOST.into(), 8080)),
        ("published, IPv6", seen(At::Outside, HOST6.into(), 8080)),
        ("published, from the host", seen(At::Host, HOST.into(), 8080)),
        ("neighbours", web.len() == 2 && web.iter().all(|a| seen(At::Container("other"), *a, 80))),
        ("names of containers", lab.lookup("other", "web") == [web[0].to_string()]),
        ("names from upstream", !lab.lookup("other", testkit::upstream::KNOWN.0).is_empty()),
    ];
    checks.into_iter().filter(|(_, works)| !works).map(|(what, _)| what).collect()
}

#[track_caller]
fn whole(lab: &Lab, when: &str) {
    let mut last = Vec::new();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while std::time::Instant::now() < end {
        last = broken(lab);
        if last.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{when}: {last:?}\n{}", lab.command(At::Host, &["nft", "list", "ruleset"]));
}

fn info(lab: &Lab) -> (String, String) {
    let info = lab.get("/info").unwrap().json();
    (info["FirewallBackend"]["Info"].to_string(), info["Warnings"].to_string())
}

const UFW: &str = r#"
cp -a /etc/ufw "$D/ufw" && mount --bind "$D/ufw" /etc/ufw &&
cp -a /etc/default/ufw "$D/default-ufw" && mount --bind "$D/default-ufw" /etc/default/ufw &&
ufw --force reset && ufw --force enable && iptables -S FORWARD | grep -q -e '-P FORWARD DROP'"#;

#[test]
fn sec_08_beside_ufw_everything_works_through_its_reload_and_its_end() {
    let (mut lab, mut room) = lab_beside(UFW, |_| ());
    serve(&lab);
    whole(&lab, "ufw is active");
    let (told, warnings) = info(&lab);
    assert!(told.contains("ufw-user-forward") && told.contains("ufw6-user-forward"), "{told}");
    assert!(!warnings.contains("drops what is forwarded"), "{warnings}");
    lab.serve(At::Host, By::Tcp, 7000);
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST.into(), 7000), None, "the host is as closed as ufw has it");
    room.succeed("ufw reload");
    whole(&lab, "after ufw's reload");
    room.succeed("ufw allow 7000/tcp");
    whole(&lab, "after a rule of the user's");
    assert!(lab.seen(At::Outside, By::Tcp, HOST.into(), 7000).is_some());
    lab.stop_daemon();
    whole_but_daemon(&lab, "the daemon is away");
    lab.start_daemon().unwrap();
    room.succeed("ufw disable");
    whole(&lab, "without ufw");
    room.succeed("ufw --force enable");
    whole(&lab, "with it again");
    assert!(room.succeed("ufw status").contains("7000/tcp"), "the user's rules stay");
}

/// What is to go on while nobody can be asked: the outside reaches what is published.
#[track_caller]
fn whole_but_daemon(lab: &Lab, when: &str) {
    for host in [IpAddr::from(HOST), HOST6.into()] {
        assert!(lab.seen(At::Outside, By::Tcp, host, 8080).is_some(), "{when}: {host}");
    }
}

const FIREWALLD: &str = r#"
mount -t tmpfs none /etc/firewalld && mount -t tmpfs none /var/log && export DBUS_SYSTEM_BUS_ADDRESS="unix:path=$D/bus" &&
{ dbus-daemon --system --nofork --nopidfile --address="$DBUS_SYSTEM_BUS_ADDRESS" >"$D/dbus.log" 2>&1 & }
for n in $(seq 200); do [ -S "$D/bus" ] && break; sleep 0.05; done
{ firewalld --nofork --nopid >"$D/firewalld.log" 2>&1 & echo $! >"$D/firewalld.pid"; }
for n in $(seq 100); do timeout 10 firewall-cmd --state && break; sleep 0.1; done
timeout 10 firewall-cmd --zone=public --add-interface=eth0"#;

#[test]
fn sec_09_beside_firewalld_everything_works_through_its_reload_and_its_end() {
    let (mut lab, mut room) = lab_beside(FIREWALLD, |lab| {
        // Isle speaks to the room's firewalld, not to the machine's.
        let programs = lab.directory().join("programs");
        std::fs::create_dir_all(&programs).unwrap();
        let bus = lab.directory().join("room/bus");
        let script = format!(
            "#!/bin/sh\nDBUS_SYSTEM_BUS_ADDRESS=unix:path={} exec /usr/bin/firewall-cmd \"$@\"\n",
            bus.display()
        );
        std::fs::write(programs.join("firewall-cmd"), script).unwrap();
        std::fs::set_permissions(programs.join("firewall-cmd"), std::fs::Permissions::from_mode(0o755)).unwrap();
        lab.programs = Some(programs);
    });
    serve(&lab);
    whole(&lab, "firewalld is active");
    let (told, warnings) = info(&lab);
    assert!(told.contains("firewalld"), "{told}");
    assert!(!warnings.contains("drops what is forwarded"), "{warnings}");
    let trusted = room.succeed("firewall-cmd --zone=trusted --list-interfaces");
    assert!(trusted.contains("br-front") && trusted.contains("isle0"), "{trusted}");
    lab.serve(At::Host, By::Tcp, 7000);
    assert_eq!(lab.seen(At::Outside, By::Tcp, HOST.into(), 7000), None, "the host is as closed as firewalld has it");
    for reload in ["--reload", "--complete-reload"] {
        room.succeed(&format!("timeout 60 firewall-cmd {reload}"));
        whole(&lab, reload);
    }
    lab.stop_daemon();
    whole_but_daemon(&lab, "the daemon is away");
    lab.start_daemon().unwrap();
    whole(&lab, "the daemon is back");
    room.succeed("kill $(cat $D/firewalld.pid)");
    room.until(Duration::from_secs(20), "! kill -0 $(cat $D/firewalld.pid)");
    whole(&lab, "without firewalld");
}

const DOCKERD: &str = r#"
mkdir -p /run/docker && mount -t tmpfs none /run/docker && export DOCKER_HOST="unix://$D/docker.sock"
start() {
  dockerd --data-root "$D/root" --exec-root "$D/run" --pidfile "$D/pid" --host "$DOCKER_HOST" --storage-driver vfs \
    >>"$D/dockerd.log" 2>&1 &
  for n in $(seq 200); do docker info >/dev/null 2>&1 && return 0; sleep 0.1; done
  tail -20 "$D/dockerd.log"; return 1
}
start && docker network create --subnet 10.66.0.0/24 theirs"#;

/// What does not work of Docker's own container.
fn their_broken(lab: &Lab, room: &mut Room) -> Vec<&'static str> {
    let page = format!("http://{HOST}:9090/");
    let outside =
        Command::new("curl").args(["-sm", "3", "-o", "/dev/null", "-w", "%{http_code}", &page]).output_in(lab);
    let out = room.run(&format!("docker exec them nc -w 3 {OUTSIDE} 80")).0;
    let name = room.run("docker exec them nslookup -type=a them").0;
    let checks = [
        ("published", outside == "404"),
        ("out", out.contains(&HOST.to_string())),
        ("names", name.contains("10.66.0.")),
    ];
    checks.into_iter().filter(|(_, works)| !works).map(|(what, _)| what).collect()
}

trait Outside {
    fn output_in(&mut self, lab: &Lab) -> String;
}

impl Outside for Command {
    fn output_in(&mut self, lab: &Lab) -> String {
        lab.outside(self).stdout
    }
}

#[test]
fn sec_10_beside_dockerd_both_engines_networks_stay_whole() {
    let (mut lab, mut room) = lab_beside(DOCKERD, |_| ());
    let tar = lab.directory().join("room/busybox.tar");
    std::fs::write(&tar, testkit::images::busybox().unwrap()).unwrap();
    room.succeed("docker import $D/busybox.tar bb >/dev/null");
    let run = "docker run -d --stop-timeout 1 --name them --network theirs -p 9090:80 bb httpd -f -p 80 -h /";
    room.succeed(run);
    serve(&lab);
    let both = |lab: &Lab, room: &mut Room, when: &str| {
        whole(lab, when);
        assert_eq!(their_broken(lab, room), [""; 0], "Docker's, {when}");
    };
    both(&lab, &mut room, "side by side");
    let (told, warnings) = info(&lab);
    assert!(told.contains("DOCKER-USER"), "{told}");
    assert!(!warnings.contains("drops what is forwarded"), "{warnings}");
    // Neither reaches the other's but by what is published.
    let web = lab.addresses("web", "front")[0];
    assert!(room.run(&format!("docker exec them nc -w 2 {web} 80")).0.contains("timed out"));
    room.succeed("docker exec -d them httpd -f -p 81 -h /");
    room.until(Duration::from_secs(5), "docker exec them nc -w 1 127.0.0.1 81");
    let them = room.succeed("docker inspect -f '{{.NetworkSettings.Networks.theirs.IPAddress}}' them");
    let them = SocketAddr::new(them.trim().parse().unwrap(), 81);
    let open = lab.in_container("web", || TcpStream::connect_timeout(&them, Duration::from_secs(2)).is_ok());
    assert!(!open, "an unpublished port of Docker's is not opened by what we tell its firewall");
    assert!(lab.seen(At::Container("web"), By::Tcp, HOST.into(), 8080).is_some());
    // Docker masquerades what leaves its network: who asks is seen at the gateway of ours.
    let gateway = lab.bridge_addresses("br-front")[0].to_string();
    let said = room.run(&format!("docker exec them nc -w 2 {HOST} 8080")).0;
    assert!(said.contains(&gateway), "{said:?}, not {gateway}");
    let theirs = SocketAddr::new(HOST.into(), 9090);
    let open = lab.in_container("web", || TcpStream::connect_timeout(&theirs, Duration::from_secs(2)).is_ok());
    assert!(open, "what Docker has published is reached from our networks");

    lab.stop_daemon();
    whole_but_daemon(&lab, "Isle's daemon is away");
    assert_eq!(their_broken(&lab, &mut room), [""; 0], "while Isle's daemon is away");
    lab.start_daemon().unwrap();
    both(&lab, &mut room, "Isle's daemon is back");
    lab.kill_daemon();
    lab.start_daemon().unwrap();
    both(&lab, &mut room, "Isle's daemon was killed");

    room.succeed("kill $(cat $D/pid)");
    room.until(Duration::from_secs(30), "! kill -0 $(cat $D/pid 2>/dev/null || echo 999999)");
    whole(&lab, "dockerd has ended");
    room.succeed("start && docker start them");
    both(&lab, &mut room, "dockerd is back");

    // A sweep of each leaves the other's.
    room.succeed("docker network create gone && docker network prune -f && docker container prune -f");
    lab.network(json!({ "Name": "gone" }));
    lab.ask("/networks/prune", 200);
    both(&lab, &mut room, "both have pruned");
    for name in ["web", "other"] {
        lab.remove(name);
    }
    assert_eq!(lab.delete("/networks/front").unwrap().status, 204);
    assert_eq!(their_broken(&lab, &mut room), [""; 0], "Isle's network is gone");
    let rules = || lab.command(At::Host, &["iptables", "-S", "DOCKER-USER"]);
    within(Duration::from_secs(5), "its rules go with a network", || !rules().contains("br-front"));
}
