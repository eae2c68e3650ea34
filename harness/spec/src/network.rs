//! What a wish for a network means: addresses of the plan, and what a host must have for it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::plan::{outside_addresses, v4, v6};
use crate::{
    ClientFacts, ClusterFacts, Family, Firewall, IptablesBackend, LoadBalancers, LocalDetector,
    NetworkWish, NodeFacts, NodesJoined, PodFacts, PodsToNodes,
};

/// Place of the load balancer that has addresses of its own.
pub const BALANCER: &str = "balancer";

/// Name of the need of cases that use SCTP, one of [`NETWORK_NEEDS`].
pub const SCTP_NEED: &str = "SCTP in the kernel: `modprobe sctp` loads it where it is a module, and `--kernel uml` runs the \
    lab on one that has it";

/// Place of the host that is a neighbour of the nodes.
pub const NEIGHBOUR: &str = "neighbour";

/// Name of the need of proxies that forward with the kernel's IPVS, one of [`NETWORK_NEEDS`].
pub const IPVS_NEED: &str = "IPVS in the kernel: `modprobe ip_vs` loads it where it is a module, and `--kernel uml` runs the \
    lab on one that has it";

/// Everything that some network or proxy asks of the machine, by the words of excuses.
pub const NETWORK_NEEDS: [&str; 8] = [
    "the program nft",
    "the program iptables",
    "iptables-legacy with its kernel tables",
    "iptables-nft",
    "links whose offloads can be switched off",
    "bridge links",
    SCTP_NEED,
    IPVS_NEED,
];

impl NetworkWish {
    /// Whether nodes and pods have addresses of a family.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        self.only.is_none_or(|only| only == family)
    }

    /// Whether the pods' packets to other nodes arrive under the address of the pod's node.
    #[must_use]
    pub fn masquerades_pods(&self) -> bool {
        self.pods_to_nodes == Some(PodsToNodes::Masqueraded)
            || self.firewall.contains(&Firewall::SecondPostrouting)
    }

    /// Whether the load balancer, not the flow, says by which node packets enter.
    #[must_use]
    pub fn balancer_chooses(&self) -> bool {
        match self.load_balancers {
            None | Some(LoadBalancers::Static) => false,
            Some(LoadBalancers::HealthChecked | LoadBalancers::NodePort) => true,
        }
    }

    /// What the machine must have for it, each one of [`NETWORK_NEEDS`].
    #[must_use]
    pub fn needs(&self) -> BTreeSet<&'static str> {
        let [nft, iptables, legacy, iptables_nft, offloads, bridges, ..] = NETWORK_NEEDS;
        let mut needs = BTreeSet::new();
        if self.pods_to_nodes == Some(PodsToNodes::Masqueraded) {
            needs.insert(nft);
        }
        for owner in &self.firewall {
            needs.insert(match owner {
                Firewall::ForwardDrop | Firewall::InputDrop => iptables,
                Firewall::SecondPostrouting | Firewall::Policy => nft,
            });
        }
        match self.iptables {
            Some(IptablesBackend::Legacy) => drop(needs.insert(legacy)),
            Some(IptablesBackend::Nft) => drop(needs.insert(iptables_nft)),
            None => {}
        }
        if self.offloads == Some(false) {
            needs.insert(offloads);
        }
        if self.nodes_joined == Some(NodesJoined::OneSegment) {
            needs.insert(bridges);
        }
        needs
    }
}

/// Gives nodes the further addresses that a network has.
///
/// Address *k* of node *i* is 172.18.*i*.(100+*k*) and fd00:172:18:*i*::(100+*k*).
pub(crate) fn add_further_addresses(nodes: &mut [NodeFacts], network: &NetworkWish) {
    for (i, node) in (1..).zip(nodes) {
        for family in Family::BOTH {
            for k in 1..=network.more_node_addresses.unwrap_or(0) {
                node.addresses.push(further_address(family, i, k));
            }
        }
    }
}

impl ClusterFacts {
    /// The facts with what their network adds to the plan and takes away from it, but for further
    /// addresses of nodes.
    ///
    /// A load balancer with addresses of its own is one more outside client.
    pub(crate) fn in_its_network(mut self) -> ClusterFacts {
        if self.network.load_balancers == Some(LoadBalancers::NodePort) {
            let k = self.outside.len() as u16 + 1;
            self.balancer = Some(ClientFacts {
                name: BALANCER.to_owned(),
                addresses: (1..=self.nodes.len() as u16).map(|i| outside_addresses(k, i)).collect(),
                cidrs: vec![
                    v4(198, 51, 100, (16 * k) as u8, 28),
                    v6([0x2001, 0xdb8, 0x64, k, 0, 0, 0, 0], 64),
                ],
                crowds: Vec::new(),
            });
        }
        if self.network.nodes_joined == Some(NodesJoined::OneSegment) {
            self.neighbour = Some(ClientFacts {
                name: NEIGHBOUR.to_owned(),
                addresses: vec![vec![
                    Ipv4Addr::new(172, 18, 254, 2).into(),
                    Ipv6Addr::new(0xfd00, 0x172, 0x18, 0x254, 0, 0, 0, 2).into(),
                ]],
                cidrs: vec![
                    v4(172, 18, 254, 0, 24),
                    v6([0xfd00, 0x172, 0x18, 0x254, 0, 0, 0, 0], 64),
                ],
                crowds: Vec::new(),
            });
        }
        let Some(only) = self.network.only else { return self };
        let has = |ip: &IpAddr| Family::of(*ip) == only;
        let net = |range: &IpNet| Family::of(range.addr()) == only;
        for node in &mut self.nodes {
            node.addresses.retain(has);
            node.client.addresses.retain(has);
        }
        if let Some(dns) = &mut self.dns {
            dns.service.retain(has);
            dns.servers.iter_mut().for_each(|server| server.addresses.retain(has));
        }
        let further = self.balancer.iter_mut().chain(&mut self.neighbour);
        for client in self.outside.iter_mut().chain(further) {
            client.addresses.iter_mut().for_each(|addresses| addresses.retain(has));
            client.cidrs.retain(net);
            client.crowds.iter_mut().for_each(|ranges| ranges.retain(net));
        }
        if let LocalDetector::ClusterCidr(ranges) = &mut self.proxy.detector {
            ranges.retain(net);
        }
        for ranges in [
            &mut self.service_cidrs,
            &mut self.proxy.service_cidrs,
            &mut self.load_balancer_cidrs,
            &mut self.external_ip_cidrs,
        ] {
            ranges.retain(net);
        }
        self
    }
}

impl PodFacts {
    /// The pod as it is in a network, which may have one family only.
    #[must_use]
    pub fn within(mut self, network: &NetworkWish) -> PodFacts {
        self.addresses.retain(|ip| network.has(Family::of(*ip)));
        self
    }
}

/// Further address `k`, from 1, of node `i`.
fn further_address(family: Family, i: u16, k: u8) -> IpAddr {
    let last = 100_u16.saturating_add(k.into());
    match family {
        Family::V4 => Ipv4Addr::new(172, 18, i as u8, last as u8).into(),
        // The decimal digits are written as they are.
        Family::V6 => {
            let digits = last / 100 * 256 + last / 10 % 10 * 16 + last % 10;
            Ipv6Addr::new(0xfd00, 0x172, 0x18, i, 0, 0, 0, digits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClusterShape;

    fn planned(network: NetworkWish) -> ClusterFacts {
        ClusterFacts::planned(&ClusterShape { network, ..ClusterShape::default() })
    }

    fn text(ips: &[IpAddr]) -> Vec<String> {
        ips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn further_addresses_follow_the_internal_ips() {
        let facts = planned(NetworkWish { more_node_addresses: Some(1), ..NetworkWish::default() });
        assert_eq!(
            text(&facts.nodes[1].addresses),
            ["172.18.2.2", "fd00:172:18:2::2", "172.18.2.101", "fd00:172:18:2::101"]
        );
    }

    #[test]
    fn one_family_leaves_nothing_of_the_other() {
        let facts = planned(NetworkWish { only: Some(Family::V6), ..NetworkWish::default() });
        assert_eq!(text(&facts.nodes[0].addresses), ["fd00:172:18:1::2"]);
        assert_eq!(text(&facts.nodes[0].client.addresses), ["fd00:10:244:1::10"]);
        assert_eq!(facts.service_cidrs.len(), 1);
        assert_eq!(text(&facts.outside[0].addresses[0]), ["2001:db8:64:1::1"]);
    }

    #[test]
    fn a_balancer_is_one_more_outside_client() {
        let network =
            NetworkWish { load_balancers: Some(LoadBalancers::NodePort), ..NetworkWish::default() };
        let balancer = planned(network).balancer.expect("a balancer");
        assert_eq!(text(&balancer.addresses[0]), ["198.51.100.49", "2001:db8:64:3::1"]);
    }
}
