//! The two tables in the kernel: claiming them, changing their elements, reading them back.
//!
//! Everything that changes them goes through one socket. Where the kernel knows ownership, nobody else's can: the
//! keeper holds that socket, so the tables outlive the daemon.

use crate::elements::Elements;
use crate::error::{Attempt, Error};
use crate::own;
use crate::ruleset::{self, Set, Variant};
use kernel::netlink::{Errno, Protocol, Refusal, Socket};
use kernel::nft::{self, Element, Family, OWNED, Table};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// Bytes of one transaction that the socket takes: 10,000 ports with room to spare.
const ROOM: i32 = 8 << 20;
const FAMILIES: [Family; 2] = [Family::Inet, Family::Bridge];

#[derive(Debug)]
pub(crate) struct Tables {
    name: String,
    owner: Mutex<Socket>,
    /// Answers to dumps never mix with a transaction's.
    reader: Mutex<Socket>,
    variant: Variant,
    owned: bool,
}

impl Tables {
    /// Takes over the socket of a predecessor, or opens one.
    pub(crate) fn open_socket(owner: Option<OwnedFd>) -> Result<Socket, Error> {
        let opened = match owner {
            Some(fd) => Socket::from_fd(fd),
            None => Socket::open(Protocol::Netfilter),
        };
        let socket = opened.attempt("open", "the socket of our firewall tables")?;
        socket.make_room(ROOM).attempt("widen", "the socket of our firewall tables")?;
        Ok(socket)
    }

    pub(crate) fn new(root: &str, owner: Socket, variant: Variant, owned: bool) -> Result<Self, Error> {
        let reader = Socket::open(Protocol::Netfilter).attempt("open", "a socket for reading firewall tables")?;
        let name = own::table(root);
        Ok(Self { name, owner: Mutex::new(owner), reader: Mutex::new(reader), variant, owned })
    }

    pub(crate) fn duplicate_owner(&self) -> Result<OwnedFd, Error> {
        self.lock(&self.owner).duplicate().attempt("duplicate", "the socket of our firewall tables")
    }

    fn lock<'a>(&self, socket: &'a Mutex<Socket>) -> std::sync::MutexGuard<'a, Socket> {
        socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self, family: Family) -> Table<'_> {
        Table { family, name: &self.name }
    }
    fn flags(&self) -> u32 {
        if self.owned { OWNED } else { 0 }
    }

    /// Makes the tables ours: claims them where a predecessor left them, keeps what is in them, and writes the rules
    /// anew only if they are not this version's.
    pub(crate) fn claim(&self) -> Result<(), Error> {
        let ours = self.lock(&self.owner).port().attempt("read", "the port of our netlink socket")?;
        let mut claim = nft::Batch::default();
        let mut stale = false;
        for family in FAMILIES {
            let tables = nft::tables(&mut self.lock(&self.reader), family).attempt("list", "firewall tables")?;
            match tables.into_iter().find(|table| table.name == self.name) {
                None => stale = true,
                Some(table) => match table.owner {
                    Some(owner) if owner == ours => {}
                    Some(_) => return Err(Error::TablesHeld { table: self.name.clone() }),
                    // a table that was made without these flags cannot take them on
                    None if self.owned && table.flags & OWNED != OWNED => stale |= table.flags & 4 == 0,
                    None => {}
                },
            }
            if !stale && self.owned {
                claim.add_table(self.table(family), OWNED);
            }
        }
        if !stale {
            claim.commit(&mut self.lock(&self.owner)).attempt("claim", format!("firewall table {}", self.name))?;
        }
        if stale || !self.is_current()? {
            let kept = self.read_all(true)?;
            self.rebuild(&kept)?;
        }
        Ok(())
    }

    /// Whether the tables are there with this version's rules, all of them.
    fn is_current(&self) -> Result<bool, Error> {
        let mut reader = self.lock(&self.reader);
        let schema = ruleset::schema(self.variant);
        for family in FAMILIES {
            let found = nft::chains(&mut reader, self.table(family)).attempt("list", "firewall chains")?;
            let rules = nft::rules(&mut reader, self.table(family));
            let rules = match rules {
                Err(refusal) if refusal.errno == Errno::NOENT => return Ok(false),
                other => other.attempt("list", "firewall rules")?,
            };
            let chains = self.chains(family);
            let complete = chains.iter().all(|chain| {
                found.iter().any(|name| name == chain.name)
                    && rules.iter().filter(|name| *name == chain.name).count() == chain.rules.len()
            });
            if !complete || !found.contains(&schema) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn chains(&self, family: Family) -> Vec<ruleset::Chain> {
        match family {
            Family::Inet => ruleset::inet_chains(self.variant),
            _ => ruleset::bridge_chains(self.variant),
        }
    }

    /// What is in the sets; `None` if rules or sets are missing.
    pub(crate) fn observe(&self) -> Result<Option<Elements>, Error> {
        if !self.is_current()? {
            return Ok(None);
        }
        match self.read_all(false) {
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    fn read_all(&self, missing_is_empty: bool) -> Result<Elements, Error> {
        let mut reader = self.lock(&self.reader);
        let mut all = Elements::new();
        for set in Set::ALL {
            match nft::elements(&mut reader, self.table(set.family()), set.name()) {
                Ok(elements) => all.extend(elements.into_iter().map(|element| (*set, element))),
                Err(refusal) if missing_is_empty && refusal.errno == Errno::NOENT => {}
                Err(refusal) => return Err(refusal).attempt("read", format!("firewall set {}", set.name())),
            }
        }
        Ok(all)
    }

    /// Writes everything anew, in one transaction: old rules, or new.
    pub(crate) fn rebuild(&self, elements: &Elements) -> Result<(), Error> {
        let thing = || format!("firewall table {}", self.name);
        let mut batch = nft::Batch::default();
        for family in FAMILIES {
            let table = self.table(family);
            let tables = nft::tables(&mut self.lock(&self.reader), family).attempt("list", "firewall tables")?;
            if tables.iter().any(|found| found.name == self.name) {
                batch.delete_table(table);
            }
            batch.add_table(table, self.flags());
            for set in Set::ALL.iter().filter(|set| set.family() == family) {
                batch.add_set(table, set.declaration());
            }
            batch.add_chain(table, &ruleset::schema(self.variant), None);
            let chains = self.chains(family);
            for chain in &chains {
                batch.add_chain(table, chain.name, chain.hook);
            }
            for chain in &chains {
                for rule in &chain.rules {
                    batch.add_rule(table, chain.name, &ruleset::compile(rule), ruleset::comment(rule));
                }
            }
        }
        self.put(&mut batch, elements);
        batch.commit(&mut self.lock(&self.owner)).attempt("write", thing())
    }

    fn put(&self, batch: &mut nft::Batch, elements: &Elements) {
        for (set, elements) in by_set(elements) {
            batch.add_elements(self.table(set.family()), set.name(), elements);
        }
    }
    fn take(&self, batch: &mut nft::Batch, elements: &Elements) {
        for (set, elements) in by_set(elements) {
            batch.delete_elements(self.table(set.family()), set.name(), elements);
        }
    }

    /// One transaction: takes these out, then puts those in.
    pub(crate) fn change(&self, out: &Elements, into: &Elements) -> Result<(), Refusal> {
        let mut batch = nft::Batch::default();
        self.take(&mut batch, out);
        self.put(&mut batch, into);
        batch.commit(&mut self.lock(&self.owner))
    }

    /// Takes these out, whether or not they are all there.
    pub(crate) fn remove(&self, elements: &Elements) -> Result<(), Refusal> {
        match self.change(elements, &Elements::new()) {
            Err(refused) if refused.errno == Errno::NOENT => {
                let mut there = Elements::new();
                for set in by_set(elements).keys() {
                    let found = nft::elements(&mut self.lock(&self.reader), self.table(set.family()), set.name());
                    match found {
                        Ok(found) => there.extend(found.into_iter().map(|element| (*set, element))),
                        Err(refused) if refused.errno == Errno::NOENT => {}
                        Err(refused) => return Err(refused),
                    }
                }
                self.change(&elements.intersection(&there).cloned().collect(), &Elements::new())
            }
            other => other,
        }
    }

    /// Deletes both tables: nothing of ours remains.
    pub(crate) fn delete(&self) -> Result<(), Error> {
        for family in FAMILIES {
            let mut batch = nft::Batch::default();
            batch.delete_table(self.table(family));
            let result = batch.commit(&mut self.lock(&self.owner));
            crate::error::unless_gone(result).attempt("delete", format!("firewall table {}", self.name))?;
        }
        Ok(())
    }
}

fn by_set(elements: &Elements) -> BTreeMap<Set, Vec<&Element>> {
    let mut sorted: BTreeMap<Set, Vec<&Element>> = BTreeMap::new();
    for (set, element) in elements {
        sorted.entry(*set).or_default().push(element);
    }
    sorted
}
