//! Rules as the kernel's instructions.

use super::PUBLISHED;
use super::language::{Act, Field, Ip, Match, Rule};
use super::sets::Set;
use kernel::nft::{self, Expression, Meta, Register, Track};

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

/// An address of this host (linux/rtnetlink.h).
const RTN_LOCAL: u32 = 2;

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
                out.push(Expression::DestinationType { into: FIRST });
                compare(&mut out, true, &RTN_LOCAL.to_ne_bytes());
            }
            Match::FromLocal => {
                out.push(Expression::SourceType { into: FIRST });
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
