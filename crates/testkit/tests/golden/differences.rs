//! Where Isle's answers differ from Docker's by decision, word for word; docs/differences.md has the reasons at length.

/// What Docker printed, and what Isle prints instead.
pub type Instead = (&'static str, &'static str);

/// A recorded command that Isle answers otherwise.
pub struct Difference {
    pub command: &'static str,
    /// The rows of docs/differences.md that say why.
    pub rows: &'static [&'static str],
    /// What Docker printed, and what Isle prints instead; everything else is the same.
    pub instead: &'static [Instead],
}

impl Difference {
    /// What Docker printed with Isle's words in it.
    ///
    /// # Panics
    /// Docker never printed what is to be replaced.
    pub fn edit(&self, docker: &str) -> String {
        let mut text = docker.to_owned();
        for (theirs, ours) in self.instead {
            assert!(text.contains(theirs), "{}: Docker did not print {theirs:?}:\n{text}", self.command);
            text = text.replace(theirs, ours);
        }
        text
    }
}

/// Names have a TTL of a second: clients that keep addresses longer reach nobody, or a stranger.
const TTL: Instead = (" 600 IN ", " 1 IN ");
/// A question with EDNS has an answer with EDNS (RFC 6891).
const EDNS: Instead =
    ("ADDITIONAL: 0\n\n", "ADDITIONAL: 1\n\n;; OPT PSEUDOSECTION:\n; EDNS: version: 0, flags:; udp: 1232\n");
/// Docker's resolver says of its own errors that it does not recurse.
const RECURSION: [Instead; 2] =
    [("flags: qr rd;", "flags: qr rd ra;"), (";; WARNING: recursion requested but not available\n", "")];

/// What our client prints otherwise wherever docker prints it.
pub const CLIENT: &[Instead] = &[("\nexit status 1\n", "\n")];

pub const DIFFERENCES: &[Difference] = &[
    Difference {
        command: r#"ENGINE inspect -f "{{json .NetworkSettings}}" webapp"#,
        rows: &["`SandboxKey`"],
        instead: &[("/run/d8/netns/<short id 1>", "/proc/<n>/ns/net")],
    },
    Difference {
        command: "ENGINE network create --subnet 10.201.0.0/16 net6",
        rows: &["an overlapping subnet"],
        instead: &[(
            "on this address space",
            "on this address space (subnet 10.201.0.0/16 overlaps network sub1 with 10.201.0.0/24)",
        )],
    },
    Difference {
        command: "ENGINE exec cli dig +time=3 +tries=1 c1",
        rows: &["TTL of names", "form of DNS answers"],
        instead: &[TTL, EDNS, ("rcvd: 38", "rcvd: 47")],
    },
    Difference {
        command: "ENGINE exec cli dig +time=3 +tries=1 +noall +answer c1 c1. C1 al1 host1",
        rows: &["TTL of names"],
        instead: &[TTL],
    },
    Difference {
        command: "ID=$(ENGINE inspect -f \"{{.Id}}\" c1); for n in ${ID:0:12} $ID ${ID:0:6}; do echo \"name of \
                  length ${#n}:\"; ENGINE exec cli dig +time=3 +tries=1 +noall +answer +comments $n | grep -v \"^;; \
                  \\(Got\\|OPT\\|WARN\\)\"; done",
        rows: &["TTL of names", "form of DNS answers"],
        instead: &[
            TTL,
            (
                "ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 0\n\n",
                "ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 1\n\n; EDNS: version: 0, flags:; udp: 1232\n",
            ),
        ],
    },
    Difference {
        command: "ENGINE exec cli dig +time=3 +tries=1 c1 AAAA",
        rows: &["form of DNS answers"],
        instead: &[EDNS, ("rcvd: 20", "rcvd: 31")],
    },
    Difference {
        command: "ENGINE exec cli dig +time=3 +tries=1 c1 MX",
        rows: &["form of DNS answers"],
        instead: &[EDNS, ("rcvd: 20", "rcvd: 31")],
    },
    Difference {
        command: "ENGINE exec cli dig +time=3 +tries=1 c1 ANY",
        rows: &["types that a known name lacks (TXT, HTTPS, ANY)", "form of DNS answers", "TTL of names"],
        instead: &[
            ("SERVFAIL", "NOERROR"),
            ("ANSWER: 0", "ANSWER: 1"),
            RECURSION[0],
            RECURSION[1],
            EDNS,
            ("IN\tANY\n\n", "IN\tANY\n\n;; ANSWER SECTION:\nc1. 1 IN A <net 1: host 1>\n\n"),
            ("rcvd: 20", "rcvd: 47"),
        ],
    },
    Difference {
        command: "ENGINE exec cli dig +time=3 +tries=1 c1.webapp1",
        rows: &["TTL of names", "form of DNS answers"],
        instead: &[TTL, EDNS, ("rcvd: 54", "rcvd: 55")],
    },
    Difference {
        command: r#"ENGINE exec cli sh -c 'dig +time=3 +tries=1 -x $(getent hosts c1 | cut -d" " -f1)'"#,
        rows: &["TTL of names", "form of DNS answers"],
        instead: &[TTL, EDNS, ("rcvd: 88", "rcvd: 76")],
    },
    Difference {
        command: "ENGINE exec cli dig +time=3 +tries=1 +tcp +noall +answer c1",
        rows: &["TTL of names"],
        instead: &[TTL],
    },
    Difference {
        command: "ENGINE run -d --name p2 --network webapp1 -p 18001:8000 webapp",
        rows: &["a host port that is taken"],
        instead: &[("port is already allocated", "port is already allocated by container p1")],
    },
    Difference {
        command: "ENGINE run -d --name s1 --network sub1 --ip 10.201.0.78 busybox sleep 60; ENGINE run --rm \
                  --network sub1 --ip 10.201.0.78 busybox true",
        rows: &["a static address that is taken"],
        instead: &[(
            "Address already in use",
            "Address already in use: 10.201.0.78 is held by container s1 on network sub1",
        )],
    },
    Difference {
        command: "ENGINE run --rm --network sub1 --ip 10.201.0.254 busybox true",
        rows: &["a static address that is taken"],
        instead: &[(
            "Address already in use",
            "Address already in use: 10.201.0.254 is held by the gateway of network sub1",
        )],
    },
    Difference {
        command: "ENGINE run --rm --network inet webapp sh -c \"curl -sS -m 3 i1:8000; ip route; cat \
                  /etc/resolv.conf; dig +time=3 +tries=1 deb.debian.org\"",
        rows: &["form of DNS answers", "errors of the resolver itself"],
        instead: &[RECURSION[0], RECURSION[1], EDNS, ("rcvd: 32", "rcvd: 43")],
    },
    Difference {
        command: "ENGINE network create -o com.docker.network.bridge.name=brgold -o \
                  com.docker.network.driver.mtu=1400 opts; ENGINE run --rm --network opts webapp ip link show eth0; \
                  ip -br link | grep brgold; ENGINE network rm opts",
        rows: &["queue of a container's interface"],
        instead: &[("mode DEFAULT group default ", "mode DEFAULT group default qlen 1000")],
    },
    Difference {
        command: "ENGINE network create --driver macvlan net7 && ENGINE network rm net7; ENGINE network create \
                  --driver ipvlan net7 && ENGINE network rm net7",
        rows: &["a network whose device the kernel lacks"],
        instead: &[
            (
                "operation not supported\nError",
                "cannot create network net7: this kernel lacks dummy devices (its module 'dummy')\nError",
            ),
            (
                "daemon: operation not supported",
                "daemon: cannot create network net7: this kernel lacks ipvlan devices (its module 'ipvlan')",
            ),
        ],
    },
];
