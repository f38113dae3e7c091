//! What is in the kernel: it is read to find drift, never to learn what we meant.

use crate::elements::Elements;
use crate::error::{Attempt, Error};
use crate::tables::Tables;
use kernel::address::{self, Address};
use kernel::link::{self, Link};
use kernel::neighbour::{self, Neighbour};
use kernel::netlink::Socket;
use std::collections::{BTreeMap, BTreeSet};

/// The host's side of networks, as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// By name: all of the host's, ours and others'.
    pub links: BTreeMap<String, Link>,
    pub addresses: Vec<Address>,
    /// Permanent ones.
    pub neighbours: BTreeSet<Neighbour>,
    /// Port, hardware address, and whether it sticks.
    pub forwarding: BTreeSet<(u32, [u8; 6], bool)>,
    /// `None`: the firewall's tables are missing, or not with this version's rules.
    pub elements: Option<Elements>,
}

pub(crate) fn observe(route: &mut Socket, tables: &Tables) -> Result<Observed, Error> {
    let links = link::list(route).attempt("list", "interfaces")?;
    Ok(Observed {
        // whether anybody is at the other end is no setting
        links: links.into_iter().map(|link| (link.name.clone(), Link { operstate: 0, ..link })).collect(),
        addresses: address::list(route).attempt("list", "addresses")?,
        neighbours: neighbour::list(route).attempt("list", "neighbours")?.into_iter().collect(),
        forwarding: neighbour::list_static_forwarding(route)
            .attempt("list", "forwarding entries")?
            .into_iter()
            .collect(),
        elements: tables.observe()?,
    })
}
