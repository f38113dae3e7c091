//! From a query to an answer: pure. What no zone knows is to be forwarded, unless a rule keeps it here.

use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::message_builder::{AdditionalBuilder, PushError};
use domain::base::{Message, MessageBuilder, Name, ParsedName, StaticCompressor, Ttl};
use domain::rdata::{A, Aaaa, Ptr};
use model::id::SandboxId;
use model::names::{Member, Names};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long a client may keep a name: the shortest that clients treat as ordinary.
const TTL: Ttl = Ttl::from_secs(1);

/// The answer size that EDNS promises (DNS flag day 2020): fits every path without fragments.
pub const EDNS_SIZE: u16 = 1232;

/// How the query came, which bounds the answer's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Reply(Vec<u8>),
    /// Ask upstream, and answer with [`refuse`] if that fails. `limit` is the largest answer the client takes.
    Forward {
        limit: usize,
    },
    /// Not a query: an answer, or less than a header. Answering could start a loop.
    Ignore,
}

/// Decides about one query. `shuffle` orders equal names: a random number.
pub fn answer(query: &[u8], names: &Names, sandbox: SandboxId, transport: Transport, shuffle: u64) -> Outcome {
    let Ok(message) = Message::from_octets(query) else { return Outcome::Ignore };
    if message.header().qr() {
        return Outcome::Ignore;
    }
    if message.header().opcode() != Opcode::QUERY {
        return reply(&message, Rcode::NOTIMP, None, limit(&message, transport));
    }
    let limit = limit(&message, transport);
    let Ok(question) = message.sole_question() else {
        return reply(&message, Rcode::FORMERR, None, limit);
    };
    if options(&message) > 1 {
        // RFC 6891, 6.1.1.
        return reply(&message, Rcode::FORMERR, None, limit);
    }
    if let Some(opt) = message.opt()
        && opt.version() > 0
    {
        // RFC 6891, 6.1.3.
        return bad_version(&message);
    }
    match question.qclass() {
        Class::IN | Class::ANY => {}
        // `version.bind` and friends are nobody's business (RFC 4892 leaves it to us).
        _ => return reply(&message, Rcode::REFUSED, None, limit),
    }
    let Some(view) = names.view(sandbox) else {
        return reply(&message, Rcode::SERVFAIL, None, limit);
    };
    if matches!(question.qtype(), Rtype::AXFR | Rtype::IXFR) {
        return reply(&message, Rcode::REFUSED, None, limit);
    }

    let Some(name) = plain_name(question.qname()) else { return Outcome::Forward { limit } };
    if name.is_empty() {
        return Outcome::Forward { limit };
    }
    // An address that is known has its name here; that it has no other type is known here, too, as with names.
    if let Some(holder) = reverse_address(&name).and_then(|address| names.reverse(view, address)) {
        let records = matches!(question.qtype(), Rtype::PTR | Rtype::ANY).then_some(Records::Name(holder));
        return reply(&message, Rcode::NOERROR, records, limit);
    }
    match names.find(view, &name) {
        // A name that is known has all its types here: one that it lacks is NODATA, never NXDOMAIN, and never
        // somebody else's answer (RFC 2308, 2.2; RFC 4074, 4.2; DNS-07).
        Some(members) => {
            let addresses = addresses(&members, question.qtype(), shuffle);
            reply(&message, Rcode::NOERROR, Some(Records::Addresses(addresses)), limit)
        }
        None if view.keep_single_labels && !name.contains('.') && is_address_type(question.qtype()) => {
            reply(&message, Rcode::NOERROR, None, limit)
        }
        None => Outcome::Forward { limit },
    }
}

/// An answer without records: for a query that could not be forwarded.
pub fn refuse(query: &[u8], rcode: Rcode) -> Option<Vec<u8>> {
    let message = Message::from_octets(query).ok()?;
    match reply(&message, rcode, None, usize::from(EDNS_SIZE)) {
        Outcome::Reply(bytes) => Some(bytes),
        _ => None,
    }
}

/// The question alone with the truncation bit: 'ask again by TCP' (RFC 2181, 9).
pub fn truncated(query: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = refuse(query, Rcode::NOERROR)?;
    Message::from_octets(&mut bytes).ok()?.header_mut().set_tc(true);
    Some(bytes)
}

enum Records {
    Addresses(Vec<IpAddr>),
    Name(String),
}

fn is_address_type(rtype: Rtype) -> bool {
    matches!(rtype, Rtype::A | Rtype::AAAA)
}

/// How many OPT records it has, where one can be.
fn options(message: &Message<&[u8]>) -> usize {
    message.additional().map_or(0, |section| section.flatten().filter(|record| record.rtype() == Rtype::OPT).count())
}

/// The largest answer: RFC 1035 4.2.1 without EDNS, what the client offers with it (at least 512: RFC 6891, 6.2.3),
/// and never more than 4096 bytes, whatever the client offers: the usual bound of servers, RFC 6891, 6.2.5.
fn limit(message: &Message<&[u8]>, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => message.opt().map_or(512, |opt| usize::from(opt.udp_payload_size()).clamp(512, 4096)),
    }
}

/// The name in lower case, without the trailing dot. None where a label holds a dot or is not ASCII: nobody here has
/// such a name.
fn plain_name(name: &ParsedName<&[u8]>) -> Option<String> {
    let mut text = String::new();
    for label in name.iter().filter(|l| !l.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label.as_ref() {
            if *byte == b'.' || !byte.is_ascii() {
                return None;
            }
            text.push(byte.to_ascii_lowercase() as char);
        }
    }
    Some(text)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035 3.5, RFC 3596 2.5).
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = digits.split('.').rev();
        for octet in &mut octets {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut value: u128 = 0;
    let mut count = 0;
    for nibble in digits.split('.').rev() {
        let digit = (nibble.len() == 1).then(|| u128::from_str_radix(nibble, 16).ok())??;
        value = value << 4 | digit;
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(value).into())
}

/// The addresses of the asked family, without duplicates, begun at a random one (DNS-05).
fn addresses(members: &[&Member], rtype: Rtype, shuffle: u64) -> Vec<IpAddr> {
    let mut list: Vec<IpAddr> = Vec::new();
    for member in members {
        let v4 = member.ipv4.filter(|_| matches!(rtype, Rtype::A | Rtype::ANY)).map(IpAddr::V4);
        let v6 = member.ipv6.filter(|_| matches!(rtype, Rtype::AAAA | Rtype::ANY)).map(IpAddr::V6);
        for address in v4.into_iter().chain(v6) {
            if !list.contains(&address) {
                list.push(address);
            }
        }
    }
    // Fisher-Yates over the bits of one random number (multiplied on by Knuth's MMIX constant).
    let mut random = shuffle;
    for at in (1..list.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        list.swap(at, (random >> 33) as usize % (at + 1));
    }
    list
}

fn reply(message: &Message<&[u8]>, rcode: Rcode, records: Option<Records>, limit: usize) -> Outcome {
    let built = build(message, rcode, records.as_ref(), limit).or_else(|_| build(message, rcode, None, limit));
    match built {
        Ok(bytes) => Outcome::Reply(bytes),
        // Not even the question fits 512 bytes: the header alone is the answer.
        Err(_) => Outcome::Reply(header_only(message, Rcode::FORMERR)),
    }
}

fn build(
    message: &Message<&[u8]>,
    rcode: Rcode,
    records: Option<&Records>,
    limit: usize,
) -> Result<Vec<u8>, PushError> {
    let mut builder = new_builder();
    builder.set_push_limit(limit - if message.opt().is_some() { 11 } else { 0 });
    let mut answer = match builder.start_answer(message, rcode) {
        Ok(answer) => answer,
        Err(_) => return Ok(header_only(message, Rcode::FORMERR)),
    };
    let header = answer.header_mut();
    header.set_ra(true);
    let mut cut = false;
    if let (Some(records), Ok(question)) = (records, message.sole_question()) {
        let owner = question.qname();
        match records {
            Records::Addresses(list) => {
                for address in list {
                    let pushed = match address {
                        IpAddr::V4(a) => answer.push((owner, Class::IN, TTL, A::new(*a))),
                        IpAddr::V6(a) => answer.push((owner, Class::IN, TTL, Aaaa::new(*a))),
                    };
                    cut |= pushed.is_err();
                }
            }
            Records::Name(name) => match name.parse::<Name<Vec<u8>>>() {
                Ok(name) => cut |= answer.push((owner, Class::IN, TTL, Ptr::new(name))).is_err(),
                Err(e) => tracing::debug!("{name} is not a name in DNS: {e}"),
            },
        }
    }
    answer.header_mut().set_tc(cut);
    let mut additional = answer.additional();
    if message.opt().is_some() {
        additional.clear_push_limit();
        push_opt(&mut additional, None)?;
    }
    Ok(additional.finish().into_target())
}

fn new_builder() -> MessageBuilder<StaticCompressor<Vec<u8>>> {
    MessageBuilder::from_target(StaticCompressor::new(Vec::with_capacity(512))).expect("a vector grows")
}

fn push_opt<T: domain::base::wire::Composer>(
    additional: &mut AdditionalBuilder<T>,
    rcode: Option<OptRcode>,
) -> Result<(), PushError> {
    additional.opt(|opt| {
        opt.set_udp_payload_size(EDNS_SIZE);
        if let Some(rcode) = rcode {
            opt.set_rcode(rcode);
        }
        Ok(())
    })
}

fn bad_version(message: &Message<&[u8]>) -> Outcome {
    let build = || -> Result<Vec<u8>, PushError> {
        let mut additional = new_builder().start_answer(message, Rcode::NOERROR)?.additional();
        push_opt(&mut additional, Some(OptRcode::BADVERS))?;
        Ok(additional.finish().into_target())
    };
    Outcome::Reply(build().unwrap_or_else(|_| header_only(message, Rcode::FORMERR)))
}

/// The twelve bytes of a header, for a query whose question cannot be read.
fn header_only(message: &Message<&[u8]>, rcode: Rcode) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes[..4].copy_from_slice(&message.as_slice()[..4]);
    let mut answer = Message::from_octets(&mut bytes).expect("twelve bytes are a header");
    let header = answer.header_mut();
    header.set_qr(true);
    header.set_aa(false);
    header.set_tc(false);
    header.set_ra(true);
    header.set_rcode(rcode);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::{ContainerId, EndpointId, NetworkId};
    use model::names::{Change, Upstreams, View};
    use std::collections::BTreeSet;

    fn network(n: u8) -> NetworkId {
        NetworkId::new([n; 32])
    }

    fn member(names: &[&str], ipv4: &str) -> Member {
        Member {
            container: ContainerId::new([1; 32]),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            ipv4: ipv4.parse().ok(),
            ipv6: None,
        }
    }

    fn view(networks: &[u8]) -> View {
        View {
            networks: networks.iter().map(|n| network(*n)).collect(),
            links: Default::default(),
            upstreams: Upstreams::Host,
            keep_single_labels: false,
        }
    }

    fn world() -> Names {
        let mut names = Names::default();
        let mut n = 0;
        let mut add = |net: u8, member: Member| {
            n += 1;
            names.apply(Change::Member { network: network(net), endpoint: EndpointId::new([n; 32]), member });
        };
        add(1, member(&["web", "pool", "c0ffee"], "10.0.1.2"));
        add(1, member(&["web2", "pool"], "10.0.1.3"));
        add(2, member(&["web.a"], "10.0.2.2"));
        add(3, member(&["web"], "10.0.3.2"));
        names.apply(Change::Zone { network: network(1), name: "Front".into() });
        names.apply(Change::Zone { network: network(2), name: "b.c".into() });
        names.apply(Change::Zone { network: network(3), name: "c".into() });
        names
    }

    fn names() -> (Names, SandboxId) {
        let sandbox = SandboxId::new([5; 32]);
        let mut names = world();
        names.apply(Change::View { sandbox, view: view(&[1]) });
        (names, sandbox)
    }

    fn query(name: &str, rtype: Rtype) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec().question();
        builder.header_mut().set_id(7);
        builder.header_mut().set_rd(true);
        builder.push((name.parse::<Name<Vec<u8>>>().unwrap(), rtype)).unwrap();
        builder.finish()
    }

    fn ask(names: &Names, sandbox: SandboxId, query: &[u8]) -> Message<Vec<u8>> {
        match answer(query, names, sandbox, Transport::Udp, 42) {
            Outcome::Reply(bytes) => Message::from_octets(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn answers(message: &Message<Vec<u8>>) -> BTreeSet<String> {
        let records = message.answer().unwrap().into_records::<domain::rdata::AllRecordData<_, _>>();
        records.map(|r| r.unwrap().data().to_string()).collect()
    }

    #[test]
    fn dns_04_names_are_found_in_any_case_and_with_a_trailing_dot() {
        let (names, sandbox) = names();
        for name in ["web", "WEB.", "wEb", "c0ffee", "web.front"] {
            let message = ask(&names, sandbox, &query(name, Rtype::A));
            assert_eq!(answers(&message), ["10.0.1.2".to_owned()].into(), "{name}");
            assert_eq!(message.header().rcode(), Rcode::NOERROR);
            assert!(message.header().ra() && message.header().rd() && message.header().qr());
            let asked = query(name, Rtype::A);
            let asked = Message::from_octets(&asked).unwrap();
            let same = asked.sole_question().unwrap().qname().to_string();
            assert_eq!(message.sole_question().unwrap().qname().to_string(), same, "0x20: the case comes back");
        }
    }

    #[test]
    fn dns_05_equal_names_are_all_answered_in_changing_order() {
        let (names, sandbox) = names();
        let mut first = BTreeSet::new();
        for shuffle in 0..32 {
            let Outcome::Reply(bytes) = answer(&query("pool", Rtype::A), &names, sandbox, Transport::Udp, shuffle)
            else {
                panic!("no reply")
            };
            let message = Message::from_octets(bytes).unwrap();
            assert_eq!(answers(&message).len(), 2);
            let mut records = message.answer().unwrap().limit_to::<A>();
            first.insert(records.next().unwrap().unwrap().data().to_string());
        }
        assert_eq!(first.len(), 2);
    }

    #[test]
    fn dns_07_a_known_name_without_the_asked_type_is_nodata() {
        let (names, sandbox) = names();
        for rtype in [Rtype::AAAA, Rtype::MX, Rtype::TXT, Rtype::HTTPS, Rtype::SRV] {
            let message = ask(&names, sandbox, &query("web", rtype));
            assert_eq!(message.header().rcode(), Rcode::NOERROR, "{rtype}");
            assert_eq!(message.header_counts().ancount(), 0);
        }
    }

    #[test]
    fn dns_09_addresses_resolve_back_and_foreign_ones_are_forwarded() {
        let (names, sandbox) = names();
        let message = ask(&names, sandbox, &query("2.1.0.10.in-addr.arpa", Rtype::PTR));
        assert_eq!(answers(&message), ["web.front.".to_owned()].into());
        for rtype in [Rtype::PTR, Rtype::A] {
            let foreign = answer(&query("2.2.0.10.in-addr.arpa", rtype), &names, sandbox, Transport::Udp, 0);
            assert_eq!(foreign, Outcome::Forward { limit: 512 });
        }
    }

    #[test]
    fn dns_09_types_that_a_known_address_lacks_are_nodata() {
        let (names, sandbox) = names();
        for rtype in [Rtype::A, Rtype::AAAA, Rtype::TXT, Rtype::SOA] {
            let message = ask(&names, sandbox, &query("2.1.0.10.in-addr.arpa", rtype));
            assert_eq!(message.header().rcode(), Rcode::NOERROR, "{rtype}");
            assert_eq!(message.header_counts().ancount(), 0, "{rtype}");
        }
        let message = ask(&names, sandbox, &query("2.1.0.10.in-addr.arpa", Rtype::ANY));
        assert_eq!(answers(&message), ["web.front.".to_owned()].into());
    }

    #[test]
    fn dns_10_unknown_names_are_forwarded() {
        let (names, sandbox) = names();
        for name in ["nobody", "web.c", "deb.debian.org", "."] {
            let outcome = answer(&query(name, Rtype::A), &names, sandbox, Transport::Tcp, 0);
            assert_eq!(outcome, Outcome::Forward { limit: 65535 }, "{name}");
        }
    }

    #[test]
    fn dns_15_single_labels_stay_here_when_the_user_set_ndots() {
        let (mut names, sandbox) = names();
        let mut kept = view(&[1]);
        kept.keep_single_labels = true;
        names.apply(Change::View { sandbox, view: kept });
        let message = ask(&names, sandbox, &query("nobody", Rtype::A));
        assert_eq!((message.header().rcode(), message.header_counts().ancount()), (Rcode::NOERROR, 0));
        let dotted = answer(&query("no.body", Rtype::A), &names, sandbox, Transport::Udp, 0);
        assert_eq!(dotted, Outcome::Forward { limit: 512 });
    }

    #[test]
    fn dns_19_what_does_not_fit_is_cut_and_says_so() {
        let (mut names, sandbox) = names();
        for n in 0..60 {
            let member = member(&["many"], &format!("10.0.1.{}", n + 10));
            names.apply(Change::Member { network: network(1), endpoint: EndpointId::new([n + 100; 32]), member });
        }
        let message = ask(&names, sandbox, &query("many", Rtype::A));
        assert!(message.header().tc() && message.as_slice().len() <= 512);
        let Outcome::Reply(bytes) = answer(&query("many", Rtype::A), &names, sandbox, Transport::Tcp, 0) else {
            panic!("no reply")
        };
        assert_eq!(Message::from_octets(bytes).unwrap().header_counts().ancount(), 60);
    }

    #[test]
    fn hostile_messages_get_an_error_or_nothing() {
        let (names, sandbox) = names();
        let ask = |bytes: &[u8]| answer(bytes, &names, sandbox, Transport::Udp, 0);
        assert_eq!(ask(&[]), Outcome::Ignore);
        assert_eq!(ask(&[0; 11]), Outcome::Ignore);
        let mut response = query("web", Rtype::A);
        response[2] |= 0x80;
        assert_eq!(ask(&response), Outcome::Ignore, "answers are not answered");
        let code = |bytes: &[u8]| match ask(bytes) {
            Outcome::Reply(bytes) => Message::from_octets(bytes).unwrap().header().rcode(),
            other => panic!("{other:?}"),
        };
        let mut two = query("web", Rtype::A);
        two[5] = 2;
        assert_eq!(code(&two), Rcode::FORMERR);
        let mut opts = query("web", Rtype::A);
        const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        opts.extend(OPT);
        opts[11] = 1;
        assert_eq!(code(&opts), Rcode::NOERROR);
        opts.extend(OPT);
        opts[11] = 2;
        assert_eq!(code(&opts), Rcode::FORMERR, "one of EDNS is enough");
        let mut update = query("web", Rtype::A);
        update[2] = 5 << 3;
        assert_eq!(code(&update), Rcode::NOTIMP);
        let mut chaos = query("version.bind", Rtype::TXT);
        let at = chaos.len() - 1;
        chaos[at] = 3;
        assert_eq!(code(&chaos), Rcode::REFUSED);
        assert_eq!(code(&query("web", Rtype::AXFR)), Rcode::REFUSED);
        // Every prefix and every single flipped byte of a good query: an answer or nothing, never a panic.
        let good = query("web.front", Rtype::A);
        for end in 0..good.len() {
            ask(&good[..end]);
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[end] ^= 1 << bit;
                ask(&flipped);
            }
        }
    }
}
