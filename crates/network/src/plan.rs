//! What is done, in which order: pure.
//!
//! The firewall knows an endpoint before its port exists, so there is no moment in which a container could pose as
//! another. Each step is undone in reverse when a later one fails.

use crate::elements::{self, Elements, Leg};
use crate::features::Features;
use kernel::link::Port;
use model::desired::{Attachment, Bridge, OnParent};

/// One effect of attaching.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'a> {
    /// Firewall elements of all the endpoints, in one transaction.
    Elements(Elements),
    /// The pair of interfaces: outer end a port of the bridge, up; forwarding entry; permanent neighbours of the host.
    Veth(&'a Attachment),
    /// An interface on a device of the host, in place of the pair.
    Share(&'a Attachment, &'a OnParent),
    /// The inner end: addresses, neighbours, up, routes.
    Inside(&'a Attachment),
    /// Settings inside, where the endpoint has some.
    Settings(&'a Attachment),
    /// Neighbours that knew another owner of the address hear of the new one (BR-05).
    Announce(&'a Attachment),
}

/// The steps that attach endpoints to a sandbox; `others`: those that it has already.
pub fn plan_attach<'a>(attachments: &'a [Attachment], others: &[Leg], features: &Features) -> Vec<Step<'a>> {
    let mut steps = Vec::with_capacity(1 + 4 * attachments.len());
    let mut elements: Elements =
        attachments.iter().flat_map(|a| elements::of_attachment(a, features.variant())).collect();
    let coming: Vec<Leg> = attachments.iter().map(Leg::from).collect();
    let now = elements::of_sandbox(others.iter().chain(&coming));
    elements.extend(now.difference(&elements::of_sandbox(others)).cloned());
    if !elements.is_empty() {
        steps.push(Step::Elements(elements));
    }
    for attachment in attachments {
        steps.push(match &attachment.on_parent {
            Some(on) => Step::Share(attachment, on),
            None => Step::Veth(attachment),
        });
        if !attachment.sysctls.is_empty() {
            steps.push(Step::Settings(attachment));
        }
        steps.push(Step::Inside(attachment));
        if attachment.on_parent.is_none() {
            steps.push(Step::Announce(attachment));
        }
    }
    steps
}

/// How the port of an endpoint behaves: held to its addresses, unless the container has NET_ADMIN and may add some.
pub fn plan_port(attachment: &Attachment, features: &Features) -> Port {
    Port {
        learning: attachment.trusted,
        locked: !attachment.trusted && features.locked_ports,
        flood: attachment.trusted,
        isolated: attachment.isolated && !features.br_netfilter,
        // a container that publishes to itself needs it while br_netfilter is on, which may happen at any time
        hairpin: true,
        // what listeners report is not let in (it would reach every port, at every start), and no container may pose
        // as a multicast router; on our own bridges, which do not snoop, this changes nothing
        all_multicast: !attachment.trusted,
    }
}

/// IPv6 settings of a bridge, as file names under `net/ipv6/conf/<bridge>` and values.
pub fn plan_bridge_ipv6(bridge: &Bridge, features: &Features, forwarding: bool) -> Vec<(&'static str, &'static str)> {
    if !features.ipv6 {
        return Vec::new();
    }
    let mut settings = vec![("accept_ra", "0"), ("accept_redirects", "0")];
    if forwarding && features.force_forwarding && forwards_ipv6(bridge) {
        settings.push(("force_forwarding", "1"));
    }
    settings
}

/// Whether IPv6 leaves a network.
pub fn forwards_ipv6(bridge: &Bridge) -> bool {
    has_ipv6(bridge) && !bridge.internal
}

/// Whether a network has IPv6.
pub fn has_ipv6(bridge: &Bridge) -> bool {
    bridge.subnets.iter().chain(&bridge.gateways).any(|net| net.addr().is_ipv6())
}
