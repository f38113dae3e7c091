//! The language of rules: what a packet has, when a rule applies, what it does.

use super::sets::Set;
use Field::*;
use kernel::nft::{Base, Expression, Hook, Meta, Register};
use model::daemon::Mark;

/// A part of a packet, or what the kernel knows about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    InputName,
    OutputName,
    /// The device by which the source is reached. Before routing only.
    SourceName,
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
    pub(super) const fn width(self) -> u32 {
        match self {
            InputName | OutputName | SourceName | Source6 | Destination6 | Quoted6 | AdvertisedTarget => 16,
            Source4 | Destination4 | Quoted4 | ArpSender | Priority => 4,
            EtherSource => 6,
            DestinationPort | SourcePort | EtherType => 2,
            Transport | IcmpType => 1,
        }
    }

    /// nft's number of the type, which only `nft list` reads.
    pub(super) const fn kind(self) -> u32 {
        match self {
            InputName | OutputName | SourceName => 41,
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

    pub(super) fn load(self, into: Register) -> Expression {
        let (base, offset) = match self {
            InputName => return Expression::Meta { key: Meta::InputName, into },
            OutputName => return Expression::Meta { key: Meta::OutputName, into },
            SourceName => return Expression::SourceDevice { into },
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

    pub(super) const fn text(self) -> &'static str {
        match self {
            InputName => "iifname",
            OutputName => "oifname",
            SourceName => "fib saddr oifname",
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
    /// The source is an address of this host.
    FromLocal,
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
