//! The devices of the host that a network stands on.

use super::{Driver, GatewayMode, Network, Uplink};
use crate::daemon::Networking;
use crate::desired::{Border, Bridge, Inwards, Outwards, Parent};
use crate::net::MacAddr;

impl Network {
    /// The bridge that realises the network, if one does.
    pub fn bridge(&self, networking: &Networking) -> Option<Bridge> {
        if self.driver != Driver::Bridge {
            return None;
        }
        let [a, b, c, d, e, f, ..] = *self.id.bytes();
        Some(Bridge {
            network: self.id,
            device: self.device(),
            mac: MacAddr::local([a, b, c, d, e, f]),
            gateways: self.bridge_addresses().collect(),
            host_gateway: self.is_host_gateway(networking),
            subnets: self.ipam.pools.iter().map(|p| p.subnet).collect(),
            mtu: self.mtu(),
            icc: self.icc(),
            internal: self.internal,
            border4: self.border(false, networking),
            border6: self.border(true, networking),
            trusted: self.trusted_interfaces().collect(),
            check_sources: self.checks_sources(),
        })
    }

    /// Whether `host-gateway` means this network's gateways: the default network's, unless the daemon is told others.
    fn is_host_gateway(&self, networking: &Networking) -> bool {
        match networking.host_gateways.as_slice() {
            [] => self.predefined,
            given => self.bridge_addresses().any(|net| given.contains(&net.addr())),
        }
    }

    fn border(&self, ipv6: bool, networking: &Networking) -> Border {
        Border {
            outwards: match self.outbound(ipv6) {
                Some(address) => Outwards::Address(address),
                None if self.masquerades(ipv6) => Outwards::HostsAddress,
                None => Outwards::Own,
            },
            inwards: match self.gateway_mode(ipv6) {
                GatewayMode::NatUnprotected => Inwards::Everything,
                GatewayMode::Routed => Inwards::Published,
                GatewayMode::Nat if networking.direct_routing => Inwards::Published,
                GatewayMode::Nat | GatewayMode::Isolated => Inwards::Nothing,
            },
        }
    }

    /// What a network without a bridge stands on; its options were checked when it was made.
    pub fn uplink(&self) -> Option<Uplink> {
        Uplink::parse(self.driver, self.id, &self.options).ok().flatten()
    }

    /// The device of the host that is made for it.
    pub fn parent(&self) -> Option<Parent> {
        self.uplink()?.parent_of(self.id)
    }
}
