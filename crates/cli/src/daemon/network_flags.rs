//! What `isle daemon` is told about networks, in dockerd's flags.

use anyhow::{Context, bail};
use clap::{ArgAction, Args};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::daemon::{Mark, Networking};
use model::files::ResolvOverrides;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Flags as dockerd has them.
#[derive(Args)]
pub struct NetworkFlags {
    /// Name of the default network's bridge; 'none' for no default network
    #[arg(short, long, default_value = "isle0")]
    bridge: String,
    /// Address and subnet of the default network's bridge
    #[arg(long, value_name = "CIDR")]
    bip: Option<Ipv4Net>,
    /// The same for IPv6
    #[arg(long, value_name = "CIDR")]
    bip6: Option<Ipv6Net>,
    /// Dynamic addresses of the default network come from here
    #[arg(long, value_name = "CIDR")]
    fixed_cidr: Option<Ipv4Net>,
    /// The same for IPv6
    #[arg(long, value_name = "CIDR")]
    fixed_cidr_v6: Option<Ipv6Net>,
    /// Way out of the default network, if not its bridge
    #[arg(long, value_name = "IP")]
    default_gateway: Option<Ipv4Addr>,
    /// The same for IPv6
    #[arg(long, value_name = "IP")]
    default_gateway_v6: Option<Ipv6Addr>,
    /// IPv6 on the default network
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: bool,
    /// Members of the default network reach each other
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    icc: bool,
    /// What leaves the default network takes the host's address
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ip_masq: bool,
    /// Where ports are published that name no address
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    ip: IpAddr,
    /// MTU of the default network, in bytes
    #[arg(long, default_value_t = 1500)]
    mtu: u32,
    /// Pool that networks get their subnets from (base=CIDR,size=BITS); may be given several times
    #[arg(long, value_name = "POOL")]
    default_address_pool: Vec<String>,
    /// Default option of networks of a driver (DRIVER=KEY=VALUE); may be given several times
    #[arg(long, value_name = "OPTION")]
    default_network_opt: Vec<String>,
    /// What 'host-gateway' means in --add-host; may be given several times
    #[arg(long, value_name = "IP")]
    host_gateway_ip: Vec<IpAddr>,
    /// Firewall tables for IPv4; they cannot be turned off
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    iptables: bool,
    /// Firewall tables for IPv6; they cannot be turned off
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ip6tables: bool,
    /// Make the host forward
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ip_forward: bool,
    /// Carry what the kernel cannot: [::1], and IPv6 to containers without
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    userland_proxy: bool,
    /// Published ports are reached by a container's own address, too
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_direct_routing: bool,
    /// What other rules have given this mark (MARK or MARK/MASK) passes into every network
    #[arg(long, value_name = "MARK")]
    bridge_accept_fwmark: Option<Mark>,
    /// There is no swarm to diagnose (OB-07)
    #[arg(long, value_name = "PORT", hide = true)]
    network_diagnostic_port: Option<String>,
    /// DNS server of containers; may be given several times
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// DNS search domain of containers; may be given several times
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// DNS option of containers; may be given several times
    #[arg(long, value_name = "OPTION")]
    dns_opt: Vec<String>,
    /// Leave DOCKER-USER, ufw and firewalld alone
    #[arg(long)]
    no_firewall_integration: bool,
}

impl NetworkFlags {
    /// # Errors
    /// A text says nothing.
    pub fn networking(&self) -> anyhow::Result<Networking> {
        if self.network_diagnostic_port.is_some() {
            bail!(
                "--network-diagnostic-port is about a swarm's network database, which Isle has not; why a packet goes \
                 where it goes is said by 'isle network explain'"
            );
        }
        let mut networking = Networking {
            firewall: self.iptables && self.ip6tables,
            forwarding: self.ip_forward,
            proxy: self.userland_proxy,
            direct_routing: self.allow_direct_routing,
            accept_mark: self.bridge_accept_fwmark,
            host_gateways: self.host_gateway_ip.clone(),
            firewall_integration: !self.no_firewall_integration,
            dns: ResolvOverrides {
                nameservers: self.dns.clone(),
                search: self.dns_search.clone(),
                options: self.dns_opt.clone(),
            },
            ..Networking::default()
        };
        let default = &mut networking.default_bridge;
        if self.bridge == "none" {
            default.enabled = false;
        } else {
            default.device = self.bridge.parse().context("--bridge")?;
        }
        (default.address4, default.address6) = (self.bip, self.bip6);
        (default.range4, default.range6) = (self.fixed_cidr, self.fixed_cidr_v6);
        (default.gateway4, default.gateway6) = (self.default_gateway, self.default_gateway_v6);
        (default.ipv6, default.icc, default.masquerade) = (self.ipv6, self.icc, self.ip_masq);
        (default.host_binding, default.mtu) = (self.ip, self.mtu);
        if !self.default_address_pool.is_empty() {
            let pools = self.default_address_pool.iter().map(|text| pool(text));
            networking.pools.bases = pools.collect::<anyhow::Result<_>>()?;
        }
        for text in &self.default_network_opt {
            let Some((driver, (key, value))) = text.split_once('=').and_then(|(d, o)| Some((d, o.split_once('=')?)))
            else {
                bail!("invalid --default-network-opt {text:?}: it must be DRIVER=KEY=VALUE");
            };
            networking.default_options.entry(driver.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        }
        Ok(networking)
    }
}

/// `base=10.0.0.0/8,size=24`.
fn pool(text: &str) -> anyhow::Result<(IpNet, u8)> {
    let (mut base, mut size) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("base", value)) => base = value.parse().ok(),
            Some(("size", value)) => size = value.parse().ok(),
            _ => {}
        }
    }
    base.zip(size).with_context(|| format!("invalid --default-address-pool {text:?}: it must be base=CIDR,size=BITS"))
}
