//! Links, addresses, routes and rules between the fabric and everything else, as changes.

use std::net::IpAddr;

use crate::namespace::Namespace;
use crate::netlink::{Change, End, MAIN_TABLE, Mac};
use crate::plan::{self, Family, Prefix};
use crate::topology::{Joined, Shape};

/// Index of the one link that a node, an outside client, a pod or the sink has to the others.
pub(crate) const UPLINK: u32 = 2;
/// Its name.
pub(crate) const UPLINK_NAME: &str = "eth0";

/// The fabric's table in which everything goes to the sink.
const SINK_TABLE: u8 = 99;
/// Index of the fabric's side of the sink's link.
pub(crate) const SINK_LINK: u32 = 300;
const SINK_MAC: Mac = [0x02, 0x53, 0, 0, 0, 1];
const SINK_FABRIC_MAC: Mac = [0x02, 0x53, 0, 0, 0, 2];

/// Rules of the fabric are asked in this order, before the main table.
const RULE_STRAY_PODS: u32 = 100;
const RULE_SERVICES: u32 = 200;

/// The fabric's side of the sink.
pub(crate) fn add_sink(changes: &mut Vec<Change>, namespace: &Namespace) {
    changes.push(Change::Veth {
        near: end("sink", SINK_LINK, SINK_FABRIC_MAC),
        far: end(UPLINK_NAME, UPLINK, SINK_MAC),
        far_namespace: namespace.network(),
        mtu: None,
    });
    for family in Family::BOTH {
        // An address that nobody has: only its neighbour entry counts.
        let gateway = plan::pod_gateway(family);
        let neighbour = Change::Neighbour { index: SINK_LINK, address: gateway, mac: SINK_MAC };
        changes.push(neighbour);
        for table in [MAIN_TABLE, SINK_TABLE] {
            changes.push(Change::Route {
                to: Prefix::any(family),
                via: Some(gateway),
                index: SINK_LINK,
                source: None,
                table,
            });
        }
    }
}

/// Index of the fabric's side of a node's link.
pub(crate) fn node_link(node: u8) -> u32 {
    100 + u32::from(node)
}

/// Index of the fabric's side of an outside client's link.
pub(crate) fn outside_link(client: u8) -> u32 {
    200 + u32::from(client)
}

/// Index of the fabric's bridge that joins the nodes, where one does.
pub(crate) const SEGMENT_LINK: u32 = 400;
const SEGMENT: &str = "segment";
const SEGMENT_MAC: Mac = [0x02, 0x4c, 0, 0, 2, 1];
/// Index of the fabric's side of the link of the nodes' neighbour.
const NEIGHBOUR_LINK: u32 = 401;

/// Index of the link by which the fabric reaches a node.
pub(crate) fn way_to(node: u8, joined: Joined) -> u32 {
    match joined {
        Joined::Routed => node_link(node),
        Joined::OneSegment => SEGMENT_LINK,
    }
}

/// The outside client that has the addresses of a crowd, too.
const CROWDED: u8 = 1;

fn services_table(node: u8) -> u8 {
    100 + node
}

fn node_mac(node: u8) -> Mac {
    [0x02, 0x4e, 0, 0, 1, node]
}

fn node_fabric_mac(node: u8) -> Mac {
    [0x02, 0x4e, 0, 0, 2, node]
}

fn outside_mac(client: u8) -> Mac {
    [0x02, 0x4f, 0, 0, 1, client]
}

fn outside_fabric_mac(client: u8) -> Mac {
    [0x02, 0x4f, 0, 0, 2, client]
}

pub(crate) fn end(name: impl Into<String>, index: u32, mac: Mac) -> End {
    End { name: name.into(), index, mac }
}

/// The fabric's side of a node.
pub(crate) fn add_node(
    changes: &mut Vec<Change>,
    namespace: &Namespace,
    i: u8,
    mtu: Option<u32>,
    shape: &Shape,
) {
    let families = Family::all_or(shape.only);
    let port = format!("node{i}");
    changes.push(Change::Veth {
        near: end(port.as_str(), node_link(i), node_fabric_mac(i)),
        far: end(UPLINK_NAME, UPLINK, node_mac(i)),
        far_namespace: namespace.network(),
        mtu,
    });
    let index = way_to(i, shape.joined);
    let interface = match shape.joined {
        Joined::Routed => port,
        Joined::OneSegment => {
            changes.push(Change::Port { index: node_link(i), bridge: SEGMENT_LINK });
            SEGMENT.to_owned()
        }
    };
    for family in families.iter().copied() {
        let node = plan::node_address(family, i);
        let gateway = Prefix::new(plan::node_gateway(family, i), plan::node_link_length(family));
        let pods = plan::pod_range(family, i);
        changes.push(Change::Address { index, prefix: gateway });
        changes.push(Change::Neighbour { index, address: node, mac: node_mac(i) });
        let route = |to, via| Change::Route { to, via, index, source: None, table: MAIN_TABLE };
        changes.push(route(Prefix::host(node), None));
        changes.push(route(pods, Some(node)));
        for number in 1..=shape.further_addresses {
            let further = plan::further_address(family, i, number);
            changes.push(Change::Neighbour { index, address: further, mac: node_mac(i) });
            changes.push(route(Prefix::host(further), None));
        }
        // The node did not know this address of its own range: sent back to it, the packet would
        // go round until its end.
        changes.push(Change::Rule {
            priority: RULE_STRAY_PODS,
            interface: interface.clone(),
            from: None,
            to: Some(pods),
            table: SINK_TABLE,
        });
    }
    let here = |range: &Prefix| families.contains(&range.family());
    for range in plan::service_ranges().into_iter().filter(here) {
        changes.push(Change::Route {
            to: range,
            via: Some(plan::node_address(range.family(), i)),
            index,
            source: None,
            table: services_table(i),
        });
    }
}

/// The fabric's side of the segment that joins nodes, with a neighbour of theirs on it.
pub(crate) fn add_segment(changes: &mut Vec<Change>, neighbour: &Namespace, shape: &Shape) {
    changes.push(Change::Bridge { link: end(SEGMENT, SEGMENT_LINK, SEGMENT_MAC) });
    changes.push(Change::Veth {
        near: end("neighbour", NEIGHBOUR_LINK, node_fabric_mac(plan::NEIGHBOUR)),
        far: end(UPLINK_NAME, UPLINK, node_mac(plan::NEIGHBOUR)),
        far_namespace: neighbour.network(),
        mtu: None,
    });
    changes.push(Change::Port { index: NEIGHBOUR_LINK, bridge: SEGMENT_LINK });
    for family in Family::all_or(shape.only).iter().copied() {
        let address = plan::node_address(family, plan::NEIGHBOUR);
        let gateway = plan::node_gateway(family, plan::NEIGHBOUR);
        let prefix = Prefix::new(gateway, plan::node_link_length(family));
        let index = SEGMENT_LINK;
        let mac = node_mac(plan::NEIGHBOUR);
        changes.push(Change::Address { index, prefix });
        changes.push(Change::Neighbour { index, address, mac });
        let (to, via, source, table) = (Prefix::host(address), None, None, MAIN_TABLE);
        changes.push(Change::Route { to, via, index, source, table });
    }
}

/// The neighbour's own side: it takes nodes and Services for neighbours, and asks who they are.
pub(crate) fn neighbour_changes(shape: &Shape) -> Vec<Change> {
    let mut changes = vec![Change::Up { index: UPLINK }];
    for family in Family::all_or(shape.only).iter().copied() {
        let address = plan::node_address(family, plan::NEIGHBOUR);
        let length = plan::node_link_length(family);
        let gateway = plan::node_gateway(family, plan::NEIGHBOUR);
        changes.push(Change::Address { index: UPLINK, prefix: Prefix::new(address, length) });
        changes.push(Change::Neighbour { index: UPLINK, address: gateway, mac: SEGMENT_MAC });
        changes.push(default_route(family, gateway, Some(address)));
        for i in 1..=shape.nodes.len() as u8 {
            changes.push(Change::Route {
                to: plan::pod_range(family, i),
                via: Some(plan::node_address(family, i)),
                index: UPLINK,
                source: Some(address),
                table: MAIN_TABLE,
            });
        }
        // Loopback addresses, one of each node: no host asks for them, unless it means harm.
        let loopbacks = (1..=shape.nodes.len() as u8).filter(|_| family == Family::V4);
        changes.extend(loopbacks.map(|i| Change::Route {
            to: Prefix::host(IpAddr::from([127, 0, 0, i])),
            via: Some(plan::node_address(family, i)),
            index: UPLINK,
            source: Some(address),
            table: MAIN_TABLE,
        }));
        let services = plan::service_ranges().into_iter().filter(|r| r.family() == family);
        changes.extend(services.chain([plan::all_nodes(family)]).map(|to| Change::Route {
            to,
            via: None,
            index: UPLINK,
            source: Some(address),
            table: MAIN_TABLE,
        }));
    }
    changes
}

/// On a segment a node finds the others by itself, and their pods through them.
fn others_on_segment(changes: &mut Vec<Change>, i: u8, family: Family, shape: &Shape) {
    let source = Some(plan::node_address(family, i));
    let (index, table) = (UPLINK, MAIN_TABLE);
    let route = |to, via| Change::Route { to, via, index, source, table };
    for j in (1..=shape.nodes.len() as u8).filter(|j| *j != i).chain([plan::NEIGHBOUR]) {
        let other = plan::node_address(family, j);
        changes.push(route(Prefix::host(other), None));
        if j == plan::NEIGHBOUR {
            continue;
        }
        changes.push(route(plan::pod_range(family, j), Some(other)));
        for number in 1..=shape.further_addresses {
            changes.push(route(Prefix::host(plan::further_address(family, j, number)), None));
        }
    }
}

/// The fabric's side of an outside client.
pub(crate) fn add_outside(changes: &mut Vec<Change>, namespace: &Namespace, k: u8, nodes: u8) {
    let index = outside_link(k);
    let interface = format!("outside{k}");
    changes.push(Change::Veth {
        near: end(interface.as_str(), index, outside_fabric_mac(k)),
        far: end(UPLINK_NAME, UPLINK, outside_mac(k)),
        far_namespace: namespace.network(),
        mtu: None,
    });
    for family in Family::BOTH {
        let length = plan::outside_range(family, k).length;
        let gateway = Prefix::new(plan::outside_gateway(family, k), length);
        changes.push(Change::Address { index, prefix: gateway });
        for i in 1..=nodes {
            let address = plan::outside_address(family, k, i);
            let host = Prefix::host(address);
            changes.push(Change::Neighbour { index, address, mac: outside_mac(k) });
            let (via, source, table) = (None, None, MAIN_TABLE);
            changes.push(Change::Route { to: host, via, index, source, table });
            // Only from the client's own link: from a node the same packet was not handled.
            let enter_by_node = |from| Change::Rule {
                priority: RULE_SERVICES,
                interface: interface.clone(),
                from: Some(from),
                to: None,
                table: services_table(i),
            };
            changes.push(enter_by_node(host));
            if k == CROWDED {
                let (to, via) = (plan::crowd_range(family, i), Some(address));
                changes.push(Change::Route { to, via, index, source, table });
                changes.push(enter_by_node(to));
            }
        }
    }
}

/// A node's own side.
pub(crate) fn node_changes(i: u8, shape: &Shape) -> Vec<Change> {
    let mut changes = vec![Change::Up { index: UPLINK }];
    for family in Family::all_or(shape.only).iter().copied() {
        let address = plan::node_address(family, i);
        let length = plan::node_link_length(family);
        let gateway = plan::node_gateway(family, i);
        let mac = match shape.joined {
            Joined::Routed => node_fabric_mac(i),
            Joined::OneSegment => SEGMENT_MAC,
        };
        changes.push(Change::Address { index: UPLINK, prefix: Prefix::new(address, length) });
        for number in 1..=shape.further_addresses {
            let further = plan::further_address(family, i, number);
            let prefix = Prefix::new(further, length);
            changes.push(Change::Address { index: UPLINK, prefix });
        }
        changes.push(Change::Neighbour { index: UPLINK, address: gateway, mac });
        changes.push(default_route(family, gateway, Some(address)));
        match shape.joined {
            Joined::Routed => {}
            Joined::OneSegment => others_on_segment(&mut changes, i, family, shape),
        }
    }
    changes
}

/// An outside client's own side.
pub(crate) fn outside_changes(k: u8, nodes: u8) -> Vec<Change> {
    let mut changes = vec![Change::Up { index: UPLINK }];
    for family in Family::BOTH {
        let gateway = plan::outside_gateway(family, k);
        let length = plan::outside_range(family, k).length;
        for i in 1..=nodes {
            let prefix = Prefix::new(plan::outside_address(family, k, i), length);
            changes.push(Change::Address { index: UPLINK, prefix });
            if k == CROWDED {
                changes.push(Change::LocalRoute { to: plan::crowd_range(family, i) });
            }
        }
        let mac = outside_fabric_mac(k);
        changes.push(Change::Neighbour { index: UPLINK, address: gateway, mac });
        let first = (nodes > 0).then(|| plan::outside_address(family, k, 1));
        changes.push(default_route(family, gateway, first));
    }
    changes
}

pub(crate) fn default_route(family: Family, gateway: IpAddr, source: Option<IpAddr>) -> Change {
    Change::Route {
        to: Prefix::any(family),
        via: Some(gateway),
        index: UPLINK,
        source,
        table: MAIN_TABLE,
    }
}
