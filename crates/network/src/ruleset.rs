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
//! What belongs to a flow passes, so the first packet of one must not lie about who began it: from an address of a
//! network it comes by that network's bridge, and to one it leaves by it. From outside, where such an address may lie by
//! accident, it must be reached there. Inside a network members may take each other's names, where they reach each other
//! anyway; where they do not (`icc=false`), each port is held to its own addresses.
//!
//! Rules are written in a small language, which [`compile()`] turns into the kernel's instructions, and [`render`] into
//! text: the text is a snapshot in the tests, and its hash is the schema's version.

mod compile;
mod language;
mod render;
mod sets;

pub use compile::{comment, compile};
pub use language::{Chain, Rule};
pub use render::schema;
pub use sets::Set;

use kernel::nft::{Hook, hook};
use language::{Act, Field, Ip, Match};
use model::daemon::Mark;

use Field::*;

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

/// What a published port's packet has for a priority while it is bridged: containers cannot set one, since it is
/// cleared where a packet leaves a namespace.
const PUBLISHED: &[u8] = &0x1513_0001_u32.to_ne_bytes();

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
/// Of a bridge port: neither its own address nor one of its sandbox's on other networks.
const NOT_ITS4: Match = Match::NotIn(&[InputName, Source4], Set::Addresses4);
const NOT_ITS6: Match = Match::NotIn(&[InputName, Source6], Set::Addresses6);
const NOT_ELSEWHERE4: Match = Match::NotIn(&[InputName, Source4], Set::Elsewhere4);
const NOT_ELSEWHERE6: Match = Match::NotIn(&[InputName, Source6], Set::Elsewhere6);
const FRAME6: Match = Match::Is(EtherType, &[0x86, 0xdd], "ip6");

const INVALID: Match = Match::State(1, "invalid");
const ESTABLISHED: Match = Match::State(2 | 4, "established,related");

const fn base(kind: &'static str, number: u32, priority: i32) -> Option<Hook<'static>> {
    Some(Hook { kind, number, priority, device: None })
}

/// The chains of table inet.
pub fn inet_chains(variant: Variant) -> Vec<Chain> {
    use Act::*;
    use Match::*;
    let mut forward = vec![
        Rule(&[ESTABLISHED], Accept),
        Rule(&[In(&[InputName], Set::Bridges)], Jump("sources")),
        Rule(&[In(&[InputName], Set::Bridges)], Jump("destinations")),
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
            name: "sources",
            hook: None,
            rules: vec![
                Rule(
                    &[V4, In(&[Source4, Source4], Set::Subnets4), NotIn(&[InputName, Source4], Set::Own4)],
                    Drop("from an address of a network that it is not of"),
                ),
                Rule(
                    &[V6, In(&[Source6, Source6], Set::Subnets6), NotIn(&[InputName, Source6], Set::Own6)],
                    Drop("from an address of a network that it is not of"),
                ),
            ],
        },
        // A frame between neighbours, which br_netfilter shows here, may be addressed to somebody elsewhere.
        Chain {
            name: "destinations",
            hook: None,
            rules: vec![
                Rule(
                    &[
                        V4,
                        In(&[Destination4, Destination4], Set::Subnets4),
                        NotIn(&[OutputName, Destination4], Set::Own4),
                    ],
                    Drop("to an address of a network that it is not on"),
                ),
                Rule(
                    &[
                        V6,
                        In(&[Destination6, Destination6], Set::Subnets6),
                        NotIn(&[OutputName, Destination6], Set::Own6),
                    ],
                    Drop("to an address of a network that it is not on"),
                ),
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
                Rule(&[In(&[InputName, Quoted4], Set::Own4)], Return),
                // To its network, but not about another one.
                Rule(&[In(&[Quoted4, Quoted4], Set::Subnets4)], Drop("about a flow of others")),
                Rule(&[In(&[InputName, Destination4], Set::Own4)], Return),
                Rule(&[], Drop("about a flow of others")),
            ],
        },
        Chain {
            name: "quoted6",
            hook: None,
            rules: vec![
                Rule(&[In(&[InputName, Quoted6], Set::Own6)], Return),
                // To its network, but not about another one.
                Rule(&[In(&[Quoted6, Quoted6], Set::Subnets6)], Drop("about a flow of others")),
                Rule(&[In(&[InputName, Destination6], Set::Own6)], Return),
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
            // Who is outside may have an address of a network's by accident: then it is reached there.
            rules: vec![
                Rule(
                    &[
                        V4,
                        NotIn(&[InputName], Set::Bridges),
                        In(&[Source4, Source4], Set::Subnets4),
                        In(&[SourceName], Set::Bridges),
                    ],
                    Drop("from an address of a network that it is not of"),
                ),
                Rule(
                    &[V4, NotIn(&[InputName], Set::Bridges), In(&[Source4, Source4], Set::Subnets4), FromLocal],
                    Drop("from an address of a network that it is not of"),
                ),
                Rule(
                    &[
                        V6,
                        NotIn(&[InputName], Set::Bridges),
                        In(&[Source6, Source6], Set::Subnets6),
                        In(&[SourceName], Set::Bridges),
                    ],
                    Drop("from an address of a network that it is not of"),
                ),
                Rule(
                    &[V6, NotIn(&[InputName], Set::Bridges), In(&[Source6, Source6], Set::Subnets6), FromLocal],
                    Drop("from an address of a network that it is not of"),
                ),
                Rule(&[Local], Jump("publish")),
            ],
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
                Rule(&[In(&[InputName], Set::Bridges)], Jump("sources")),
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
        Rule(&[FRAME4, ICMP, NOT_ITS4, NOT_ELSEWHERE4], Drop("not its address")),
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
                Rule(&[NOT_ITS6, NOT_ELSEWHERE6], Drop("not its address")),
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
                Rule(&[FRAME4, NOT_ITS4, NOT_ELSEWHERE4], Drop("not its address")),
                Rule(&[FRAME6, Is(Source6, ANY6, "::")], Return),
                Rule(&[FRAME6, NOT_ITS6, NOT_ELSEWHERE6], Drop("not its address")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use render::render_all;

    #[test]
    fn the_rules_as_text() {
        let plain = Variant { locked_ports: true, br_netfilter: false, accept_mark: None };
        insta::assert_snapshot!("rules", render_all(plain));
        let accept_mark = "0x1/0x3".parse().ok();
        let other = Variant { locked_ports: false, br_netfilter: true, accept_mark };
        insta::assert_snapshot!("rules_without_locked_ports_with_br_netfilter", render_all(other));
        assert_ne!(schema(plain), schema(other));
    }
}
