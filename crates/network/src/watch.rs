//! Hearing that somebody took something of ours away: a foreign `nft flush ruleset` where tables cannot be owned, a
//! bridge deleted by hand; and that an uplink may have come. Whoever hears it acts.

use crate::error::{Attempt, Error};
use crate::own;
use kernel::netlink::{Errno, Protocol, Socket};
use kernel::{address, link, nft};
use model::id::RootId;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Two sockets to wait on; [`Watch::read`] says what was lost.
#[derive(Debug)]
pub struct Watch {
    root: RootId,
    tables: Socket,
    links: Socket,
}

/// What somebody took away, or brought.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Rules or sets of ours. Our own rewriting of them is heard too.
    Rules,
    /// Rules of a table that others keep for others, too: iptables' `filter`, and firewalld's.
    Foreign,
    /// A bridge or a port of ours, by its name. Our own deleting is heard too.
    Link(String),
    /// The host has an IPv6 address more: what has it may be an uplink, and has to forward.
    Uplink,
    /// The kernel said more than there was room for: anything may be lost.
    Unknown,
}

impl Watch {
    pub(crate) fn open(root: &RootId) -> Result<Self, Error> {
        let open = |protocol, group| {
            let socket = Socket::open(protocol)?;
            socket.join(group)?;
            Ok::<_, std::io::Error>(socket)
        };
        let tables = open(Protocol::Netfilter, nft::GROUP).attempt("watch", "the firewall")?;
        let links = open(Protocol::Route, link::GROUP).attempt("watch", "interfaces")?;
        links.join(address::GROUP6).attempt("watch", "addresses")?;
        Ok(Self { root: root.clone(), tables, links })
    }

    /// Readable when there may be something to [`Watch::read`].
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.tables.as_fd(), self.links.as_fd()]
    }

    /// What was lost since the last call, each once; never waits.
    pub fn read(&mut self) -> Result<Vec<Loss>, Error> {
        let mut losses = Vec::new();
        let table = own::table(self.root.as_str());
        let heard = self.tables.hear(|message| match nft::bereft(message).as_deref() {
            Some(name) if name == table => losses.push(Loss::Rules),
            Some("filter" | "firewalld") => losses.push(Loss::Foreign),
            _ => {}
        });
        overflow(heard, &mut losses).attempt("hear of", "the firewall")?;
        let mark = own::alias(self.root.as_str(), "");
        let heard = self.links.hear(|message| {
            let ours = link::gone(message).filter(|l| l.alias.as_deref().is_some_and(|a| a.starts_with(&mark)));
            losses.extend(ours.map(|link| Loss::Link(link.name)));
            let is_far = |ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            losses.extend(address::parse(message).filter(|a| is_far(a.ip)).map(|_| Loss::Uplink));
        });
        overflow(heard, &mut losses).attempt("hear of", "interfaces")?;
        losses.sort();
        losses.dedup();
        Ok(losses)
    }
}

fn overflow(heard: Result<(), Errno>, losses: &mut Vec<Loss>) -> Result<(), Errno> {
    match heard {
        Err(Errno::NOBUFS) => {
            losses.push(Loss::Unknown);
            Ok(())
        }
        other => other,
    }
}
