//! What the daemon and the keeper say to each other: postcard messages on a `SOCK_SEQPACKET` socket.
//!
//! The daemon asks, the keeper answers each request with one [`Reply`], in order, so requests may be sent ahead; the
//! one thing the keeper says by itself is [`Reply::Died`]. One daemon at a time: a new connection closes the old one.
//!
//! ```text
//! daemon                                   keeper
//!   Hello{version}                    ──▶
//!                                     ◀──  Welcome{version, build, held}, a pidfd
//!   (for each thing held: Recall{key} ──▶, ◀── Recalled with its descriptors)
//!   Reset, Apply…, Watch…, Begin      ──▶  the whole, once
//!   Hold, Apply, Watch, Release …     ──▶  the difference, ever after
//!                                     ◀──  Done, or Failed
//! ```

#![warn(missing_docs)]

use model::id::{ContainerId, RootId, SandboxId};
use model::names::{Change, Questions};
use serde::{Deserialize, Serialize};

/// Raised with every change of a message.
pub const VERSION: u32 = 3;

/// What the daemon asks. The first three never change, so that a daemon can take over from a keeper of any version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Who asks: the first message, answered with [`Reply::Welcome`]. Another root than the keeper's own is refused.
    Hello {
        /// The asker's [`VERSION`].
        version: u32,
        /// Whose daemon it is.
        root: RootId,
    },
    /// Give duplicates of what you hold under `key`, from the `from`th on: as many as a message carries.
    Recall {
        /// What is asked for.
        key: Key,
        /// How many of them were had before, by earlier requests.
        from: usize,
    },
    /// Take nothing new, finish what is under way within a short time, then go: another keeper takes over, or none is
    /// needed.
    Retire,
    /// A snapshot follows: all zones, views, routes and watches. Until `Begin` answers go on from the old ones, and
    /// the old watches stay. What is held is no part of it.
    Reset,
    /// The snapshot is complete: it takes the place of what was known and watched before.
    Begin,
    /// Differences, applied in order and all at once. After `Reset` they are part of the snapshot.
    Apply {
        /// To zones and views, oldest first.
        changes: Vec<Change>,
    },
    /// Hold descriptors. Under [`Key::Sandbox`] they are `[network namespace, udp, tcp, …]`: the sockets are served
    /// as that sandbox's resolver. Those under [`Key::Proxy`] and [`Key::Datagrams`] are served by the proxy.
    /// `more` adds to what is held under the key already: a message carries a limited number.
    Hold {
        /// Under which they are given back.
        key: Key,
        /// Beside what is held under the key already, instead of in its place.
        more: bool,
    },
    /// Close what is held under a key; nothing held is no error.
    Release {
        /// Of what.
        key: Key,
    },
    /// When the process of this pidfd (the one descriptor) ends, apply `changes`, and say `Died`; in place of an earlier
    /// watch of the container. After `Reset` it is part of the snapshot.
    Watch {
        /// Whose process it is.
        container: ContainerId,
        /// What its end means, oldest first.
        changes: Vec<Change>,
    },
    /// Let go of a container's pidfd; none watched is no error.
    Unwatch {
        /// Whose.
        container: ContainerId,
    },
    /// How many questions were there?
    Count,
}

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// What is held from an earlier daemon. A keeper of another version or build is replaced. The keeper's own pidfd
    /// rides along, from version 2 on.
    Welcome {
        /// The keeper's [`VERSION`].
        version: u32,
        /// Which build of the program it runs.
        build: String,
        /// By which keys something is held.
        held: Vec<Key>,
    },
    /// The descriptors ride along.
    Recalled,
    /// Since this keeper was started (DNS-28).
    Counted(Questions),
    /// It is done, and there is nothing to say of it.
    Done,
    /// It is not done; what was before stays.
    Failed {
        /// For the daemon's log.
        why: String,
    },
    /// Not an answer: a watched process has ended, its changes are applied.
    Died {
        /// Whose process it was.
        container: ContainerId,
    },
}

/// What a held set of descriptors is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// The socket that owns the firewall's tables.
    TableOwner,
    /// A sandbox: its namespace and its resolver's sockets.
    Sandbox(SandboxId),
    /// The sockets that reserve a container's host ports.
    Ports(ContainerId),
    /// A container's pidfd and duplicates of its stdio.
    Process(ContainerId),
    /// The listening TCP socket of the proxy for [::1] and IPv6 to IPv4-only containers.
    Proxy,
    /// UDP sockets of a container's published ports that the proxy serves: the kernel cannot.
    Datagrams(ContainerId),
}

/// The bytes of a message.
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    postcard::to_stdvec(message).expect("every message has a form")
}

/// A message from its bytes.
///
/// # Errors
/// They are none: another version's, or garbage.
pub fn decode<'a, M: Deserialize<'a>>(bytes: &'a [u8]) -> Result<M, postcard::Error> {
    postcard::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back_and_garbage_is_refused() {
        let request = Request::Watch {
            container: ContainerId::new([7; 32]),
            changes: vec![Change::ViewGone { sandbox: SandboxId::new([9; 32]) }],
        };
        assert_eq!(decode::<Request>(&encode(&request)).unwrap(), request);
        assert!(decode::<Request>(&[0xff, 0xff]).is_err());
        assert!(decode::<Request>(&[]).is_err());
    }
}
