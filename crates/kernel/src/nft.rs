//! nftables, spoken directly (nfnetlink's NFNL_SUBSYS_NFTABLES, linux/netfilter/nf_tables.h).
//!
//! A [`Batch`] is one transaction: the kernel has the old rules or the new. An element costs 1 to 2 µs this way; a run
//! of `nft` costs 6 ms. Expressions are the kernel's own little instructions over registers; what they say together is
//! the business of whoever writes rules.

use crate::netlink::attribute::{self, Attributes};
use crate::netlink::{self, Answer, Message, Refusal, Socket, flag};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Before everything else, on one device.
    Netdev,
    /// Frames between ports of a bridge.
    Bridge,
}
impl Family {
    const fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Ip6 => 10,
            Family::Netdev => 5,
            Family::Bridge => 7,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Netdev => "netdev",
            Family::Bridge => "bridge",
        })
    }
}

/// A table by its family and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    /// Which packets it sees.
    pub family: Family,
    /// Unique in its family.
    pub name: &'a str,
}

/// Where packets enter a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook<'a> {
    /// `filter` or `nat`.
    pub kind: &'a str,
    /// `NF_INET_*`, `NF_BR_*` or `NF_NETDEV_*`.
    pub number: u32,
    /// The smaller, the earlier.
    pub priority: i32,
    /// Of a netdev chain.
    pub device: Option<&'a str>,
}

/// Hooks of the inet and bridge families.
pub mod hook {
    /// Whatever comes in, before it is known where it goes.
    pub const PREROUTING: u32 = 0;
    /// What is for this machine.
    pub const INPUT: u32 = 1;
    /// What passes through.
    pub const FORWARD: u32 = 2;
    /// What this machine sends.
    pub const OUTPUT: u32 = 3;
    /// Whatever goes out, at last.
    pub const POSTROUTING: u32 = 4;
    /// Of the netdev family.
    pub const INGRESS: u32 = 0;
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// This chain lets it pass; those after it may not.
    Accept,
    /// It is gone.
    Drop,
    /// Back to whence one came; from a hook's chain, its policy.
    Return,
    /// To a chain, and back at its end.
    Jump(String),
    /// To a chain, and not back.
    Goto(String),
}
impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Jump(_) => -3,
            Verdict::Goto(_) => -4,
            Verdict::Return => -5,
        }
    }
    fn write(&self, m: &mut Message<'_>) {
        const VERDICT: u16 = 2;
        m.nest(VERDICT, |m| {
            m.be32(1, self.code() as u32);
            if let Verdict::Jump(chain) | Verdict::Goto(chain) = self {
                m.text(2, chain);
            }
        });
    }
    fn read(bytes: &[u8]) -> Option<Self> {
        let attributes = Attributes(bytes);
        let chain = || attributes.clone().find(2).map(attribute::text);
        match attribute::be32(attributes.clone().find(1)?) as i32 {
            0 => Some(Verdict::Drop),
            1 => Some(Verdict::Accept),
            -3 => chain().map(Verdict::Jump),
            -4 => chain().map(Verdict::Goto),
            -5 => Some(Verdict::Return),
            _ => None,
        }
    }
}

/// A register of four bytes: 0 to 15. Longer values lie in those that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);
impl Register {
    const fn number(self) -> u32 {
        8 + self.0 as u32
    }
}

/// Where an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The hardware's header.
    Link = 0,
    /// IP's header.
    Network = 1,
    /// The header after that.
    Transport = 2,
}

/// What the kernel knows about a packet beside its bytes (NFT_META_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The EtherType.
    Protocol = 1,
    /// Of the queue.
    Priority = 2,
    /// What somebody has marked it with.
    Mark = 3,
    /// The device that it came by.
    InputName = 6,
    /// The device that it goes by.
    OutputName = 7,
    /// Of the hook: IPv4, IPv6 …
    NetfilterProtocol = 15,
    /// IANA's number.
    TransportProtocol = 16,
}

/// What connection tracking knows (NFT_CT_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// New, established, related …
    State = 0,
    /// Bits: translated, confirmed …
    Status = 2,
}

/// One instruction of a rule. `into` is the register that it writes, those of other names are read; offsets and lengths are
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "above it stands what its fields are")]
pub enum Expression {
    /// Reads what the kernel knows about a packet.
    Meta { key: Meta, into: Register },
    /// Reads what connection tracking knows.
    Track { key: Track, into: Register },
    /// Reads bytes of the packet.
    Payload { base: Base, offset: u32, length: u32, into: Register },
    /// Writes bytes of the packet, and mends the checksum at this offset of the transport header.
    SetPayload { base: Base, offset: u32, length: u32, from: Register, checksum: u32 },
    /// Writes what the kernel knows about a packet.
    SetMeta { key: Meta, from: Register },
    /// The name of the device by which the source is reached; empty where it is nobody's, or this host's. Before routing.
    SourceDevice {
        /// Where to.
        into: Register,
    },
    /// What kind of address the source is (RTN_*).
    SourceType {
        /// Where to.
        into: Register,
    },
    /// What kind of address the destination is (RTN_*).
    DestinationType { into: Register },
    /// Keeps those bits of a register that the mask has.
    Mask { register: Register, mask: Vec<u8> },
    /// Goes on if a register has the value (or has it not, without `equal`).
    Compare { register: Register, equal: bool, value: Vec<u8> },
    /// Goes on if the set has the key (or has it not, `inverted`); a map's value goes to a register.
    Lookup { set: String, key: Register, into: Option<Register>, inverted: bool },
    /// Does what the map says for the key; goes on if it says nothing.
    VerdictMap { map: String, key: Register },
    /// Writes a value.
    Load { value: Vec<u8>, into: Register },
    /// Decides.
    Verdict(Verdict),
    /// The destination becomes this address, and port.
    Dnat { ipv6: bool, address: Register, port: Option<Register> },
    /// The source becomes this address.
    Snat { ipv6: bool, address: Register },
    /// The source becomes the address of the device that it goes by.
    Masquerade,
    /// To this machine itself, at a port.
    Redirect { port: Register },
    /// Connection tracking leaves the packet alone.
    NoTrack,
    /// Counts packets and bytes that come this far.
    Counter,
}

impl Expression {
    fn write(&self, m: &mut Message<'_>) {
        let name = match self {
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Track { .. } => "ct",
            Self::Payload { .. } | Self::SetPayload { .. } => "payload",
            Self::DestinationType { .. } | Self::SourceType { .. } | Self::SourceDevice { .. } => "fib",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Load { .. } | Self::Verdict(_) => "immediate",
            Self::Dnat { .. } | Self::Snat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Redirect { .. } => "redir",
            Self::NoTrack => "notrack",
            Self::Counter => "counter",
        };
        m.nest(1, |m| {
            m.text(1, name).nest(2, |m| self.write_data(m));
        });
    }

    fn write_data(&self, m: &mut Message<'_>) {
        match self {
            Self::Meta { key, into } => {
                m.be32(1, into.number()).be32(2, *key as u32);
            }
            Self::SetMeta { key, from } => {
                m.be32(3, from.number()).be32(2, *key as u32);
            }
            Self::Track { key, into } => {
                m.be32(1, into.number()).be32(2, *key as u32);
            }
            Self::Payload { base, offset, length, into } => {
                m.be32(1, into.number()).be32(2, *base as u32).be32(3, *offset).be32(4, *length);
            }
            Self::SetPayload { base, offset, length, from, checksum } => {
                m.be32(5, from.number()).be32(2, *base as u32).be32(3, *offset).be32(4, *length);
                m.be32(6, 1).be32(7, *checksum);
            }
            Self::DestinationType { into } => {
                m.be32(1, into.number()).be32(2, 3).be32(3, 1 << 1);
            }
            Self::SourceType { into } => {
                m.be32(1, into.number()).be32(2, 3).be32(3, 1);
            }
            Self::SourceDevice { into } => {
                m.be32(1, into.number()).be32(2, 2).be32(3, 1);
            }
            Self::Mask { register, mask } => {
                m.be32(1, register.number()).be32(2, register.number()).be32(3, mask.len() as u32);
                m.nest(4, |m| value(m, mask)).nest(5, |m| value(m, &vec![0; mask.len()]));
            }
            Self::Compare { register, equal, value: bytes } => {
                m.be32(1, register.number()).be32(2, u32::from(!equal)).nest(3, |m| value(m, bytes));
            }
            Self::Lookup { set, key, into, inverted } => {
                m.text(1, set).be32(2, key.number());
                if let Some(into) = into {
                    m.be32(3, into.number());
                }
                if *inverted {
                    m.be32(5, 1);
                }
            }
            Self::VerdictMap { map, key } => {
                m.text(1, map).be32(2, key.number()).be32(3, 0);
            }
            Self::Load { value: bytes, into } => {
                m.be32(1, into.number()).nest(2, |m| value(m, bytes));
            }
            Self::Verdict(verdict) => {
                m.be32(1, 0).nest(2, |m| verdict.write(m));
            }
            Self::Dnat { ipv6, address, port } => {
                let family = if *ipv6 { libc::AF_INET6 } else { libc::AF_INET };
                m.be32(1, 1).be32(2, family as u32).be32(3, address.number());
                if let Some(port) = port {
                    m.be32(5, port.number());
                }
            }
            Self::Snat { ipv6, address } => {
                let family = if *ipv6 { libc::AF_INET6 } else { libc::AF_INET };
                m.be32(1, 0).be32(2, family as u32).be32(3, address.number());
            }
            Self::Redirect { port } => {
                m.be32(1, port.number());
            }
            Self::Masquerade | Self::NoTrack | Self::Counter => {}
        }
    }
}

fn value(m: &mut Message<'_>, bytes: &[u8]) {
    m.attr(1, bytes);
}

/// A set or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    /// Unique in its table.
    pub name: &'a str,
    /// The parts of a key: each with its type (nft's number, for `nft list` alone) and its length in bytes.
    pub key: &'a [(u32, u32)],
    /// What an element leads to.
    pub data: Option<DataType<'a>>,
    /// Elements are ranges; needs two parts at least.
    pub interval: bool,
}

/// What a map's elements lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType<'a> {
    /// To what is decided.
    Verdict,
    /// To values: parts as those of a key.
    Value(&'a [(u32, u32)]),
}

fn type_number(parts: &[(u32, u32)]) -> u32 {
    parts.iter().fold(0, |sum, (part, _)| sum << 6 | part)
}
fn padded_length(parts: &[(u32, u32)]) -> u32 {
    match parts {
        [(_, length)] => *length,
        parts => parts.iter().map(|(_, length)| length.next_multiple_of(4)).sum(),
    }
}

/// An element of a set or map. Parts of a key, and of a value, are each padded to four bytes where there are several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Or the first one of a range.
    pub key: Vec<u8>,
    /// The last key of a range, part by part.
    pub end: Option<Vec<u8>>,
    /// What it leads to, in a map.
    pub data: Option<Data>,
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// To what is decided.
    Verdict(Verdict),
    /// To a value.
    Value(Vec<u8>),
}

/// Bytes of elements in one message: a list is an attribute, and one of those holds 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 48 * 1024;

const NEWTABLE: u8 = 0;
const GETTABLE: u8 = 1;
const DELTABLE: u8 = 2;
const NEWCHAIN: u8 = 3;
const GETCHAIN: u8 = 4;
const NEWRULE: u8 = 6;
const GETRULE: u8 = 7;
const NEWSET: u8 = 9;
const NEWSETELEM: u8 = 12;
const GETSETELEM: u8 = 13;
const DELSETELEM: u8 = 14;

const fn kind(message: u8) -> u16 {
    10 << 8 | message as u16
}
const fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// A table that only the process with its socket may change, and that outlives it (5.12 and 6.9).
pub const OWNED: u32 = 2 | 4;

/// A transaction.
#[derive(Clone, Debug)]
pub struct Batch {
    messages: netlink::Batch,
    sets: u32,
}

impl Default for Batch {
    fn default() -> Self {
        let mut messages = netlink::Batch::default();
        messages.message(16, 0, &[0, 0, 0, 10]);
        Self { messages, sets: 0 }
    }
}

impl Batch {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.messages.len() == 1
    }

    /// Makes a table, or claims one: `flags` is 0 or [`OWNED`].
    ///
    /// The kernel answers `EOPNOTSUPP` where it does not know the flags, or where the table was made without them;
    /// `EPERM` where it is somebody else's.
    pub fn add_table(&mut self, table: Table<'_>, flags: u32) {
        let fixed = header(table.family.number());
        self.messages.message(kind(NEWTABLE), flag::CREATE, &fixed).text(1, table.name).be32(2, flags);
    }

    /// `ENOENT` if there is none.
    pub fn delete_table(&mut self, table: Table<'_>) {
        self.messages.message(kind(DELTABLE), 0, &header(table.family.number())).text(1, table.name);
    }

    /// Makes a chain, with a hook that accepts what no rule decides about, or one that others jump to. One that is there is
    /// no error.
    pub fn add_chain(&mut self, table: Table<'_>, name: &str, hook: Option<Hook<'_>>) {
        let fixed = header(table.family.number());
        let mut message = self.messages.message(kind(NEWCHAIN), flag::CREATE, &fixed);
        message.text(1, table.name).text(3, name);
        if let Some(hook) = hook {
            message.nest(4, |m| {
                m.be32(1, hook.number).be32(2, hook.priority as u32);
                if let Some(device) = hook.device {
                    m.text(3, device);
                }
            });
            message.text(7, hook.kind).be32(5, 1);
        }
    }

    /// Appends a rule to a chain.
    /// `comment` is what `nft list` shows beside the rule; at most 127 bytes.
    pub fn add_rule(&mut self, table: Table<'_>, chain: &str, expressions: &[Expression], comment: Option<&str>) {
        let fixed = header(table.family.number());
        let mut message = self.messages.message(kind(NEWRULE), flag::CREATE | flag::APPEND, &fixed);
        message.text(1, table.name).text(2, chain).nest(4, |m| expressions.iter().for_each(|e| e.write(m)));
        if let Some(comment) = comment {
            // libnftnl's NFTNL_UDATA_RULE_COMMENT: type 0, length, a text with its end.
            let length = u8::try_from(comment.len() + 1).expect("a short comment");
            message.attr(7, &[&[0, length], comment.as_bytes(), &[0]].concat());
        }
    }

    /// Makes a set or a map.
    pub fn add_set(&mut self, table: Table<'_>, set: Set<'_>) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        const CONCAT: u32 = 0x80;
        self.sets += 1;
        let mut flags = 0;
        flags |= if set.interval { INTERVAL } else { 0 };
        flags |= if set.data.is_some() { MAP } else { 0 };
        flags |= if set.key.len() > 1 { CONCAT } else { 0 };
        let fixed = header(table.family.number());
        let mut message = self.messages.message(kind(NEWSET), flag::CREATE, &fixed);
        message.text(1, table.name).text(2, set.name).be32(3, flags);
        message.be32(4, type_number(set.key)).be32(5, padded_length(set.key));
        match set.data {
            Some(DataType::Verdict) => {
                message.be32(6, 0xffff_ff00).be32(7, 16);
            }
            Some(DataType::Value(parts)) => {
                message.be32(6, type_number(parts)).be32(7, padded_length(parts));
            }
            None => {}
        }
        if set.key.len() > 1 {
            message.nest(9, |m| {
                m.nest(2, |m| {
                    for (_, length) in set.key {
                        m.nest(1, |m| {
                            m.be32(1, *length);
                        });
                    }
                });
            });
        }
        message.be32(10, self.sets);
    }

    /// Puts elements into a set. One that is there with the same value is left as it is; the kernel answers `EEXIST`
    /// if it has another value, or overlaps.
    pub fn add_elements<'e>(&mut self, table: Table<'_>, set: &str, elements: impl IntoIterator<Item = &'e Element>) {
        self.elements(NEWSETELEM, flag::CREATE, table, set, elements);
    }

    /// Takes elements out of a set. The kernel answers `ENOENT` if one is not there.
    pub fn delete_elements<'e>(
        &mut self,
        table: Table<'_>,
        set: &str,
        elements: impl IntoIterator<Item = &'e Element>,
    ) {
        self.elements(DELSETELEM, 0, table, set, elements);
    }

    fn elements<'e>(
        &mut self,
        what: u8,
        flags: u16,
        table: Table<'_>,
        set: &str,
        elements: impl IntoIterator<Item = &'e Element>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let mut message = self.messages.message(kind(what), flags, &header(table.family.number()));
            message.text(1, table.name).text(2, set).nest(3, |m| {
                let mut room = ELEMENTS_PER_MESSAGE;
                while let Some(element) = elements.next_if(|_| room > 0) {
                    room = room.saturating_sub(64 + 3 * element.key.len());
                    m.nest(1, |m| element.write(m));
                }
            });
        }
    }

    /// Does it all, or nothing.
    ///
    /// # Errors
    /// The first refusal; its message counts from the first act of the batch.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), Refusal> {
        if self.is_empty() {
            return Ok(());
        }
        self.messages.message(17, 0, &[0, 0, 0, 10]);
        socket.transact(self.messages).map_err(|mut refusal| {
            refusal.message = refusal.message.and_then(|index| index.checked_sub(1));
            refusal
        })
    }
}

impl Element {
    fn write(&self, m: &mut Message<'_>) {
        m.nest(1, |m| value(m, &self.key));
        if let Some(end) = &self.end {
            m.nest(10, |m| value(m, end));
        }
        match &self.data {
            Some(Data::Value(bytes)) => {
                m.nest(2, |m| value(m, bytes));
            }
            Some(Data::Verdict(verdict)) => {
                m.nest(2, |m| verdict.write(m));
            }
            None => {}
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let attributes = Attributes(bytes);
        let part = |kind| attributes.clone().find(kind).and_then(|v| Attributes(v).find(1));
        let data = attributes.clone().find(2).and_then(|data| {
            let data = Attributes(data);
            let verdict = data.clone().find(2).and_then(Verdict::read).map(Data::Verdict);
            verdict.or_else(|| Some(Data::Value(data.find(1)?.to_vec())))
        });
        Some(Self { key: part(1)?.to_vec(), end: part(10).map(<[u8]>::to_vec), data })
    }
}

/// A table that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTable {
    /// Unique in its family.
    pub name: String,
    /// `NFT_TABLE_F_*`.
    pub flags: u32,
    /// The socket that owns it, where one does.
    pub owner: Option<u32>,
}

fn request(what: u8, family: Family) -> (netlink::Batch, [u8; 4], u16) {
    (netlink::Batch::default(), header(family.number()), kind(what))
}
fn attributes(answer: Answer<'_>, what: u8) -> Option<Attributes<'_>> {
    (answer.kind == kind(what)).then(|| Attributes(answer.body.get(4..).unwrap_or_default()))
}

/// The multicast group that hears of changes (NFNLGRP_NFTABLES).
pub const GROUP: u32 = 7;

/// The table that a message to [`GROUP`] says has lost a chain, a rule, a set, or itself.
pub fn bereft(heard: Answer<'_>) -> Option<String> {
    const DELCHAIN: u8 = 5;
    const DELRULE: u8 = 8;
    const DELSET: u8 = 11;
    let lost = [DELTABLE, DELCHAIN, DELRULE, DELSET].into_iter().any(|what| heard.kind == kind(what));
    lost.then(|| Attributes(heard.body.get(4..)?).find(1).map(attribute::text)).flatten()
}

/// All tables of a family.
pub fn tables(socket: &mut Socket, family: Family) -> Result<Vec<FoundTable>, Refusal> {
    let (mut batch, fixed, kind) = request(GETTABLE, family);
    batch.message(kind, 0, &fixed);
    socket.dump(&batch, |answer| {
        let attributes = attributes(answer, NEWTABLE)?;
        Some(FoundTable {
            name: attributes.clone().find(1).map(attribute::text)?,
            flags: attributes.clone().find(2).map_or(0, attribute::be32),
            owner: attributes.find(7).map(attribute::be32),
        })
    })
}

/// The names of a table's chains.
pub fn chains(socket: &mut Socket, table: Table<'_>) -> Result<Vec<String>, Refusal> {
    let (mut batch, fixed, kind) = request(GETCHAIN, table.family);
    batch.message(kind, 0, &fixed);
    socket.dump(&batch, |answer| {
        let attributes = attributes(answer, NEWCHAIN)?;
        let ours = attributes.clone().find(1).map(attribute::text).as_deref() == Some(table.name);
        ours.then(|| attributes.find(3).map(attribute::text)).flatten()
    })
}

/// A chain that drops by its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppingChain {
    /// Which packets it sees.
    pub family: Family,
    /// Where it is.
    pub table: String,
    /// What it is called there.
    pub chain: String,
}

/// The chains at a hook of the inet family, anybody's, whose policy is to drop.
pub fn dropping_chains(socket: &mut Socket, at: u32) -> Result<Vec<DroppingChain>, Refusal> {
    const DROP: u32 = 0;
    let mut found = Vec::new();
    for family in [Family::Inet, Family::Ip, Family::Ip6] {
        let (mut batch, fixed, kind) = request(GETCHAIN, family);
        batch.message(kind, 0, &fixed);
        found.extend(socket.dump(&batch, |answer| {
            let attributes = attributes(answer, NEWCHAIN)?;
            let hook = Attributes(attributes.clone().find(4)?).find(1).map(attribute::be32)?;
            let policy = attributes.clone().find(5).map(attribute::be32)?;
            let drops = hook == at && policy == DROP;
            drops.then_some(DroppingChain {
                family,
                table: attributes.clone().find(1).map(attribute::text)?,
                chain: attributes.find(3).map(attribute::text)?,
            })
        })?);
    }
    Ok(found)
}

/// The chain of each of a table's rules.
pub fn rules(socket: &mut Socket, table: Table<'_>) -> Result<Vec<String>, Refusal> {
    let (mut batch, fixed, kind) = request(GETRULE, table.family);
    batch.message(kind, 0, &fixed).text(1, table.name);
    socket.dump(&batch, |answer| {
        let attributes = attributes(answer, NEWRULE)?;
        let ours = attributes.clone().find(1).map(attribute::text).as_deref() == Some(table.name);
        ours.then(|| attributes.find(2).map(attribute::text)).flatten()
    })
}

/// The elements of a set.
///
/// # Errors
/// `ENOENT` if there is no such set.
pub fn elements(socket: &mut Socket, table: Table<'_>, set: &str) -> Result<Vec<Element>, Refusal> {
    let (mut batch, fixed, kind) = request(GETSETELEM, table.family);
    batch.message(kind, 0, &fixed).text(1, table.name).text(2, set);
    let lists = socket.dump(&batch, |answer| {
        let attributes = attributes(answer, NEWSETELEM)?;
        let elements = Attributes(attributes.find(3)?).filter_map(|(_, bytes)| Element::read(bytes));
        Some(elements.collect::<Vec<_>>())
    })?;
    Ok(lists.into_iter().flatten().collect())
}
