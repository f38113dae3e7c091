//! The sets and maps that rules look into, and what their keys are made of.

use super::language::Field;
use kernel::nft::{self, DataType, Family};

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
            pub(super) const fn key(self) -> &'static [(u32, u32)] {
                match self { $(Set::$set => sets!(@parts $key)),* }
            }
            pub(super) const fn data(self) -> Option<DataType<'static>> {
                match self { $(Set::$set => sets!(@data $data)),* }
            }
            pub(super) const fn interval(self) -> bool {
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
    /// The subnets of all networks: each twice, since the kernel's quick sets of intervals have keys of several parts.
    Subnets4 Inet "subnets4" [Source4 Source4] [] true,
    Subnets6 Inet "subnets6" [Source6 Source6] [] true,
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
    /// What a port's sandbox has for addresses on other networks: its answers may leave by this one.
    Elsewhere4 Bridge "elsewhere4" [InputName Source4] [] false,
    Elsewhere6 Bridge "elsewhere6" [InputName Source6] [] false,
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
