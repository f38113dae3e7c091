//! The firewall as a value: a constant number of rules, written once per schema version, and the sets and maps that
//! members, ports and isolation live in. Adding a container or a port is a batch of elements; no rule is ever added.
//!
//! ```text
//!  arrives                                                                                              leaves
//!  raw ──────────▶ publish (nat) ─────────▶ forward ──────────────────────────────▶ source (nat)
//!  nothing to or     a host's address and     established; inside one network;        hairpin, 127.0.0.1 and the
//!  from 127/8 that   port become a            published; out of a network, unless     way out take this host's
//!  is not lo's       container's              internal; never from one to another     address
//!  no error about    │
//!  a flow of others  └──────────────────────▶ host
//!                                             to no other network's gateway
//!
//!  table bridge: frames from a container's port claim no address but its own, nor speak of flows of others
//!
//! An ICMP error is believed by whoever had the flow that it quotes: connection tracking calls it 'related' and lets it
//! pass every border, and the kernel's table of path MTUs takes it even where nothing is tracked. So one from a
//! container's port must quote a packet that was sent to that port's own address; and one from a network whose members
//! may have others (`Attachment::trusted`), where they forward for others, one that was sent to the network, or by it.
//! ```
//!
//! Rules are written in a small language, which [`compile`] turns into the kernel's instructions, and [`render`] into
//! text: the text is a snapshot in the tests, and its hash is the schema's version.

use ipnet::IpNet;
use kernel::address::octets;
use kernel::nft::{self, Base, Data, DataType, Element, Expression, Family, Hook, Meta, Register, Track, hook};
use model::daemon::Mark;
use model::desired::{Attachment, Bridge, Inwards, Outwards, Publication};
use model::net::{MacAddr, Protocol};
use model::port::MOST_HELD;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use Field::*;

/// Ranges of more ports than this are one element of an interval map, if their ports are equal on both sides. Below,
/// elements of a hash map are quicker to add and to find.
pub const INTERVAL_FROM: u16 = 17;

/// A part of a packet, or what the kernel knows about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    InputName,
    OutputName,
    Transport,
    Source4,
    Destination4,
    Source6,
    Destination6,
    DestinationPort,
    SourcePort,
    EtherType,
    EtherSource,
    ArpSender,
    IcmpType,
    /// Where the packet went that an ICMP error quotes: its IP header follows the error's eight bytes.
    Quoted4,
    Quoted6,
    AdvertisedTarget,
    Priority,
}

impl Field {
    const fn width(self) -> u32 {
        match self {
            InputName | OutputName | Source6 | Destination6 | Quoted6 | AdvertisedTarget => 16,
            Source4 | Destination4 | Quoted4 | ArpSender | Priority => 4,
            EtherSource => 6,
            DestinationPort | SourcePort | EtherType => 2,
            Transport | IcmpType => 1,
        }
    }

    /// nft's number of the type, which only `nft list` reads.
    const fn kind(self) -> u32 {
        match self {
            InputName | OutputName => 41,
            Source4 | Destination4 | Quoted4 | ArpSender => 7,
            Source6 | Destination6 | Quoted6 | AdvertisedTarget => 8,
            EtherSource => 9,
            EtherType => 10,
            Transport => 12,
            DestinationPort | SourcePort => 13,
            IcmpType => 11,
            Priority => 14,
        }
    }

    fn load(self, into: Register) -> Expression {
        let (base, offset) = match self {
            InputName => return Expression::Meta { key: Meta::InputName, into },
            OutputName => return Expression::Meta { key: Meta::OutputName, into },
            Transport => return Expression::Meta { key: Meta::TransportProtocol, into },
            Priority => return Expression::Meta { key: Meta::Priority, into },
            Source4 => (Base::Network, 12),
            Destination4 => (Base::Network, 16),
            Source6 => (Base::Network, 8),
            Destination6 => (Base::Network, 24),
            SourcePort => (Base::Transport, 0),
            DestinationPort => (Base::Transport, 2),
            EtherType => (Base::Link, 12),
            EtherSource => (Base::Link, 6),
            ArpSender => (Base::Network, 14),
            IcmpType => (Base::Transport, 0),
            Quoted4 => (Base::Transport, 8 + 16),
            Quoted6 => (Base::Transport, 8 + 24),
            AdvertisedTarget => (Base::Transport, 8),
        };
        Expression::Payload { base, offset, length: self.width(), into }
    }

    const fn text(self) -> &'static str {
        match self {
            InputName => "iifname",
            OutputName => "oifname",
            Transport => "meta l4proto",
            Source4 => "ip saddr",
            Destination4 => "ip daddr",
            Source6 => "ip6 saddr",
            Destination6 => "ip6 daddr",
            DestinationPort => "th dport",
            SourcePort => "th sport",
            EtherType => "ether type",
            EtherSource => "ether saddr",
            ArpSender => "arp saddr ip",
            IcmpType => "icmp type",
            Quoted4 => "quoted ip daddr",
            Quoted6 => "quoted ip6 daddr",
            AdvertisedTarget => "icmpv6 taddr",
            Priority => "meta priority",
        }
    }
}

/// A network protocol that a rule of table inet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    V4,
    V6,
}

/// When a rule applies.
#[derive(Clone, Copy, Debug)]
pub enum Match {
    Protocol(Ip),
    Is(Field, &'static [u8], &'static str),
    IsNot(Field, &'static [u8], &'static str),
    /// These bits are so: field, mask, value.
    Masked(Field, &'static [u8], &'static [u8], &'static str),
    In(&'static [Field], Set),
    NotIn(&'static [Field], Set),
    /// Any of these bits (linux/netfilter/nf_conntrack_common.h), and their names.
    State(u32, &'static str),
    Translated,
    /// The destination is an address of this host.
    Local,
}

/// What a rule does.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Accept,
    /// Accept what other rules have marked so.
    AcceptMarked(Mark),
    /// Counted; the text is the rule's comment, for whoever looks for lost packets (OB-05).
    Drop(&'static str),
    Return,
    Jump(&'static str),
    /// As the map says.
    Verdict(&'static [Field], Set),
    /// To the address, and port where the map has one.
    Dnat(Ip, &'static [Field], Set, bool),
    Redirect(&'static [Field], Set),
    /// From the address that the map has.
    Snat(Ip, &'static [Field], Set),
    Masquerade,
    /// Notes on the packet that it is a published port's ([`PUBLISHED`]).
    Note,
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule(pub &'static [Match], pub Act);

/// A chain and its rules.
#[derive(Clone, Debug)]
pub struct Chain {
    pub name: &'static str,
    pub hook: Option<Hook<'static>>,
    pub rules: Vec<Rule>,
}

macro_rules! sets {
    ($($(#[$doc:meta])* $set:ident $family:ident $name:literal $key:tt $data:tt $interval:literal),* $(,)?) => {
        /// The sets and maps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Set { $($(#[$doc])* $set),* }
        impl Set {
            pub const ALL: &'static [Set] = &[$(Set::$set),*];
            pub const fn name(self) -> &'static str {
                match self { $(Set::$set => $name),* }
            }
            pub const fn family(self) -> Family {
                match self { $(Set::$set => Family::$family),* }
            }
            const fn key(self) -> &'static [(u32, u32)] {
                match self { $(Set::$set => sets!(@parts $key)),* }
            }
            const fn data(self) -> Option<DataType<'static>> {
                match self { $(Set::$set => sets!(@data $data)),* }
            }
            const fn interval(self) -> bool {
                match self { $(Set::$set => $interval),* }
            }
        }
    };
    (@parts [$($field:ident)*]) => { const { &[$((Field::$field.kind(), Field::$field.width())),*] } };
    (@data []) => { None };
    (@data [verdict]) => { Some(DataType::Verdict) };
    (@data $parts:tt) => { Some(DataType::Value(sets!(@parts $parts))) };
}

sets! {
    /// Our bridges.
    Bridges Inet "bridges" [InputName] [] false,
    /// Which may reach which: a bridge itself, where members reach each other.
    Links Inet "links" [InputName OutputName] [verdict] false,
    /// Bridges with no way out and none in.
    Internal Inet "internal" [InputName] [] false,
    /// Bridges whose members take this host's address on the way out.
    Masquerade4 Inet "masquerade4" [InputName] [] false,
    Masquerade6 Inet "masquerade6" [InputName] [] false,
    /// Bridges whose members take this address of the host's.
    Outbound4 Inet "outbound4" [InputName] [Source4] false,
    Outbound6 Inet "outbound6" [InputName] [Source6] false,
    /// Bridges that let who is outside reach published ports by a container's own address.
    Open4 Inet "open4" [OutputName] [] false,
    Open6 Inet "open6" [OutputName] [] false,
    /// Bridges that let who is outside reach everything.
    Unprotected4 Inet "unprotected4" [OutputName] [] false,
    Unprotected6 Inet "unprotected6" [OutputName] [] false,
    /// What is a network's own: its bridge, and its subnets.
    Own4 Inet "own4" [InputName Destination4] [] true,
    Own6 Inet "own6" [InputName Destination6] [] true,
    /// Addresses of the host that are one network's: its gateway.
    Gateways4 Inet "gateways4" [Destination4] [] false,
    Gateways6 Inet "gateways6" [Destination6] [] false,
    /// Interfaces of the host, and the bridges whose published ports are open to what comes from them.
    Trusted Inet "trusted" [InputName OutputName] [] false,
    /// Published ports at a container's own address.
    Direct4 Inet "direct4" [Destination4 Transport DestinationPort] [] false,
    Direct6 Inet "direct6" [Destination6 Transport DestinationPort] [] false,
    DirectRange4 Inet "direct-range4" [Destination4 Transport DestinationPort] [] true,
    DirectRange6 Inet "direct-range6" [Destination6 Transport DestinationPort] [] true,
    /// Source and destination in one network.
    Hairpin4 Inet "hairpin4" [Source4 Destination4] [] true,
    Hairpin6 Inet "hairpin6" [Source6 Destination6] [] true,
    /// Ports published on one address.
    Single4 Inet "publish4" [Destination4 Transport DestinationPort] [Destination4 DestinationPort] false,
    Single6 Inet "publish6" [Destination6 Transport DestinationPort] [Destination6 DestinationPort] false,
    /// Ports published on all addresses.
    Any4 Inet "publish-any4" [Transport DestinationPort] [Destination4 DestinationPort] false,
    Any6 Inet "publish-any6" [Transport DestinationPort] [Destination6 DestinationPort] false,
    /// Ranges that keep their port numbers.
    Range4 Inet "range4" [Destination4 Transport DestinationPort] [Destination4] true,
    Range6 Inet "range6" [Destination6 Transport DestinationPort] [Destination6] true,
    AnyRange4 Inet "range-any4" [Transport DestinationPort] [Destination4] true,
    AnyRange6 Inet "range-any6" [Transport DestinationPort] [Destination6] true,
    /// TCP ports that the proxy serves, and the port that it listens on.
    Proxy4 Inet "proxy4" [Destination4 DestinationPort] [DestinationPort] false,
    Proxy6 Inet "proxy6" [Destination6 DestinationPort] [DestinationPort] false,
    ProxyAny4 Inet "proxy-any4" [DestinationPort] [DestinationPort] false,
    ProxyAny6 Inet "proxy-any6" [DestinationPort] [DestinationPort] false,
    /// The same for ranges.
    ProxyRange4 Inet "proxy-range4" [Destination4 DestinationPort] [DestinationPort] true,
    ProxyRange6 Inet "proxy-range6" [Destination6 DestinationPort] [DestinationPort] true,
    ProxyAnyRange4 Inet "proxy-any-range4" [Transport DestinationPort] [DestinationPort] true,
    ProxyAnyRange6 Inet "proxy-any-range6" [Transport DestinationPort] [DestinationPort] true,
    ProxyPort Inet "proxy-port" [DestinationPort] [] false,
    /// UDP ports whose own sockets the proxy serves.
    Carried4 Inet "carried4" [Destination4 DestinationPort] [] true,
    Carried6 Inet "carried6" [Destination6 DestinationPort] [] true,
    /// Ports of bridges that are held to their addresses.
    Ports Bridge "ports" [InputName] [] false,
    Addresses4 Bridge "addresses4" [InputName Source4] [] false,
    Addresses6 Bridge "addresses6" [InputName Source6] [] false,
    /// Used where the kernel has no locked ports.
    Macs Bridge "macs" [InputName EtherSource] [] false,
    /// Ports of networks without icc, where the firewall keeps them apart.
    Isolated Bridge "isolated" [InputName] [] false,
    /// Ports whose every packet's source is checked.
    Strict Bridge "strict" [InputName] [] false,
}

impl Set {
    pub fn declaration(self) -> nft::Set<'static> {
        nft::Set { name: self.name(), key: self.key(), data: self.data(), interval: self.interval() }
    }
}

const ICMP: Match = Match::Is(Transport, &[1], "icmp");
const ICMP6: Match = Match::Is(Transport, &[58], "ipv6-icmp");
const TCP: Match = Match::Is(Transport, &[6], "tcp");
const UDP: Match = Match::Is(Transport, &[17], "udp");
const TO_LOOPBACK: Match = Match::Masked(Destination4, &[0xff, 0, 0, 0], &[127, 0, 0, 0], "127.0.0.0/8");
const FROM_LOOPBACK: Match = Match::Masked(Source4, &[0xff, 0, 0, 0], &[127, 0, 0, 0], "127.0.0.0/8");
/// ICMPv6 has its errors below 128 (RFC 4443, 2.1).
const ERROR6: Match = Match::Masked(IcmpType, &[0x80], &[0], "< 128");
/// Those of ICMP that quote a packet (RFC 792).
const ERRORS4: [&[Match]; 5] = [
    &[Match::Is(IcmpType, &[3], "destination-unreachable")],
    &[Match::Is(IcmpType, &[4], "source-quench")],
    &[Match::Is(IcmpType, &[5], "redirect")],
    &[Match::Is(IcmpType, &[11], "time-exceeded")],
    &[Match::Is(IcmpType, &[12], "parameter-problem")],
];
const NOT_LO: Match = Match::IsNot(InputName, b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "lo");
const V4: Match = Match::Protocol(Ip::V4);
const V6: Match = Match::Protocol(Ip::V6);
const ANY6: &[u8] = &[0; 16];
const LOCALHOST6: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ARP: Match = Match::Is(EtherType, &[8, 6], "arp");
const FRAME4: Match = Match::Is(EtherType, &[8, 0], "ip");
const FRAME6: Match = Match::Is(EtherType, &[0x86, 0xdd], "ip6");

const INVALID: Match = Match::State(1, "invalid");
const ESTABLISHED: Match = Match::State(2 | 4, "established,related");

const fn base(kind: &'static str, number: u32, priority: i32) -> Option<Hook<'static>> {
    Some(Hook { kind, number, priority, device: None })
}

/// What a published port's packet has for a priority while it is bridged: containers cannot set one, since it is
/// cleared where a packet leaves a namespace.
const PUBLISHED: &[u8] = &0x1513_0001_u32.to_ne_bytes();

/// What the rules depend on: nothing that changes while a daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The kernel has locked ports: hardware addresses need no check here.
    pub locked_ports: bool,
    /// Bridged frames pass the firewall of IP. Then a published port's packet from a member to a member is bridged, not
    /// routed, and isolated ports would stop it: the firewall keeps members of networks without icc apart instead.
    pub br_netfilter: bool,
    /// What has this mark passes into every network that is not internal.
    pub accept_mark: Option<Mark>,
}

/// The chains of table inet.
pub fn inet_chains(variant: Variant) -> Vec<Chain> {
    use Act::*;
    use Match::*;
    let mut forward = vec![
        Rule(&[ESTABLISHED], Accept),
        Rule(&[], Verdict(&[InputName, OutputName], Set::Links)),
        Rule(&[In(&[InputName], Set::Bridges)], Jump("from-network")),
        Rule(&[In(&[OutputName], Set::Bridges), NotIn(&[InputName], Set::Bridges)], Jump("to-network")),
    ];
    let marked = variant.accept_mark.map(|mark| Rule(&[], AcceptMarked(mark)));
    if variant.br_netfilter {
        forward.insert(0, Rule(&[Translated, In(&[InputName], Set::Bridges)], Note));
    }
    vec![
        Chain {
            name: "direct",
            hook: None,
            rules: vec![
                Rule(&[V4, In(&[Destination4, Transport, DestinationPort], Set::Direct4)], Accept),
                Rule(&[V6, In(&[Destination6, Transport, DestinationPort], Set::Direct6)], Accept),
                Rule(&[V4, In(&[Destination4, Transport, DestinationPort], Set::DirectRange4)], Accept),
                Rule(&[V6, In(&[Destination6, Transport, DestinationPort], Set::DirectRange6)], Accept),
            ],
        },
        Chain {
            name: "from-network",
            hook: None,
            rules: [
                Rule(&[INVALID], Drop("no part of a connection")),
                Rule(&[In(&[InputName], Set::Internal)], Drop("from an internal network")),
                Rule(&[In(&[OutputName], Set::Internal)], Drop("to an internal network")),
                Rule(&[Translated], Accept),
            ]
            .into_iter()
            // before what would drop it, after what an internal network drops
            .chain(marked)
            .chain([
                Rule(&[V4, In(&[OutputName], Set::Open4)], Jump("direct")),
                Rule(&[V6, In(&[OutputName], Set::Open6)], Jump("direct")),
                Rule(&[In(&[OutputName], Set::Bridges)], Drop("from another network")),
            ])
            .collect(),
        },
        Chain {
            name: "to-network",
            hook: None,
            rules: [
                Rule(&[INVALID], Drop("no part of a connection")),
                Rule(&[In(&[OutputName], Set::Internal)], Drop("to an internal network")),
                Rule(&[Translated], Accept),
            ]
            .into_iter()
            // before what would drop it, after what an internal network drops
            .chain(marked)
            .chain([
                Rule(&[V4, In(&[OutputName], Set::Unprotected4)], Accept),
                Rule(&[V6, In(&[OutputName], Set::Unprotected6)], Accept),
                Rule(&[V4, ICMP, In(&[OutputName], Set::Open4)], Accept),
                Rule(&[V6, ICMP6, In(&[OutputName], Set::Open6)], Accept),
                Rule(&[V4, In(&[OutputName], Set::Open4)], Jump("direct")),
                Rule(&[V6, In(&[OutputName], Set::Open6)], Jump("direct")),
                Rule(&[In(&[InputName, OutputName], Set::Trusted)], Jump("direct")),
                Rule(&[], Drop("port not published")),
            ])
            .collect(),
        },
        Chain {
            name: "publish",
            hook: None,
            rules: vec![
                // What is published leads to other networks, and so nowhere from an internal one: not by the proxy either.
                Rule(&[In(&[InputName], Set::Internal)], Return),
                Rule(&[V4, TCP], Redirect(&[Destination4, DestinationPort], Set::Proxy4)),
                Rule(&[V6, TCP], Redirect(&[Destination6, DestinationPort], Set::Proxy6)),
                Rule(&[V4], Dnat(Ip::V4, &[Destination4, Transport, DestinationPort], Set::Single4, true)),
                Rule(&[V6], Dnat(Ip::V6, &[Destination6, Transport, DestinationPort], Set::Single6, true)),
                Rule(&[V4], Dnat(Ip::V4, &[Destination4, Transport, DestinationPort], Set::Range4, false)),
                Rule(&[V6], Dnat(Ip::V6, &[Destination6, Transport, DestinationPort], Set::Range6, false)),
                Rule(&[V4, TCP], Redirect(&[Destination4, DestinationPort], Set::ProxyRange4)),
                Rule(&[V6, TCP], Redirect(&[Destination6, DestinationPort], Set::ProxyRange6)),
                Rule(&[V4, TCP], Redirect(&[DestinationPort], Set::ProxyAny4)),
                Rule(&[V6, TCP], Redirect(&[DestinationPort], Set::ProxyAny6)),
                Rule(&[V4], Redirect(&[Transport, DestinationPort], Set::ProxyAnyRange4)),
                Rule(&[V6], Redirect(&[Transport, DestinationPort], Set::ProxyAnyRange6)),
                // no route leads from [::1] to another device, so what is left of it is the proxy's sockets'
                Rule(&[V6, Is(Destination6, LOCALHOST6, "::1")], Return),
                Rule(&[V4], Dnat(Ip::V4, &[Transport, DestinationPort], Set::Any4, true)),
                Rule(&[V6], Dnat(Ip::V6, &[Transport, DestinationPort], Set::Any6, true)),
                Rule(&[V4], Dnat(Ip::V4, &[Transport, DestinationPort], Set::AnyRange4, false)),
                Rule(&[V6], Dnat(Ip::V6, &[Transport, DestinationPort], Set::AnyRange6, false)),
            ],
        },
        Chain { name: "errors4", hook: None, rules: ERRORS4.map(|is| Rule(is, Jump("quoted4"))).into() },
        Chain { name: "errors6", hook: None, rules: vec![Rule(&[ERROR6], Jump("quoted6"))] },
        Chain {
            name: "quoted4",
            hook: None,
            rules: vec![
                Rule(&[In(&[InputName, Destination4], Set::Own4)], Return),
                Rule(&[In(&[InputName, Quoted4], Set::Own4)], Return),
                Rule(&[], Drop("about a flow of others")),
            ],
        },
        Chain {
            name: "quoted6",
            hook: None,
            rules: vec![
                Rule(&[In(&[InputName, Destination6], Set::Own6)], Return),
                Rule(&[In(&[InputName, Quoted6], Set::Own6)], Return),
                Rule(&[], Drop("about a flow of others")),
            ],
        },
        Chain {
            name: "carried",
            hook: None,
            rules: vec![
                Rule(&[V4, In(&[Destination4, DestinationPort], Set::Carried4)], Drop("from an internal network")),
                Rule(&[V6, In(&[Destination6, DestinationPort], Set::Carried6)], Drop("from an internal network")),
            ],
        },
        Chain {
            name: "raw",
            hook: base("filter", hook::PREROUTING, -300),
            rules: vec![
                Rule(&[NOT_LO, V4, TO_LOOPBACK], Drop("to the host's loopback from outside")),
                Rule(&[NOT_LO, V4, FROM_LOOPBACK], Drop("from a loopback address from outside")),
                Rule(&[TCP, In(&[DestinationPort], Set::ProxyPort), NOT_LO, Local], Drop("to the proxy itself")),
                // what is published leads to other networks: not by the proxy's own sockets either
                Rule(&[UDP, In(&[InputName], Set::Internal), Local], Jump("carried")),
                Rule(&[V4, ICMP, In(&[InputName], Set::Bridges)], Jump("errors4")),
                Rule(&[V6, ICMP6, In(&[InputName], Set::Bridges)], Jump("errors6")),
            ],
        },
        Chain {
            name: "arriving",
            hook: base("nat", hook::PREROUTING, -100),
            rules: vec![Rule(&[Local], Jump("publish"))],
        },
        Chain { name: "own", hook: base("nat", hook::OUTPUT, -100), rules: vec![Rule(&[Local], Jump("publish"))] },
        Chain { name: "forward", hook: base("filter", hook::FORWARD, 0), rules: forward },
        Chain {
            name: "foreign-gateway",
            hook: None,
            rules: vec![
                Rule(&[V4, UDP, In(&[Destination4, DestinationPort], Set::Carried4)], Return),
                Rule(&[V6, UDP, In(&[Destination6, DestinationPort], Set::Carried6)], Return),
                Rule(&[], Drop("to another network's gateway")),
            ],
        },
        Chain {
            name: "host",
            hook: base("filter", hook::INPUT, 0),
            rules: vec![
                Rule(&[ESTABLISHED], Accept),
                Rule(
                    &[
                        V4,
                        In(&[InputName], Set::Bridges),
                        In(&[Destination4], Set::Gateways4),
                        NotIn(&[InputName, Destination4], Set::Own4),
                    ],
                    Jump("foreign-gateway"),
                ),
                Rule(
                    &[
                        V6,
                        In(&[InputName], Set::Bridges),
                        In(&[Destination6], Set::Gateways6),
                        NotIn(&[InputName, Destination6], Set::Own6),
                    ],
                    Jump("foreign-gateway"),
                ),
            ],
        },
        Chain {
            name: "source",
            hook: base("nat", hook::POSTROUTING, 100),
            rules: vec![
                // by addresses: a frame that br_netfilter shows here has no input device
                Rule(&[V4, Translated, In(&[Source4, Destination4], Set::Hairpin4)], Masquerade),
                Rule(&[V6, Translated, In(&[Source6, Destination6], Set::Hairpin6)], Masquerade),
                Rule(&[V4, FROM_LOOPBACK, In(&[OutputName], Set::Bridges)], Masquerade),
                Rule(&[V4, NotIn(&[OutputName], Set::Bridges)], Snat(Ip::V4, &[InputName], Set::Outbound4)),
                Rule(&[V6, NotIn(&[OutputName], Set::Bridges)], Snat(Ip::V6, &[InputName], Set::Outbound6)),
                Rule(&[V4, In(&[InputName], Set::Masquerade4), NotIn(&[OutputName], Set::Bridges)], Masquerade),
                Rule(&[V6, In(&[InputName], Set::Masquerade6), NotIn(&[OutputName], Set::Bridges)], Masquerade),
            ],
        },
    ]
}

/// The chains of table bridge.
pub fn bridge_chains(variant: Variant) -> Vec<Chain> {
    use Act::*;
    use Match::*;
    let mut port = vec![
        // first, since a tag hides what is behind it from every match, and no receiver minds it
        Rule(&[Is(EtherType, &[0x81, 0], "8021q")], Drop("tagged frame")),
        Rule(&[Is(EtherType, &[0x88, 0xa8], "8021ad")], Drop("tagged frame")),
    ];
    if !variant.locked_ports {
        port.push(Rule(&[NotIn(&[InputName, EtherSource], Set::Macs)], Drop("not its hardware address")));
    }
    port.extend([
        Rule(&[ARP], Jump("arp")),
        Rule(&[FRAME6, ICMP6], Jump("icmp6")),
        Rule(&[FRAME4, ICMP, NotIn(&[InputName, Source4], Set::Addresses4)], Drop("not its address")),
        Rule(&[FRAME4, ICMP], Jump("icmp4")),
        Rule(&[In(&[InputName], Set::Strict)], Jump("strict")),
    ]);
    let mut chains = vec![
        Chain {
            name: "arp",
            hook: None,
            rules: vec![
                Rule(&[Is(ArpSender, &[0; 4], "0.0.0.0")], Return),
                Rule(&[NotIn(&[InputName, ArpSender], Set::Addresses4)], Drop("not its address")),
            ],
        },
        Chain {
            name: "icmp6",
            hook: None,
            rules: vec![
                Rule(&[Is(IcmpType, &[134], "nd-router-advert")], Drop("member as router")),
                Rule(&[Is(IcmpType, &[137], "nd-redirect")], Drop("member as router")),
                // nobody has use for these, and each would go to every port whenever a container starts
                Rule(&[Is(IcmpType, &[133], "nd-router-solicit")], Drop("of no use to anybody")),
                Rule(&[Is(IcmpType, &[143], "mld2-listener-report")], Drop("of no use to anybody")),
                Rule(
                    &[
                        Is(IcmpType, &[136], "nd-neighbor-advert"),
                        NotIn(&[InputName, AdvertisedTarget], Set::Addresses6),
                    ],
                    Drop("not its address"),
                ),
                Rule(&[ERROR6], Jump("error6")),
                Rule(&[Is(Source6, ANY6, "::")], Return),
                Rule(&[NotIn(&[InputName, Source6], Set::Addresses6)], Drop("not its address")),
            ],
        },
        Chain { name: "icmp4", hook: None, rules: ERRORS4.map(|is| Rule(is, Jump("error4"))).into() },
        // the last rule catches what a first fragment is too short to quote
        Chain {
            name: "error4",
            hook: None,
            rules: vec![
                Rule(&[In(&[InputName, Quoted4], Set::Addresses4)], Return),
                Rule(&[], Drop("about a flow of others")),
            ],
        },
        Chain {
            name: "error6",
            hook: None,
            rules: vec![
                Rule(&[In(&[InputName, Quoted6], Set::Addresses6)], Return),
                Rule(&[], Drop("about a flow of others")),
            ],
        },
        Chain {
            name: "strict",
            hook: None,
            rules: vec![
                Rule(&[FRAME4, NotIn(&[InputName, Source4], Set::Addresses4)], Drop("not its address")),
                Rule(&[FRAME6, Is(Source6, ANY6, "::")], Return),
                Rule(&[FRAME6, NotIn(&[InputName, Source6], Set::Addresses6)], Drop("not its address")),
            ],
        },
        Chain { name: "port", hook: None, rules: port },
        Chain {
            name: "frames",
            hook: base("filter", hook::PREROUTING, -300),
            rules: vec![Rule(&[In(&[InputName], Set::Ports)], Jump("port"))],
        },
    ];
    if variant.br_netfilter {
        let apart = Rule(
            &[
                In(&[InputName], Set::Isolated),
                In(&[OutputName], Set::Isolated),
                IsNot(Priority, PUBLISHED, "published"),
            ],
            Drop("members are kept apart"),
        );
        // After br_netfilter's own hook, at 0: it takes the frame through the firewall of IP, where it is marked, and goes
        // on with what comes later only.
        chains.push(Chain { name: "apart", hook: base("filter", hook::FORWARD, 1), rules: vec![apart] });
    }
    chains
}

/// Loads the parts of a key side by side, from the first register on.
fn load_key(fields: &[Field], out: &mut Vec<Expression>) {
    let mut register = 0;
    for field in fields {
        out.push(field.load(Register(register)));
        register += field.width().div_ceil(4) as u8;
    }
}

fn look_up(fields: &[Field], set: Set, into: Option<Register>, inverted: bool, out: &mut Vec<Expression>) {
    load_key(fields, out);
    out.push(Expression::Lookup { set: set.name().into(), key: Register(0), into, inverted });
}

/// A rule as the kernel's instructions.
pub fn compile(rule: &Rule) -> Vec<Expression> {
    const FIRST: Register = Register(0);
    let mut out = Vec::new();
    let compare = |out: &mut Vec<Expression>, equal: bool, value: &[u8]| {
        out.push(Expression::Compare { register: FIRST, equal, value: value.to_vec() });
    };
    for condition in rule.0 {
        match condition {
            Match::Protocol(ip) => {
                out.push(Expression::Meta { key: Meta::NetfilterProtocol, into: FIRST });
                compare(&mut out, true, &[if *ip == Ip::V4 { 2 } else { 10 }]);
            }
            Match::Is(field, value, _) => {
                out.push(field.load(FIRST));
                compare(&mut out, true, value);
            }
            Match::IsNot(field, value, _) => {
                out.push(field.load(FIRST));
                compare(&mut out, false, value);
            }
            Match::Masked(field, mask, value, _) => {
                out.push(field.load(FIRST));
                out.push(Expression::Mask { register: FIRST, mask: mask.to_vec() });
                compare(&mut out, true, value);
            }
            Match::In(fields, set) => look_up(fields, *set, None, false, &mut out),
            Match::NotIn(fields, set) => look_up(fields, *set, None, true, &mut out),
            Match::State(bits, _) => {
                // invalid is bit 0, established 1, related 2: NF_CT_STATE_BIT
                out.push(Expression::Track { key: Track::State, into: FIRST });
                out.push(Expression::Mask { register: FIRST, mask: bits.to_ne_bytes().to_vec() });
                compare(&mut out, false, &[0; 4]);
            }
            Match::Translated => {
                const DST_NAT: u32 = 1 << 5;
                out.push(Expression::Track { key: Track::Status, into: FIRST });
                out.push(Expression::Mask { register: FIRST, mask: DST_NAT.to_ne_bytes().to_vec() });
                compare(&mut out, false, &[0; 4]);
            }
            Match::Local => {
                const RTN_LOCAL: u32 = 2;
                out.push(Expression::DestinationType { into: FIRST });
                compare(&mut out, true, &RTN_LOCAL.to_ne_bytes());
            }
        }
    }
    match rule.1 {
        Act::Accept => out.push(Expression::Verdict(nft::Verdict::Accept)),
        Act::AcceptMarked(mark) => {
            out.push(Expression::Meta { key: Meta::Mark, into: FIRST });
            out.push(Expression::Mask { register: FIRST, mask: mark.mask.to_ne_bytes().to_vec() });
            compare(&mut out, true, &mark.value.to_ne_bytes());
            out.push(Expression::Verdict(nft::Verdict::Accept));
        }
        Act::Drop(_) => out.extend([Expression::Counter, Expression::Verdict(nft::Verdict::Drop)]),
        Act::Return => out.push(Expression::Verdict(nft::Verdict::Return)),
        Act::Jump(chain) => out.push(Expression::Verdict(nft::Verdict::Jump(chain.into()))),
        Act::Verdict(fields, map) => {
            load_key(fields, &mut out);
            out.push(Expression::VerdictMap { map: map.name().into(), key: FIRST });
        }
        Act::Dnat(ip, fields, map, with_port) => {
            look_up(fields, map, Some(FIRST), false, &mut out);
            let port = with_port.then_some(Register(if ip == Ip::V4 { 1 } else { 4 }));
            out.push(Expression::Dnat { ipv6: ip == Ip::V6, address: FIRST, port });
        }
        Act::Redirect(fields, map) => {
            look_up(fields, map, Some(FIRST), false, &mut out);
            out.push(Expression::Redirect { port: FIRST });
        }
        Act::Snat(ip, fields, map) => {
            look_up(fields, map, Some(FIRST), false, &mut out);
            out.push(Expression::Snat { ipv6: ip == Ip::V6, address: FIRST });
        }
        Act::Masquerade => out.push(Expression::Masquerade),
        Act::Note => {
            out.push(Expression::Load { value: PUBLISHED.to_vec(), into: FIRST });
            out.push(Expression::SetMeta { key: Meta::Priority, from: FIRST });
        }
    }
    out
}

/// What a rule says of itself in `nft list`.
pub fn comment(rule: &Rule) -> Option<&'static str> {
    match rule.1 {
        Act::Drop(why) => Some(why),
        _ => None,
    }
}

fn key_text(fields: &[Field]) -> String {
    fields.iter().map(|f| f.text()).collect::<Vec<_>>().join(" . ")
}

/// A rule as nft would have it.
pub fn render(rule: &Rule) -> String {
    let mut words: Vec<String> = Vec::new();
    for condition in rule.0 {
        words.push(match condition {
            Match::Protocol(Ip::V4) => "meta nfproto ipv4".into(),
            Match::Protocol(Ip::V6) => "meta nfproto ipv6".into(),
            Match::Is(field, _, text) => format!("{} {text}", field.text()),
            Match::IsNot(field, _, text) => format!("{} != {text}", field.text()),
            Match::Masked(field, _, _, text) => format!("{} {text}", field.text()),
            Match::In(fields, set) => format!("{} @{}", key_text(fields), set.name()),
            Match::NotIn(fields, set) => format!("{} != @{}", key_text(fields), set.name()),
            Match::State(_, names) => format!("ct state {names}"),
            Match::Translated => "ct status dnat".into(),
            Match::Local => "fib daddr type local".into(),
        });
    }
    words.push(match rule.1 {
        Act::Accept => "accept".into(),
        Act::AcceptMarked(mark) => format!("meta mark & {:#x} == {:#x} accept", mark.mask, mark.value),
        Act::Drop(why) => format!("counter drop comment \"{why}\""),
        Act::Return => "return".into(),
        Act::Jump(chain) => format!("jump {chain}"),
        Act::Verdict(fields, map) => format!("{} vmap @{}", key_text(fields), map.name()),
        Act::Dnat(ip, fields, map, with_port) => {
            let ip = if ip == Ip::V4 { "ip" } else { "ip6" };
            let to = if with_port { "addr . port" } else { "addr" };
            format!("dnat {ip} {to} to {} map @{}", key_text(fields), map.name())
        }
        Act::Redirect(fields, map) => format!("redirect to {} map @{}", key_text(fields), map.name()),
        Act::Snat(ip, fields, map) => {
            let ip = if ip == Ip::V4 { "ip" } else { "ip6" };
            format!("snat {ip} to {} map @{}", key_text(fields), map.name())
        }
        Act::Masquerade => "masquerade".into(),
        Act::Note => "meta priority set published".into(),
    });
    words.join(" ")
}

/// Both tables as text.
pub fn render_all(variant: Variant) -> String {
    let mut text = String::new();
    for (family, chains) in [(Family::Inet, inet_chains(variant)), (Family::Bridge, bridge_chains(variant))] {
        text += if family == Family::Inet { "table inet {\n" } else { "table bridge {\n" };
        for set in Set::ALL.iter().filter(|set| set.family() == family) {
            let what = if set.data().is_some() { "map" } else { "set" };
            let lengths: Vec<_> = set.key().iter().map(|(_, length)| length.to_string()).collect();
            let interval = if set.interval() { " interval" } else { "" };
            text += &format!("    {what} {} ({} bytes){interval}\n", set.name(), lengths.join(" . "));
        }
        for chain in chains {
            text += &format!("    chain {} {{\n", chain.name);
            if let Some(hook) = chain.hook {
                let number = ["prerouting", "input", "forward", "output", "postrouting"][hook.number as usize];
                text += &format!("        type {} hook {number} priority {}\n", hook.kind, hook.priority);
            }
            for rule in &chain.rules {
                text += &format!("        {}\n", render(rule));
            }
            text += "    }\n";
        }
        text += "}\n";
    }
    text
}

/// The name of the empty chain that says which rules a table has: a hash (FNV-1a) of their text.
pub fn schema(variant: Variant) -> String {
    let hash = render_all(variant)
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("schema-{hash:016x}")
}

/// What is in the sets, or shall be.
pub type Elements = BTreeSet<(Set, Element)>;

fn name_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// Parts side by side, each padded to four bytes.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(part);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

fn plain(key: Vec<u8>) -> Element {
    Element { key, end: None, data: None }
}

/// The elements of a network.
pub fn bridge_elements(bridge: &Bridge) -> Elements {
    let mut elements = Elements::new();
    let name = name_key(bridge.device.as_str());
    elements.insert((Set::Bridges, plain(name.clone())));
    if bridge.icc {
        let data = Some(Data::Verdict(nft::Verdict::Accept));
        elements.insert((Set::Links, Element { key: joined(&[&name, &name]), end: None, data }));
    }
    elements.extend(own_elements(bridge, &name));
    if bridge.internal {
        elements.insert((Set::Internal, plain(name)));
        return elements;
    }
    for (border, v6) in [(&bridge.border4, false), (&bridge.border6, true)] {
        let of_family = |four, six| if v6 { six } else { four };
        match border.outwards {
            Outwards::Own => {}
            Outwards::HostsAddress => {
                elements.insert((of_family(Set::Masquerade4, Set::Masquerade6), plain(name.clone())));
            }
            Outwards::Address(ip) => {
                let data = Some(Data::Value(octets(ip)));
                elements.insert((of_family(Set::Outbound4, Set::Outbound6), Element { data, ..plain(name.clone()) }));
            }
        }
        let open = match border.inwards {
            Inwards::Nothing => continue,
            Inwards::Published => of_family(Set::Open4, Set::Open6),
            Inwards::Everything => of_family(Set::Unprotected4, Set::Unprotected6),
        };
        elements.insert((open, plain(name.clone())));
    }
    for interface in &bridge.trusted {
        elements.insert((Set::Trusted, plain(joined(&[&name_key(interface.as_str()), &name]))));
    }
    for source in &bridge.subnets {
        for destination in &bridge.subnets {
            let set = match (source.addr(), destination.addr()) {
                (IpAddr::V4(_), IpAddr::V4(_)) => Set::Hairpin4,
                (IpAddr::V6(_), IpAddr::V6(_)) => Set::Hairpin6,
                _ => continue,
            };
            let key = joined(&[&octets(source.network()), &octets(destination.network())]);
            let end = Some(joined(&[&octets(source.broadcast()), &octets(destination.broadcast())]));
            elements.insert((set, Element { key, end, data: None }));
        }
    }
    elements
}

/// What is a network's own: its subnets, the link's own addresses, and the host's address on it, which others do not
/// use, unless every network may.
fn own_elements(bridge: &Bridge, name: &[u8]) -> Elements {
    let mut elements = Elements::new();
    // One of these may be the subnet: elements of an interval set must not overlap.
    let of_link = |net: &IpNet| matches!(net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    let nets = bridge.subnets.iter().filter(|net| !of_link(net)).map(|net| (net.network(), net.broadcast()));
    let link = (LINK6.0.into(), LINK6.1.into());
    for (first, last) in nets.chain([link]) {
        let set = if first.is_ipv4() { Set::Own4 } else { Set::Own6 };
        let (key, end) = (joined(&[name, &octets(first)]), Some(joined(&[name, &octets(last)])));
        elements.insert((set, Element { key, end, data: None }));
    }
    if !bridge.host_gateway {
        for gateway in bridge.gateways.iter().map(IpNet::addr) {
            let set = if gateway.is_ipv4() { Set::Gateways4 } else { Set::Gateways6 };
            elements.insert((set, plain(joined(&[&octets(gateway)]))));
        }
    }
    elements
}

/// fe80::/10 (RFC 4291, 2.5.6).
const LINK6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0xfebf, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX),
);

/// The link-local address that goes with a hardware address (RFC 4291, appendix A).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

/// The elements of an endpoint.
pub fn attachment_elements(attachment: &Attachment, variant: Variant) -> Elements {
    let mut elements = Elements::new();
    if attachment.on_parent.is_some() {
        return elements;
    }
    if attachment.isolated && variant.br_netfilter {
        elements.insert((Set::Isolated, plain(name_key(attachment.outer.as_str()))));
    }
    if attachment.trusted {
        return elements;
    }
    let port = name_key(attachment.outer.as_str());
    elements.insert((Set::Ports, plain(port.clone())));
    for address in addresses_with_link_local(attachment) {
        let set = if address.is_ipv4() { Set::Addresses4 } else { Set::Addresses6 };
        elements.insert((set, plain(joined(&[&port, &octets(address)]))));
    }
    if !variant.locked_ports {
        elements.insert((Set::Macs, plain(joined(&[&port, &attachment.mac.0]))));
    }
    if attachment.check_sources {
        elements.insert((Set::Strict, plain(port)));
    }
    elements
}

/// The elements of a sandbox with several endpoints: what a member of one of its networks sends to a published port of
/// its that leads to its address on another takes the gateway's address, or the answer would go straight to the client,
/// from an address that it did not ask. Each item is one endpoint's addresses.
pub fn shared_elements<'a>(endpoints: impl IntoIterator<Item = &'a [IpNet]>) -> Elements {
    let endpoints: Vec<&[IpNet]> = endpoints.into_iter().collect();
    let mut elements = Elements::new();
    for (n, published) in endpoints.iter().enumerate() {
        let others = endpoints.iter().enumerate().filter(|(other, _)| *other != n);
        for (client, to) in others.flat_map(|(_, nets)| nets.iter()).flat_map(|c| published.iter().map(move |p| (c, p)))
        {
            let set = match (client.addr(), to.addr()) {
                (from, to) if client.contains(&to) || from == to => continue, // a network's own element says so
                (IpAddr::V4(_), IpAddr::V4(_)) => Set::Hairpin4,
                (IpAddr::V6(_), IpAddr::V6(_)) => Set::Hairpin6,
                _ => continue,
            };
            let address = octets(to.addr());
            let key = joined(&[&octets(client.network()), &address]);
            let end = Some(joined(&[&octets(client.broadcast()), &address]));
            elements.insert((set, Element { key, end, data: None }));
        }
    }
    elements
}

/// An endpoint's addresses, with the link-local one that goes with IPv6.
pub fn addresses_with_link_local(attachment: &Attachment) -> impl Iterator<Item = IpAddr> + '_ {
    let addresses = attachment.addresses.iter().map(|net| net.addr());
    let ipv6 = addresses.clone().any(|ip| ip.is_ipv6());
    let asked_for = attachment.link_local.iter().map(|net| net.addr());
    addresses.chain(asked_for).chain(ipv6.then(|| link_local(attachment.mac).into()))
}

/// The elements that belong to nobody in particular.
pub fn base_elements(proxy: Option<u16>) -> Elements {
    proxy.map(|port| (Set::ProxyPort, plain(port.to_be_bytes().to_vec()))).into_iter().collect()
}

/// The container's own ports, for who may use them.
fn direct_elements(publication: &Publication) -> Elements {
    let Publication { protocol, count, container, container_port, .. } = *publication;
    let address = octets(container);
    let key = |port: u16| joined(&[&address, &[protocol.number()], &port.to_be_bytes()]);
    if count >= INTERVAL_FROM {
        let set = if container.is_ipv4() { Set::DirectRange4 } else { Set::DirectRange6 };
        let end = Some(key(container_port.wrapping_add(count - 1)));
        return [(set, Element { key: key(container_port), end, data: None })].into();
    }
    let set = if container.is_ipv4() { Set::Direct4 } else { Set::Direct6 };
    (0..count).map(|offset| (set, plain(key(container_port.wrapping_add(offset))))).collect()
}

/// The elements of published ports. Without `proxy`, nothing is served on [::1], or where host and container have no
/// family in common.
pub fn publication_elements(publication: &Publication, proxy: Option<u16>) -> Elements {
    let mut elements = Elements::new();
    let Publication { host, protocol, host_port, count, container, container_port, direct } = *publication;
    if direct {
        elements.extend(direct_elements(publication));
    }
    if host_port == 0 {
        return elements;
    }
    let mut proxied = |host: IpAddr| {
        let Some(proxy) = proxy.filter(|_| protocol == Protocol::Tcp) else { return };
        let data = Some(Data::Value(proxy.to_be_bytes().to_vec()));
        if count >= INTERVAL_FROM {
            let set = match (host.is_unspecified(), host) {
                (false, IpAddr::V4(_)) => Set::ProxyRange4,
                (false, IpAddr::V6(_)) => Set::ProxyRange6,
                (true, IpAddr::V4(_)) => Set::ProxyAnyRange4,
                (true, IpAddr::V6(_)) => Set::ProxyAnyRange6,
            };
            let first = if host.is_unspecified() { vec![protocol.number()] } else { octets(host) };
            let key = |port: u16| joined(&[&first, &port.to_be_bytes()]);
            let end = Some(key(host_port.wrapping_add(count - 1)));
            elements.insert((set, Element { key: key(host_port), end, data }));
            return;
        }
        let set = match (host.is_unspecified(), host) {
            (false, IpAddr::V4(_)) => Set::Proxy4,
            (false, IpAddr::V6(_)) => Set::Proxy6,
            (true, IpAddr::V4(_)) => Set::ProxyAny4,
            (true, IpAddr::V6(_)) => Set::ProxyAny6,
        };
        for offset in 0..count {
            let port = host_port.wrapping_add(offset).to_be_bytes();
            let key = if host.is_unspecified() { port.to_vec() } else { joined(&[&octets(host), &port]) };
            elements.insert((set, Element { key, end: None, data: data.clone() }));
        }
    };
    if host.is_ipv4() != container.is_ipv4() || host == IpAddr::V6(Ipv6Addr::LOCALHOST) {
        proxied(host);
        if protocol == Protocol::Udp && proxy.is_some() && count <= MOST_HELD {
            elements.insert(carried_element(publication));
        }
        return elements;
    }
    if host == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        proxied(Ipv6Addr::LOCALHOST.into());
    }

    let address = octets(host);
    let key = |port: u16| {
        let (protocol, port) = ([protocol.number()], port.to_be_bytes());
        if host.is_unspecified() { joined(&[&protocol, &port]) } else { joined(&[&address, &protocol, &port]) }
    };
    if count >= INTERVAL_FROM && host_port == container_port {
        let set = match (host.is_unspecified(), host) {
            (false, IpAddr::V4(_)) => Set::Range4,
            (false, IpAddr::V6(_)) => Set::Range6,
            (true, IpAddr::V4(_)) => Set::AnyRange4,
            (true, IpAddr::V6(_)) => Set::AnyRange6,
        };
        let (key, end) = (key(host_port), Some(key(host_port.wrapping_add(count - 1))));
        elements.insert((set, Element { key, end, data: Some(Data::Value(octets(container))) }));
        return elements;
    }
    let set = match (host.is_unspecified(), host) {
        (false, IpAddr::V4(_)) => Set::Single4,
        (false, IpAddr::V6(_)) => Set::Single6,
        (true, IpAddr::V4(_)) => Set::Any4,
        (true, IpAddr::V6(_)) => Set::Any6,
    };
    for offset in 0..count {
        let to = joined(&[&octets(container), &container_port.wrapping_add(offset).to_be_bytes()]);
        elements.insert((
            set,
            Element { key: key(host_port.wrapping_add(offset)), end: None, data: Some(Data::Value(to)) },
        ));
    }
    elements
}

/// UDP ports whose sockets the proxy reads, past the rules of what is published.
fn carried_element(publication: &Publication) -> (Set, Element) {
    let Publication { host, host_port, count, .. } = *publication;
    let set = if host.is_ipv4() { Set::Carried4 } else { Set::Carried6 };
    let first = octets(host);
    let last = if host.is_unspecified() { vec![0xff; first.len()] } else { first.clone() };
    let key = joined(&[&first, &host_port.to_be_bytes()]);
    let end = Some(joined(&[&last, &host_port.wrapping_add(count - 1).to_be_bytes()]));
    (set, Element { key, end, data: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_as_text() {
        let plain = Variant { locked_ports: true, br_netfilter: false, accept_mark: None };
        insta::assert_snapshot!("rules", render_all(plain));
        let accept_mark = "0x1/0x3".parse().ok();
        let other = Variant { locked_ports: false, br_netfilter: true, accept_mark };
        insta::assert_snapshot!("rules_without_locked_ports_with_br_netfilter", render_all(other));
        assert_ne!(schema(plain), schema(other));
    }

    fn publication(host: &str, first: u16, container: &str, to: u16, count: u16) -> Publication {
        Publication {
            host: host.parse().unwrap(),
            protocol: Protocol::Tcp,
            host_port: first,
            count,
            container: container.parse().unwrap(),
            container_port: to,
            direct: false,
        }
    }

    #[test]
    fn where_published_ports_go() {
        use Set::*;
        let check = |publication: Publication, proxy: Option<u16>, expected: &[(Set, usize)]| {
            let elements = publication_elements(&publication, proxy);
            let mut counted: Vec<(Set, usize)> = Vec::new();
            for (set, _) in &elements {
                match counted.last_mut() {
                    Some((last, count)) if last == set => *count += 1,
                    _ => counted.push((*set, 1)),
                }
            }
            assert_eq!(counted, expected, "{publication:?} with proxy {proxy:?}");
        };
        let (v4, v6) = ("10.0.0.2", "fd00::2");
        for proxy in [None, Some(999)] {
            check(publication("0.0.0.0", 80, v4, 80, 1), proxy, &[(Any4, 1)]);
            check(publication("127.0.0.1", 80, v4, 80, 1), proxy, &[(Single4, 1)]);
            check(publication("0.0.0.0", 80, v4, 80, 17), proxy, &[(AnyRange4, 1)]);
            check(publication("192.0.2.1", 80, v4, 80, 17), proxy, &[(Range4, 1)]);
            check(publication("0.0.0.0", 80, v4, 81, 17), proxy, &[(Any4, 17)]);
            check(publication("0.0.0.0", 80, v4, 80, 16), proxy, &[(Any4, 16)]);
            check(publication("2001:db8::1", 80, v6, 80, 1), proxy, &[(Single6, 1)]);
        }
        check(publication("::", 80, v6, 80, 1), None, &[(Any6, 1)]);
        check(publication("::", 80, v6, 80, 1), Some(999), &[(Any6, 1), (Proxy6, 1)]);
        check(publication("::1", 80, v6, 80, 1), Some(999), &[(Proxy6, 1)]);
        check(publication("::1", 80, v4, 80, 1), Some(999), &[(Proxy6, 1)]);
        check(publication("::", 80, v4, 80, 3), Some(999), &[(ProxyAny6, 3)]);
        check(publication("::", 80, v4, 80, 17), Some(999), &[(ProxyAnyRange6, 1)]);
        check(publication("::", 80, v6, 80, 17), Some(999), &[(AnyRange6, 1), (ProxyRange6, 1)]);
        check(publication("192.0.2.1", 80, v6, 81, 17), Some(999), &[(ProxyRange4, 1)]);
        check(publication("0.0.0.0", 80, v6, 80, 1), Some(999), &[(ProxyAny4, 1)]);
        check(publication("192.0.2.1", 80, v6, 80, 1), Some(999), &[(Proxy4, 1)]);
        check(publication("::", 80, v4, 80, 1), None, &[]);
        let udp = |publication| Publication { protocol: Protocol::Udp, ..publication };
        check(udp(publication("::", 80, v4, 80, 64)), Some(999), &[(Carried6, 1)]);
        check(udp(publication("::", 80, v4, 80, 65)), Some(999), &[]);
        check(udp(publication("192.0.2.1", 80, v6, 80, 1)), Some(999), &[(Carried4, 1)]);
        check(udp(publication("::", 80, v4, 80, 1)), None, &[]);
        check(publication("0.0.0.0", 65535, v4, 65535, 1), None, &[(Any4, 1)]);
        let direct = |publication| Publication { direct: true, ..publication };
        check(direct(publication("0.0.0.0", 80, v4, 81, 2)), None, &[(Direct4, 2), (Any4, 2)]);
        check(direct(publication("::", 0, v6, 80, 2)), Some(999), &[(Direct6, 2)]);
        check(direct(publication("::", 0, v6, 80, 17)), Some(999), &[(DirectRange6, 1)]);
    }

    #[test]
    fn link_local_addresses_are_made_of_hardware_addresses() {
        let mac = MacAddr([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]);
        assert_eq!(link_local(mac), "fe80::42:acff:fe11:2".parse::<Ipv6Addr>().unwrap());
    }
}
