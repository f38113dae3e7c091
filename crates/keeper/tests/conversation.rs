//! A keeper, talked to as the daemon does, answering real queries on loopback sockets.

use keeper_protocol::{Key, Reply, Request, VERSION, decode, encode};
use kernel::seqpacket;
use model::id::{ContainerId, EndpointId, NetworkId, RootId, SandboxId};
use model::names::{Change, Member, Upstreams, View};
use rustix::process::PidfdFlags;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

const SANDBOX: SandboxId = SandboxId::new([3; 32]);
const NETWORK: NetworkId = NetworkId::new([4; 32]);

struct Daemon(OwnedFd);

impl Daemon {
    fn connect(path: &std::path::Path) -> (Daemon, Vec<Key>) {
        let daemon = Daemon(seqpacket::connect(path).unwrap());
        let hello = Request::Hello { version: VERSION, root: RootId::new([1; 4]) };
        let Reply::Welcome { held, .. } = daemon.ask(&hello, &[]).0 else { panic!("not welcome") };
        (daemon, held)
    }
    fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> (Reply, Vec<OwnedFd>) {
        seqpacket::send(&self.0, &encode(request), descriptors).unwrap();
        let packet = seqpacket::receive(&self.0).unwrap().unwrap();
        (decode(&packet.message).unwrap(), packet.descriptors)
    }
    fn tell(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) {
        assert_eq!(self.ask(request, descriptors).0, Reply::Done, "{request:?}");
    }
}

fn start() -> (std::path::PathBuf, std::thread::JoinHandle<()>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keeper.sock");
    let listener = seqpacket::listen(&path).unwrap();
    let root = RootId::new([1; 4]);
    let settings =
        keeper::Settings { root, build: "test".into(), listener, resolv_conf: "/nonexistent/resolv.conf".into() };
    let running = std::thread::spawn(move || {
        keeper::run(settings).unwrap();
        drop(directory);
    });
    (path, running)
}

fn member(n: u8, name: &str) -> Change {
    let member = Member {
        container: ContainerId::new([n; 32]),
        names: vec![name.into()],
        ipv4: Some([10, 0, 0, n].into()),
        ipv6: None,
    };
    Change::Member { network: NETWORK, endpoint: EndpointId::new([n; 32]), member }
}

/// Everything a daemon says on connecting, with one sandbox and one name.
fn feed(daemon: &Daemon) -> SocketAddr {
    let namespace = kernel::netns::current().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind(udp.local_addr().unwrap()).unwrap();
    let at = udp.local_addr().unwrap();
    daemon.tell(
        &Request::Hold { key: Key::Sandbox(SANDBOX), more: false },
        &[namespace.as_fd(), udp.as_fd(), tcp.as_fd()],
    );
    snapshot(daemon);
    at
}

fn snapshot(daemon: &Daemon) {
    let view = View {
        networks: vec![NETWORK],
        links: Default::default(),
        upstreams: Upstreams::None,
        keep_single_labels: false,
    };
    daemon.tell(&Request::Reset, &[]);
    let zone = Change::Zone { network: NETWORK, name: "front".into() };
    daemon
        .tell(&Request::Apply { changes: vec![zone, Change::View { sandbox: SANDBOX, view }, member(2, "web")] }, &[]);
    daemon.tell(&Request::Begin, &[]);
}

/// Asks for the A record of `name`: the rcode and the number of answers.
fn query(at: SocketAddr, name: &str) -> (u8, u8) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut message = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    socket.send_to(&message, at).unwrap();
    let mut answer = [0; 512];
    socket.recv_from(&mut answer).unwrap();
    assert_eq!(answer[..2], message[..2]);
    (answer[3] & 15, answer[7])
}

fn within(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "{what} not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn lc_05_names_are_answered_while_the_daemon_is_gone_and_descriptors_come_back() {
    let (path, keeper) = start();
    let (daemon, held) = Daemon::connect(&path);
    assert!(held.is_empty());
    let at = feed(&daemon);
    assert_eq!(query(at, "web"), (0, 1));
    assert_eq!(query(at, "nobody"), (2, 0), "no upstream: SERVFAIL");
    drop(daemon);
    assert_eq!(query(at, "web.front"), (0, 1), "without a daemon");

    let (daemon, held) = Daemon::connect(&path);
    assert_eq!(held, [Key::Sandbox(SANDBOX)]);
    let (reply, descriptors) = daemon.ask(&Request::Recall { key: Key::Sandbox(SANDBOX), from: 0 }, &[]);
    assert_eq!((reply, descriptors.len()), (Reply::Recalled, 3));
    let udp = UdpSocket::from(descriptors.into_iter().nth(1).unwrap());
    assert_eq!(udp.local_addr().unwrap(), at);
    // Half a snapshot is not seen.
    daemon.tell(&Request::Reset, &[]);
    assert_eq!(query(at, "web"), (0, 1));
    snapshot(&daemon);
    daemon.tell(&Request::Apply { changes: vec![member(3, "late")] }, &[]);
    assert_eq!(query(at, "late"), (0, 1));
    daemon.tell(&Request::Retire, &[]);
    keeper.join().unwrap();
}

#[test]
fn dns_24_a_dead_containers_names_go_without_a_daemon() {
    let (path, keeper) = start();
    let (daemon, _) = Daemon::connect(&path);
    let at = feed(&daemon);
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let changes = vec![Change::MemberGone { network: NETWORK, endpoint: EndpointId::new([2; 32]) }];
    daemon.tell(&Request::Watch { container: ContainerId::new([2; 32]), changes }, &[pidfd.as_fd()]);
    drop(daemon);
    assert_eq!(query(at, "web"), (0, 1));
    child.kill().unwrap();
    within(Duration::from_secs(2), "the name is gone", || query(at, "web") == (2, 0));
    child.wait().unwrap();
    let (daemon, _) = Daemon::connect(&path);
    daemon.tell(&Request::Retire, &[]);
    keeper.join().unwrap();
}

#[test]
fn a_death_while_a_snapshot_comes_in_is_not_missed() {
    let (path, keeper) = start();
    let (daemon, _) = Daemon::connect(&path);
    let at = feed(&daemon);
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pidfd = rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let changes = vec![Change::MemberGone { network: NETWORK, endpoint: EndpointId::new([2; 32]) }];
    daemon.tell(&Request::Watch { container: ContainerId::new([2; 32]), changes }, &[pidfd.as_fd()]);
    daemon.tell(&Request::Reset, &[]);
    // The daemon that was about to say the rest is gone.
    drop(daemon);
    child.kill().unwrap();
    within(Duration::from_secs(2), "the name is gone", || query(at, "web") == (2, 0));
    child.wait().unwrap();
    // A snapshot without the watch ends it.
    let (daemon, _) = Daemon::connect(&path);
    snapshot(&daemon);
    assert_eq!(query(at, "web"), (0, 1));
    daemon.tell(&Request::Retire, &[]);
    keeper.join().unwrap();
}

#[test]
fn a_keeper_gives_a_handle_on_itself() {
    let (path, keeper) = start();
    let daemon = Daemon(seqpacket::connect(&path).unwrap());
    let (_, own) = daemon.ask(&Request::Hello { version: VERSION, root: RootId::new([1; 4]) }, &[]);
    // It runs in this process here.
    assert_eq!(kernel::process::has_ended(&own[0], Duration::ZERO), Ok(false));
    daemon.tell(&Request::Retire, &[]);
    keeper.join().unwrap();
}

#[test]
fn another_roots_daemon_is_refused_and_garbage_answered() {
    let (path, keeper) = start();
    let daemon = Daemon(seqpacket::connect(&path).unwrap());
    let hello = Request::Hello { version: VERSION, root: RootId::new([2; 4]) };
    assert!(matches!(daemon.ask(&hello, &[]).0, Reply::Failed { .. }));
    let too_long = vec![0xff; seqpacket::MAX_MESSAGE + 1];
    for garbage in [&[0xff; 40], too_long.as_slice()] {
        rustix::net::send(&daemon.0, garbage, rustix::net::SendFlags::empty()).unwrap();
        let answer = seqpacket::receive(&daemon.0).unwrap().unwrap();
        assert!(matches!(decode(&answer.message).unwrap(), Reply::Failed { .. }));
    }
    daemon.tell(&Request::Retire, &[]);
    keeper.join().unwrap();
}

#[test]
fn a_daemon_of_another_version_is_told_what_this_keeper_is() {
    let (path, keeper) = start();
    let daemon = Daemon(seqpacket::connect(&path).unwrap());
    let hello = Request::Hello { version: VERSION + 1, root: RootId::new([1; 4]) };
    let welcome = Reply::Welcome { version: VERSION, build: "test".into(), held: vec![] };
    assert_eq!(daemon.ask(&hello, &[]).0, welcome);
    daemon.tell(&Request::Retire, &[]);
    keeper.join().unwrap();
}

#[test]
fn a_user_that_is_not_root_is_turned_away_even_by_an_open_socket() {
    use rustix::thread::set_thread_res_uid;
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("REQUIRE_NETNS").is_none(), "only root can become another user");
        println!("SKIP: another user is needed, which only root can become");
        return;
    }
    let (path, keeper) = start();
    for (opened, mode) in [(path.parent().unwrap(), 0o711), (path.as_path(), 0o666)] {
        std::fs::set_permissions(opened, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let at = path.clone();
    let other = std::thread::spawn(move || {
        // Of this thread alone: it ends with it.
        let nobody = rustix::process::Uid::from_raw(65_534);
        set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let connection = seqpacket::connect(&at).unwrap();
        let recall = encode(&Request::Recall { key: Key::TableOwner, from: 0 });
        let sent = seqpacket::send(&connection, &recall, &[]);
        sent.is_err() || seqpacket::receive(&connection).map_or(true, |answer| answer.is_none())
    });
    assert!(other.join().unwrap(), "it is not answered");
    let (daemon, _) = Daemon::connect(&path);
    daemon.tell(&Request::Retire, &[]);
    keeper.join().unwrap();
}
