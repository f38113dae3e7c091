//! How an endpoint is attached while its container runs.

use super::{Wishes, allows_ipv6};
use crate::container::Container;
use crate::daemon::Networking;
use crate::desired::{Attachment, OnParent};
use crate::id::{EndpointId, SandboxId};
use crate::net::{InterfaceName, MacAddr};
use crate::network::Network;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// What chance gives an attachment.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// A new id.
    pub endpoint: EndpointId,
    /// Where none was asked for.
    pub mac: MacAddr,
}

/// Its place in a sandbox.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which.
    pub sandbox: SandboxId,
    /// What it is called there.
    pub interface: InterfaceName,
    /// One of each family of the network.
    pub addresses: Vec<IpNet>,
}

/// The attachment of a container to a network, without a way out so far ([`crate::gateway::wire`]); `None` where the
/// network has no device that one can be attached to.
pub fn attachment(
    container: &Container,
    network: &Network,
    networking: &Networking,
    wishes: &Wishes,
    place: Place,
    fresh: Fresh,
) -> Option<Attachment> {
    let bridge = network.bridge(networking);
    let on_parent = network.uplink().map(|u| OnParent { parent: u.parent, sharing: u.sharing });
    let device = match (&bridge, &on_parent) {
        (Some(bridge), _) => bridge.device.clone(),
        (None, Some(on)) => on.parent.clone(),
        (None, None) => return None,
    };
    // A setting that turns IPv6 off is made before addresses are given: the kernel would refuse those of IPv6.
    let ipv6 = allows_ipv6(&container.host, wishes, &place.interface);
    let fits = |v6: bool| ipv6 || !v6;
    Some(Attachment {
        endpoint: fresh.endpoint,
        network: network.id,
        container: container.id,
        sandbox: place.sandbox,
        bridge: device,
        outer: format!("ve{}", &fresh.endpoint.to_string()[..13]).parse().expect("15 bytes"),
        sysctls: wishes.sysctls(&place.interface),
        inner: place.interface,
        mac: wishes.mac.unwrap_or(fresh.mac),
        addresses: place.addresses,
        link_local: wishes.link_local.iter().filter(|n| fits(n.addr().is_ipv6())).copied().collect(),
        gateway_mac: bridge.as_ref().map_or(MacAddr([0; 6]), |b| b.mac),
        gateways: bridge
            .iter()
            .flat_map(|b| b.gateways.iter().map(|g| g.addr()))
            .filter(|g| fits(g.is_ipv6()))
            .collect(),
        default_routes: Vec::new(),
        mtu: network.mtu(),
        isolated: bridge.as_ref().is_some_and(|b| !b.icc),
        trusted: container.host.may_change_addresses(),
        check_sources: bridge.as_ref().is_some_and(|b| b.check_sources || !b.icc),
        on_parent,
    })
}

/// Another endpoint of the container has the name that was asked for (BR-04).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interface name {interface} for network {network} is already in use in container {container}")]
pub struct InterfaceTaken {
    interface: InterfaceName,
    network: String,
    container: String,
}

/// The name that the endpoint asks for, or the first free `ethN` (BR-04).
///
/// # Errors
/// Another endpoint of the container has the name.
pub fn interface_name(container: &Container, index: usize, network: &Network) -> Result<InterfaceName, InterfaceTaken> {
    let prefix = network.interface_prefix();
    let used: BTreeSet<&str> =
        container.endpoints.iter().filter_map(|e| e.active.as_ref().map(|a| a.attachment.inner.as_str())).collect();
    let own_wish = |i: usize| Wishes::parse(&container.endpoints[i].settings).ok().and_then(|w| w.interface);
    if let Some(wish) = own_wish(index) {
        if used.contains(wish.as_str()) || wish.as_str() == "lo" {
            return Err(InterfaceTaken {
                interface: wish,
                network: network.name.clone(),
                container: container.name.clone(),
            });
        }
        return Ok(wish);
    }
    // Names that others ask for are theirs.
    let wishes: BTreeSet<InterfaceName> = (0..container.endpoints.len()).filter_map(own_wish).collect();
    // One more than can be taken.
    let free = (0..=used.len() + wishes.len())
        .map(|n| format!("{prefix}{n}"))
        .filter(|name| !used.contains(name.as_str()))
        .find_map(|name| name.parse().ok().filter(|name| !wishes.contains(name)));
    Ok(free.unwrap_or_else(|| "eth0".parse().expect("a name")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Endpoint;
    use crate::id::{ContainerId, NetworkId};
    use crate::network::{Driver, option};

    #[test]
    fn an_interface_gets_a_name_whatever_the_option_says() {
        let mut network = Network {
            ipv6: true,
            ..Network::new(NetworkId::new([1; 32]), "n", Driver::Bridge, jiff::Timestamp::UNIX_EPOCH)
        };
        let endpoint = Endpoint {
            network: Some(network.id),
            network_name: "n".into(),
            settings: Default::default(),
            active: None,
        };
        let record = Container {
            id: ContainerId::new([2; 32]),
            name: "c".into(),
            created: jiff::Timestamp::UNIX_EPOCH,
            image: crate::image::ImageId::new(format!("sha256:{}", "0".repeat(64))),
            config: Default::default(),
            host: Default::default(),
            endpoints: vec![endpoint],
            mounts: Vec::new(),
            state: crate::container::State::created(),
            restarts: 0,
            stopped_by_client: false,
            step: false,
        };
        for (prefix, name) in [("../x", "eth0"), ("abcdefghijklm", "eth0"), ("lan", "lan0")] {
            network.options.insert(option::CONTAINER_IFACE_PREFIX.into(), prefix.into());
            assert_eq!(interface_name(&record, 0, &network).unwrap().as_str(), name, "{prefix}");
        }
    }
}
