//! Small words of networking: MAC addresses, interface names, transport protocols.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A 48-bit hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// A locally administered unicast address from six random bytes (BR-05).
    pub const fn local(mut random: [u8; 6]) -> Self {
        random[0] = random[0] & 0xfc | 0x02;
        Self(random)
    }

    /// The link-local address that goes with it (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
    }
}
impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid MAC address {0:?}: it must be six bytes, like 02:42:ac:11:00:02")]
pub struct NotAMac(String);

impl FromStr for MacAddr {
    type Err = NotAMac;
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let wrong = || NotAMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}
impl TryFrom<String> for MacAddr {
    type Error = NotAMac;
    fn try_from(text: String) -> Result<Self, NotAMac> {
        text.parse()
    }
}
impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

/// The name of a network interface: 1 to 15 bytes, no slash, no white space, not `.` or `..` (the kernel's
/// `dev_valid_name`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// Why a text is not an interface's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid interface name {0:?}: it must be 1 to 15 bytes without '/', ':', '%' or white space")]
pub struct NotAnInterfaceName(String);

impl InterfaceName {
    /// As the kernel has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for InterfaceName {
    type Err = NotAnInterfaceName;
    fn from_str(text: &str) -> Result<Self, NotAnInterfaceName> {
        let fits = (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            // The kernel makes a number of `%d`.
            && !text.bytes().any(|b| matches!(b, b'/' | b':' | b'%' | 0) || b.is_ascii_whitespace());
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAnInterfaceName(text.to_owned())) }
    }
}
impl TryFrom<String> for InterfaceName {
    type Error = NotAnInterfaceName;
    fn try_from(text: String) -> Result<Self, NotAnInterfaceName> {
        text.parse()
    }
}
impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> String {
        name.0
    }
}
impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}
impl Protocol {
    /// IANA's protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}
impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(format!("invalid proto: {text}")),
        }
    }
}

/// A text's hash that is the same in every build (FNV-1a): for names of what is derived from it, not against forgery.
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_read_back() {
        let mac: MacAddr = "02:42:ac:11:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!(mac.link_local(), "fe80::42:acff:fe11:2".parse::<Ipv6Addr>().unwrap());
        for wrong in ["", "02:42", "02:42:ac:11:00:02:03", "02:42:ac:11:00:0g", "2:42:ac:11:00:02"] {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
        assert_eq!(MacAddr::local([0xff; 6]).0[0] & 3, 2);
    }

    #[test]
    fn interface_names_are_the_kernels() {
        assert!("br-0123456789ab".parse::<InterfaceName>().is_ok());
        for wrong in ["", ".", "..", "a/b", "a b", "a%d", "0123456789abcdef"] {
            assert!(wrong.parse::<InterfaceName>().is_err(), "{wrong}");
        }
    }
}
