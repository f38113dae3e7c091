//! The files that a container finds in /etc: hosts, resolv.conf and hostname.

use crate::error::{Error, Kind, Result};
use crate::links::{Link, links};
use crate::state::State;
use crate::{Engine, naming};
use model::container::{Container, NetworkMode};
use model::files::{Asks, HostResolv, Hosts, edit_hosts, is_systemds_stub, resolv_conf};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// What the host's own files say.
struct OfHost {
    resolv_conf: Servers,
    hosts: String,
    /// It has IPv6 at all.
    ipv6: bool,
}

/// The host's resolv.conf, and systemd-resolved's with the servers behind its stub.
struct Servers {
    stated: String,
    behind: String,
}

impl Servers {
    /// A container on the default network cannot ask the host's stub: it is told of those that the stub asks (DNS-11).
    fn for_who(&self, asks: Asks) -> HostResolv {
        let stated = HostResolv::parse(&self.stated);
        let behind = HostResolv::parse(&self.behind);
        let is_behind = asks == Asks::Servers && is_systemds_stub(&stated) && !behind.nameservers.is_empty();
        if is_behind { behind } else { stated }
    }
}

impl Engine {
    /// Writes the container's `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`. They are bind-mounted, so they are
    /// written in place. What was edited in the container stays until its next start: a resolv.conf whole (DNS-17), and
    /// lines of hosts that are not ours (DNS-22).
    pub(crate) fn write_files(&self, record: &Container) -> Result<()> {
        let directory = self.container_dir(record.id);
        let failed = |e: std::io::Error| {
            Error::new(Kind::Internal, format!("cannot write the files of container {}: {e}", record.name))
        };
        let files = match record.host.network_mode() {
            // Whoever shares the network sees its owner's files.
            NetworkMode::Container(other) => {
                let owner = self.container_dir(self.state().resolve(other)?);
                NAMES.map(|name| std::fs::read(owner.join(name)).unwrap_or_default())
            }
            _ => {
                let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
                let resolv_conf =
                    Servers { stated: read(&self.settings.resolv_conf), behind: read(&self.settings.resolved_conf) };
                let of_host =
                    OfHost { resolv_conf, hosts: read("/etc/hosts".as_ref()), ipv6: self.network.features().ipv6 };
                render(&self.state(), record, of_host)?.map(String::into_bytes)
            }
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        for (name, text) in NAMES.iter().zip(files) {
            let (file, ours) = (directory.join(name), directory.join(format!(".{name}")));
            let known = if record.state.pid == 0 { None } else { read_both(&file, &ours) };
            let edited = match (*name, known) {
                ("resolv.conf", Some((now, before))) if now != before => continue,
                ("hosts", Some((now, before))) => {
                    edit_hosts(&now, &before, &String::from_utf8_lossy(&text)).into_bytes()
                }
                _ => text.clone(),
            };
            if *name != "hostname" {
                std::fs::write(ours, &text).map_err(failed)?;
            }
            std::fs::write(&file, edited).map_err(failed)?;
            // Whoever the container's processes are, they read them, where they are mounted.
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
        }
        Ok(())
    }
}

/// A file as it is, and as we wrote it last. None where there is nothing to keep, or more than anybody means to be read:
/// a container may write as much as it likes.
fn read_both(file: &Path, ours: &Path) -> Option<(String, String)> {
    const MOST: u64 = 1 << 20;
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        std::fs::File::open(path).ok()?.take(MOST + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= MOST).then(|| String::from_utf8_lossy(&bytes).into_owned())
    };
    Some((read(file)?, read(ours)?))
}

/// What they are called in /etc, and in the container's directory.
pub(crate) const NAMES: [&str; 3] = ["hosts", "resolv.conf", "hostname"];

/// What the files say, in the order of [`NAMES`].
fn render(state: &State, record: &Container, of_host: OfHost) -> Result<[String; 3]> {
    let overrides = state.networking.dns_of(&record.host);
    let is_host = matches!(record.host.network_mode(), NetworkMode::Host);
    let asks = match () {
        () if naming::has_resolver(state, record) => Asks::Resolver,
        () if is_host => Asks::HostsServers,
        () => Asks::Servers,
    };
    let resolv = resolv_conf(&of_host.resolv_conf.for_who(asks), &overrides, asks);
    let extra = extra_hosts(state, record)?;
    let hosts = if is_host && extra.is_empty() {
        of_host.hosts
    } else {
        let active = record.endpoints.iter().filter_map(|e| e.active.as_ref());
        let own = active.flat_map(|a| a.attachment.addresses.iter().map(|n| n.addr())).collect();
        // A setting of all interfaces is the loopback's, too.
        let ipv6 = of_host.ipv6 && !record.host.turns_ipv6_off("lo");
        Hosts {
            ipv6,
            extra,
            own,
            hostname: record.config.hostname.clone(),
            domainname: record.config.domainname.clone(),
        }
        .render()
    };
    Ok([hosts, resolv, format!("{}\n", record.config.hostname)])
}

/// `--add-host`, and the legacy links of the default bridge.
fn extra_hosts(state: &State, record: &Container) -> Result<Vec<(String, String)>> {
    let mut extra = Vec::new();
    for text in record.host.extra_hosts.iter().flatten() {
        let (name, address) = model::files::split_extra_host(text).map_err(Error::invalid)?;
        if address == "host-gateway" {
            let bridge = state.networks.values().find(|n| n.name == "bridge");
            let mut gateways = state.networking.host_gateways.clone();
            if gateways.is_empty() {
                gateways = bridge.into_iter().flat_map(|n| n.bridge_addresses().map(|a| a.addr())).collect();
            }
            extra.extend(gateways.iter().map(|g| (g.to_string(), name.to_owned())));
        } else {
            extra.push((address.to_owned(), name.to_owned()));
        }
    }
    extra.extend(links(state, record)?.iter().map(Link::hosts_line));
    Ok(extra)
}
