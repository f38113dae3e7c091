//! Legacy links: on the default network, `--link web:db` gives a container a line in its hosts file and variables.

use crate::error::{Error, Result};
use crate::state::State;
use crate::store::Write;
use crate::{Engine, Kind};
use model::container::Container;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

impl Engine {
    /// Takes a legacy link away: at the next start its owner is not linked any more.
    ///
    /// # Errors
    /// There is no such container or link.
    pub async fn remove_link(self: &Arc<Self>, owner: &str, alias: &str) -> Result<()> {
        let (name, alias) = (owner.to_owned(), alias.to_owned());
        self.in_turn(owner, move |engine, id| async move {
            let record = {
                let mut state = engine.state();
                let record = &mut state.entry_mut(id)?.record;
                let mut links = record.host.links.clone().unwrap_or_default();
                let before = links.len();
                links.retain(|link| alias_of(link) != alias);
                if links.len() == before {
                    return Err(Error::new(Kind::NotFound, format!("No such link: /{name}/{alias}")));
                }
                record.host.links = Some(links).filter(|l| !l.is_empty());
                record.clone()
            };
            engine.store.commit(vec![Write::Container(Box::new(record))]).await?;
            Ok(())
        })
        .await
    }
}

impl Engine {
    /// Tells those that are linked to a container where it is now (BR-14). A link whose target is gone stays as it was.
    pub(crate) fn tell_linkers(&self, target: &Container) {
        let Some(network) = target.endpoints.iter().find(|e| e.network_name == "bridge").and_then(|e| e.network) else {
            return;
        };
        let linkers: Vec<Container> = {
            let state = self.state();
            let members = state.containers.values().map(|e| &e.record).filter(|record| record.state.is_running());
            let linked = members.filter(|record| {
                let here = record.endpoints.iter().any(|e| e.network == Some(network));
                let mut targets = record.host.links.iter().flatten().map(|link| target_of(link));
                here && targets.any(|name| state.resolve(name).is_ok_and(|id| id == target.id))
            });
            linked.cloned().collect()
        };
        for linker in linkers {
            if let Err(e) = self.write_files(&linker) {
                tracing::warn!(container = ?linker.id, "its link to {} is not up to date: {e}", target.name);
            }
        }
    }
}

/// Where a link, `target:alias`, leads.
fn target_of(link: &str) -> &str {
    link.split_once(':').map_or(link, |(target, _)| target)
}

/// The name that a link, `target:alias`, has for its owner.
fn alias_of(link: &str) -> &str {
    let (_, alias) = link.split_once(':').unwrap_or((link, link));
    alias.rsplit('/').next().unwrap_or(alias)
}

/// A container that another one is linked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The name of the one that has the link.
    pub owner: String,
    pub alias: String,
    pub address: Option<Ipv4Addr>,
    /// Of the one it leads to.
    pub hostname: String,
    pub name: String,
    pub env: Vec<String>,
    /// Keys like `80/tcp`.
    pub ports: Vec<String>,
}

/// The links of a container on the default network, in the order they were given.
///
/// # Errors
/// One leads to nobody, or to a container that does not run.
pub fn links(state: &State, record: &Container) -> Result<Vec<Link>> {
    let on_default = record.endpoints.iter().any(|e| e.network_name == "bridge" && e.active.is_some());
    let given = record.host.links.iter().flatten().filter(|_| on_default);
    given
        .map(|link| {
            let alias = alias_of(link);
            let entry = state.find(target_of(link))?;
            let address = entry.record.endpoints.iter().find(|e| e.network_name == "bridge");
            let address = address.and_then(|e| e.active.as_ref()?.ipv4()).ok_or_else(|| {
                Error::conflict(format!("Cannot link to a non running container: /{} AS /{alias}", entry.record.name))
            })?;
            Ok(Link {
                owner: record.name.clone(),
                alias: alias.to_owned(),
                address: Some(address.addr()),
                hostname: entry.record.config.hostname.clone(),
                name: entry.record.name.clone(),
                env: entry.record.config.env.clone(),
                ports: entry.record.config.exposed_ports.keys().cloned().collect(),
            })
        })
        .collect()
}

/// The variables of all links of a container.
///
/// # Errors
/// As [`links`].
pub fn environment(state: &State, record: &Container) -> Result<Vec<String>> {
    Ok(links(state, record)?.iter().flat_map(Link::environment).collect())
}

impl Link {
    /// The line of the hosts file: an address and its names.
    pub fn hosts_line(&self) -> (String, String) {
        let address = self.address.map(|a| a.to_string()).unwrap_or_default();
        (address, format!("{} {} {}", self.alias, self.hostname, self.name))
    }

    /// The variables, in Docker's order: the lowest port, all ports, the name, the other's variables.
    pub fn environment(&self) -> Vec<String> {
        let alias = self.alias.to_uppercase().replace('-', "_");
        let address = self.address.map(|a| a.to_string()).unwrap_or_default();
        // By number, and tcp before the others.
        let mut ports: BTreeMap<(u16, bool, &str), ()> = BTreeMap::new();
        for key in &self.ports {
            let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
            if let Ok(port) = port.parse() {
                ports.insert((port, protocol != "tcp", protocol), ());
            }
        }
        let mut env = Vec::new();
        if let Some((port, _, protocol)) = ports.keys().next() {
            env.push(format!("{alias}_PORT={protocol}://{address}:{port}"));
        }
        for (port, _, protocol) in ports.keys() {
            let name = format!("{alias}_PORT_{port}_{}", protocol.to_uppercase());
            env.push(format!("{name}={protocol}://{address}:{port}"));
            env.push(format!("{name}_ADDR={address}"));
            env.push(format!("{name}_PORT={port}"));
            env.push(format!("{name}_PROTO={protocol}"));
        }
        env.push(format!("{alias}_NAME=/{}/{}", self.owner, self.alias));
        for variable in &self.env {
            if let Some((key, value)) = variable.split_once('=')
                && !matches!(key, "HOME" | "PATH")
            {
                env.push(format!("{alias}_ENV_{key}={value}"));
            }
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_dockers_variables() {
        let link = Link {
            owner: "app".into(),
            alias: "my-db".into(),
            address: Some(Ipv4Addr::new(172, 17, 0, 2)),
            hostname: "4220ed8b5f8c".into(),
            name: "l1".into(),
            env: vec!["PATH=/bin".into(), "MODE=fast=1".into()],
            ports: vec!["9000/udp".into(), "80/udp".into(), "80/tcp".into()],
        };
        let env = link.environment();
        assert_eq!(env[0], "MY_DB_PORT=tcp://172.17.0.2:80");
        assert_eq!(env[1], "MY_DB_PORT_80_TCP=tcp://172.17.0.2:80");
        assert_eq!(env[5], "MY_DB_PORT_80_UDP=udp://172.17.0.2:80");
        assert_eq!(env[9], "MY_DB_PORT_9000_UDP=udp://172.17.0.2:9000");
        assert_eq!(env[10..12], ["MY_DB_PORT_9000_UDP_ADDR=172.17.0.2", "MY_DB_PORT_9000_UDP_PORT=9000"]);
        assert_eq!(env[12], "MY_DB_PORT_9000_UDP_PROTO=udp");
        assert_eq!(env[13..], ["MY_DB_NAME=/app/my-db", "MY_DB_ENV_MODE=fast=1"]);
        assert_eq!(link.hosts_line(), ("172.17.0.2".into(), "my-db 4220ed8b5f8c l1".into()));
    }
}
