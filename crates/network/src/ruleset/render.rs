//! Rules as text: for the tests, and for the name of what a table has.

use super::language::{Act, Field, Ip, Match, Rule};
use super::sets::Set;
use super::{Variant, bridge_chains, inet_chains};
use kernel::nft::Family;

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
            Match::FromLocal => "fib saddr type local".into(),
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

/// The name of the empty chain that says which rules a table has: a hash of their text.
pub fn schema(variant: Variant) -> String {
    format!("schema-{:016x}", model::net::fnv1a(&render_all(variant)))
}
