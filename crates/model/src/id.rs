//! Who is who: identities as newtypes, so that a network's id is never passed for a container's.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: it must be 64 hexadecimal digits")]
pub struct NotAnId(String);

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// An id from 32 random bytes: randomness is the caller's.
            pub const fn new(random: [u8; 32]) -> Self {
                Self(random)
            }
            /// Its 32 bytes.
            pub const fn bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// The first twelve hexadecimal digits, as people see them.
            pub fn short(&self) -> String {
                hex(&self.0[..6])
            }
            /// Whether the hexadecimal form begins with `prefix` (lower case).
            pub fn starts_with(&self, prefix: &str) -> bool {
                self.to_string().starts_with(prefix)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                unhex(text).map(Self).ok_or_else(|| NotAnId(text.to_owned()))
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identity!(
    /// A container, from `create` until `rm`.
    ContainerId
);
identity!(
    /// A network.
    NetworkId
);
identity!(
    /// One attachment of a container to a network: each attach has a fresh one, so no name in the kernel is ever
    /// used again before it is gone.
    EndpointId
);
identity!(
    /// A network namespace and its contents. A fresh one for each start without sharers.
    SandboxId
);
identity!(
    /// A command run inside a container beside its own (`exec`).
    ExecId
);

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |d: u8| match d {
            b'0'..=b'9' => Some(d - b'0'),
            b'a'..=b'f' => Some(d - b'a' + 10),
            _ => None,
        };
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// What all marks of one daemon's things in the kernel carry: eight hexadecimal digits, drawn once per root directory.
/// Links have the alias `isle:<root>:<id>`, cgroups and tables its digits, so a sweep needs no memory and touches
/// nothing of anybody else's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootId(String);

impl RootId {
    /// An id from four random bytes: randomness is the caller's.
    pub fn new(random: [u8; 4]) -> Self {
        Self(hex(&random))
    }
    /// The eight digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_knows_its_prefixes() {
        let id = ContainerId::new(std::array::from_fn(|i| i as u8 * 7));
        let text = id.to_string();
        assert_eq!(text.parse::<ContainerId>().unwrap(), id);
        assert_eq!(id.short(), text[..12]);
        assert!(id.starts_with(&text[..5]));
        for wrong in ["", "abc", &text[1..], &text.to_uppercase(), &format!("{text}0")] {
            if wrong != text {
                assert!(wrong.parse::<ContainerId>().is_err(), "{wrong}");
            }
        }
    }
}
