//! Networks without a bridge: their members have interfaces of their own on a device of the host, and addresses of the
//! network behind it (DR-05 macvlan, DR-06 ipvlan).

use super::{Driver, Network, Refusal};
use crate::desired::{Ipvlan, Macvlan, Parent, ParentKind, Sharing, Spread};
use crate::id::NetworkId;
use crate::net::InterfaceName;
use std::collections::BTreeMap;

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";

/// What the options of such a network say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The device of the host.
    pub parent: InterfaceName,
    /// How members share it.
    pub sharing: Sharing,
    /// What `parent` is made as where it is not there.
    pub made_as: Option<ParentKind>,
}

impl Uplink {
    /// Reads the options; `None` for another driver.
    ///
    /// # Errors
    /// An option says nothing, or the parent cannot be one.
    pub fn parse(
        driver: Driver,
        network: NetworkId,
        options: &BTreeMap<String, String>,
    ) -> Result<Option<Uplink>, Refusal> {
        let option = |key: &str| options.get(key).map_or("", String::as_str);
        let wrong = |what: &str, default: &str| {
            Refusal::BadOption(format!(
                "requested {driver} {what} is not valid, '{default}' is the {driver} driver default"
            ))
        };
        let sharing = match driver {
            Driver::Macvlan => Sharing::Macvlan(match option(MACVLAN_MODE) {
                "" | "bridge" => Macvlan::Bridge,
                "private" => Macvlan::Private,
                "vepa" => Macvlan::Vepa,
                "passthru" => Macvlan::Passthru,
                other => return Err(wrong(&format!("mode '{other}'"), "bridge")),
            }),
            Driver::Ipvlan => {
                let mode = match option(IPVLAN_MODE) {
                    "" | "l2" => Ipvlan::L2,
                    "l3" => Ipvlan::L3,
                    "l3s" => Ipvlan::L3s,
                    other => return Err(wrong(&format!("mode '{other}'"), "l2")),
                };
                let spread = match option(IPVLAN_FLAG) {
                    "" | "bridge" => Spread::Bridge,
                    "private" => Spread::Private,
                    "vepa" => Spread::Vepa,
                    other => return Err(wrong(&format!("flag '{other}'"), "bridge")),
                };
                Sharing::Ipvlan(mode, spread)
            }
            Driver::Bridge | Driver::Host | Driver::Null => return Ok(None),
        };
        let known = [PARENT, MACVLAN_MODE, IPVLAN_MODE, IPVLAN_FLAG];
        let foreign = |key: &&String| !known.contains(&key.as_str()) && !key.contains('.');
        if let Some(key) = options.keys().find(foreign) {
            return Err(Refusal::BadOption(format!("unknown option {key:?} of driver {driver}")));
        }
        let text = option(PARENT);
        if text.is_empty() {
            let parent = format!("dm-{}", network.short()).parse().expect("15 bytes");
            return Ok(Some(Uplink { parent, sharing, made_as: Some(ParentKind::Dummy) }));
        }
        let parent: InterfaceName = text.parse().map_err(|e| Refusal::BadOption(format!("parent: {e}")))?;
        if text == "lo" {
            return Err(Refusal::BadOption(format!("loopback interface is not a valid {driver} parent link")));
        }
        let made_as = match text.rsplit_once('.') {
            None => None,
            Some((of, id)) => match (of.parse(), id.parse::<u16>()) {
                (Ok(of), Ok(id @ 1..=4094)) => Some(ParentKind::Vlan { of, id }),
                _ => {
                    return Err(Refusal::BadOption(format!(
                        "invalid parent {text:?}: a sub-interface is NAME.VLAN, with a VLAN from 1 to 4094"
                    )));
                }
            },
        };
        Ok(Some(Uplink { parent, sharing, made_as }))
    }

    /// Whether others leave the parent to it: macvlan networks share one, unless one of them passes it through; ipvlan
    /// ones do not (in Docker's words, which call networks as their dummies would be called).
    ///
    /// # Errors
    /// Another network has it.
    pub fn check_shared<'a>(&self, existing: impl Iterator<Item = &'a Network>) -> Result<(), Refusal> {
        let parent = &self.parent;
        let others = existing.filter(|n| !n.config_only).filter_map(|n| Some((n, n.uplink()?)));
        for (other, uplink) in others.filter(|(_, uplink)| uplink.parent == *parent) {
            let id = other.id.short();
            let is_passthru = |sharing| matches!(sharing, Sharing::Macvlan(Macvlan::Passthru));
            return Err(Refusal::ParentTaken(match (self.sharing, uplink.sharing) {
                (mine, Sharing::Macvlan(_)) if is_passthru(mine) => format!(
                    "cannot use mode passthru, macvlan network {} is already using parent interface {parent}",
                    other.id
                ),
                (Sharing::Macvlan(_), theirs) if is_passthru(theirs) => {
                    format!("macvlan network {} is already using parent interface {parent} in mode passthru", other.id)
                }
                (Sharing::Macvlan(_), Sharing::Macvlan(_)) => continue,
                (_, Sharing::Ipvlan(..)) => format!("network di-{id} is already using parent interface {parent}"),
                (_, Sharing::Macvlan(_)) => format!("network dm-{id} is already using parent interface {parent}"),
            }));
        }
        Ok(())
    }

    /// The parent, where it is ours to make.
    pub fn parent_of(&self, network: NetworkId) -> Option<Parent> {
        let kind = self.made_as.clone()?;
        Some(Parent { network, device: self.parent.clone(), kind })
    }

    /// ipvlan at layer 3 has no neighbours to route by: the device itself is the way out.
    pub fn has_device_route(&self) -> bool {
        matches!(self.sharing, Sharing::Ipvlan(Ipvlan::L3 | Ipvlan::L3s, _))
    }

    /// Without a parent nothing leads out.
    pub fn is_internal(&self) -> bool {
        self.made_as == Some(ParentKind::Dummy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: Driver, options: &[(&str, &str)]) -> Result<Uplink, String> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Uplink::parse(driver, NetworkId::new([0xab; 32]), &options)
            .map(|u| u.expect("a driver with a parent"))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn options_name_a_parent_and_a_mode() {
        let plain = parse(Driver::Macvlan, &[("parent", "eth0")]).unwrap();
        assert_eq!((plain.sharing, plain.made_as), (Sharing::Macvlan(Macvlan::Bridge), None));
        let tagged = parse(Driver::Ipvlan, &[("parent", "eth0.50"), ("ipvlan_mode", "l3")]).unwrap();
        assert_eq!(tagged.sharing, Sharing::Ipvlan(Ipvlan::L3, Spread::Bridge));
        assert_eq!(tagged.made_as, Some(ParentKind::Vlan { of: "eth0".parse().unwrap(), id: 50 }));
        let alone = parse(Driver::Macvlan, &[]).unwrap();
        assert_eq!((alone.parent.as_str(), alone.is_internal()), ("dm-abababababab", true));
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let refused = |driver, options: &[(&str, &str)]| parse(driver, options).unwrap_err();
        assert_eq!(
            refused(Driver::Macvlan, &[("macvlan_mode", "x")]),
            "requested macvlan mode 'x' is not valid, 'bridge' is the macvlan driver default"
        );
        assert!(refused(Driver::Ipvlan, &[("ipvlan_flag", "x")]).contains("flag 'x'"));
        assert!(refused(Driver::Macvlan, &[("parent", "lo")]).contains("loopback"));
        assert!(refused(Driver::Macvlan, &[("parent", "eth0.5000")]).contains("1 to 4094"));
        assert!(refused(Driver::Macvlan, &[("parnet", "eth0")]).contains("parnet"));
    }
}
