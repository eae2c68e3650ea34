//! The address plan of clusters that touchstone makes itself.
//!
//! A pure function of the shape, so that the oracle, the simulation and the lab speak of the same
//! addresses without asking each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::network::add_further_addresses;
use crate::{
    ApiService, ClientFacts, ClusterFacts, ClusterShape, DnsFacts, NodeFacts, Page, PodFacts,
    ProxySettings,
};

/// Number of the pod that stands on each node as a client for all cases.
const CLIENT_POD: u16 = 10;
/// Where the pages of proxies are in a plan; a cluster that runs says where they really are.
const PAGES_PORT: u16 = 1;

impl ClusterFacts {
    /// The facts of a cluster of this shape by the address plan.
    ///
    /// Node *i* is 172.18.*i*.2 and fd00:172:18:*i*::2; its pods are 10.244.*i*.*p* and
    /// fd00:10:244:*i*::*p*; outside client *k* enters by node *i* from 198.51.100.(16*k*+*i*)
    /// and 2001:db8:64:*k*::*i*, the first of them with a crowd from all of 100.64.*i*.0/24 and
    /// 2001:db8:65:*i*::/64 as well; cluster IPs are of 10.96.0.0/16 and fd00:10:96::/112,
    /// load-balancer addresses of 198.18.0.0/16 and 2001:db8:18::/64, external IPs of
    /// 198.19.0.0/16 and 2001:db8:19::/64, node ports 30000 to 32767.
    #[must_use]
    pub fn planned(shape: &ClusterShape) -> ClusterFacts {
        let names = shape.node_names();
        let service_cidrs =
            vec![v4(10, 96, 0, 0, 16), v6([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0], 112)];
        let nodes = (1..).zip(&names).zip(&shape.zones).map(|((i, name), zone)| NodeFacts {
            name: name.clone(),
            zone: zone.clone(),
            addresses: vec![
                Ipv4Addr::new(172, 18, i as u8, 2).into(),
                Ipv6Addr::new(0xfd00, 0x172, 0x18, i, 0, 0, 0, 2).into(),
            ],
            pod_cidrs: vec![
                v4(10, 244, i as u8, 0, 24),
                v6([0xfd00, 0x10, 0x244, i, 0, 0, 0, 0], 64),
            ],
            client: PodFacts::planned(name, i, CLIENT_POD),
            pages: Page::ALL
                .into_iter()
                .map(|page| (page, format!("http://127.0.0.1:{PAGES_PORT}/{page}")))
                .collect(),
        });
        let outside = (1..).zip(shape.outside_names()).map(|(k, name)| ClientFacts {
            name,
            addresses: (1..=names.len() as u16).map(|i| outside_addresses(k, i)).collect(),
            cidrs: vec![
                v4(198, 51, 100, (16 * k) as u8, 28),
                v6([0x2001, 0xdb8, 0x64, k, 0, 0, 0, 0], 64),
            ],
            crowds: match k {
                1 => ClientFacts::planned_crowds(names.len()),
                _ => Vec::new(),
            },
        });
        let mut nodes: Vec<NodeFacts> = nodes.collect();
        // Settings of proxies may name them.
        add_further_addresses(&mut nodes, &shape.network);
        let pods = pod_cidrs();
        let facts = ClusterFacts {
            proxy: ProxySettings::of(&shape.proxy, &nodes, &pods, &service_cidrs),
            pod_cidrs: pods,
            nodes,
            outside: outside.collect(),
            dns: shape.dns.then(|| DnsFacts::planned(&names, &service_cidrs)),
            api: None,
            service_cidrs,
            load_balancer_cidrs: vec![
                v4(198, 18, 0, 0, 16),
                v6([0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 0], 64),
            ],
            external_ip_cidrs: vec![
                v4(198, 19, 0, 0, 16),
                v6([0x2001, 0xdb8, 0x19, 0, 0, 0, 0, 0], 64),
            ],
            node_ports: (30_000, 32_767),
            mode: Some("planned".to_owned()),
            network: shape.network.clone(),
            balancer: None,
            neighbour: None,
            namespaces: String::new(),
            unhandled_is_silent: false,
            refusals_are_few: false,
        };
        let mut facts = facts.in_its_network();
        // Programs ask for it by its name.
        facts.api = ApiService::planned(&facts).filter(|_| shape.dns);
        facts
    }
}

/// Host number of the name server's Service in the Service ranges.
const DNS_HOST: u8 = 10;
/// Number of the name server's planned pod: above those of cases.
const DNS_POD: u16 = 250;

impl DnsFacts {
    /// By the address plan: the Service `kube-dns` has the tenth address of each Service range,
    /// and its pod stands on the last node.
    fn planned(nodes: &[String], service_cidrs: &[IpNet]) -> DnsFacts {
        let service = service_cidrs
            .iter()
            .map(|range| match range.network() {
                IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) + u32::from(DNS_HOST)).into()),
                IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) + u128::from(DNS_HOST)).into()),
            })
            .collect();
        let number = nodes.len() as u16;
        let server = nodes.last().map(|node| PodFacts::planned(node, number, DNS_POD));
        DnsFacts { service, servers: server.into_iter().collect() }
    }
}

impl PodFacts {
    /// Pod `number` of the node with that name and number, by the address plan.
    #[must_use]
    pub fn planned(node: &str, node_number: u16, number: u16) -> PodFacts {
        let v4 = Ipv4Addr::new(10, 244, node_number as u8, number as u8);
        // The decimal digits of the number are written as they are, so that both addresses of a
        // pod end alike.
        let digits = number / 100 * 256 + number / 10 % 10 * 16 + number % 10;
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, node_number, 0, 0, 0, digits);
        PodFacts {
            place: format!("pod-{node}-{number}"),
            node: node.to_owned(),
            addresses: vec![v4.into(), v6.into()],
        }
    }
}

/// Ranges that hold every pod.
fn pod_cidrs() -> Vec<IpNet> {
    vec![v4(10, 244, 0, 0, 16), v6([0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0], 48)]
}

pub(crate) fn outside_addresses(k: u16, i: u16) -> Vec<IpAddr> {
    vec![
        Ipv4Addr::new(198, 51, 100, (16 * k + i) as u8).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0x64, k, 0, 0, 0, i).into(),
    ]
}

impl ClientFacts {
    /// Ranges of both families for the crowd of each of so many nodes, in order: 100.64.*i*.0/24
    /// and 2001:db8:65:*i*::/64 for the node with the number *i*, from 1.
    #[must_use]
    pub fn planned_crowds(nodes: usize) -> Vec<Vec<IpNet>> {
        let ranges = |i: u16| {
            vec![v4(100, 64, i as u8, 0, 24), v6([0x2001, 0xdb8, 0x65, i, 0, 0, 0, 0], 64)]
        };
        (1..).take(nodes).map(ranges).collect()
    }
}

pub(crate) fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

pub(crate) fn v6(words: [u16; 8], length: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = words;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, NodePortAddresses};

    #[test]
    fn the_default_shape() {
        let facts = ClusterFacts::planned(&ClusterShape::default());
        let text = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&facts.nodes[2].addresses), ["172.18.3.2", "fd00:172:18:3::2"]);
        assert_eq!(text(&facts.nodes[0].client.addresses), ["10.244.1.10", "fd00:10:244:1::10"]);
        assert_eq!(text(&facts.outside[1].addresses[0]), ["198.51.100.33", "2001:db8:64:2::1"]);
        let crowd = Family::BOTH.map(|family| facts.outside[0].one_of_crowd(1, family, 250));
        assert_eq!(text(&crowd.map(Option::unwrap)), ["100.64.2.250", "2001:db8:65:2::fa"]);
        assert_eq!(facts.outside[1].one_of_crowd(1, Family::V4, 1), None);
        let mut shape = ClusterShape::default();
        shape.network.more_node_addresses = Some(1);
        shape.proxy.node_port_addresses = Some(vec!["$more".to_owned()]);
        let NodePortAddresses::Ranges(more) =
            ClusterFacts::planned(&shape).proxy.node_port_addresses
        else {
            panic!("ranges were asked for");
        };
        assert_eq!(more.first().map(ToString::to_string).as_deref(), Some("172.18.1.101/32"));
        let pod = PodFacts::planned("n2", 2, 123);
        assert_eq!(text(&pod.addresses), ["10.244.2.123", "fd00:10:244:2::123"]);
    }
}
