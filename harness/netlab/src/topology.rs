//! Nodes, outside clients, a fabric between them, and a sink for what nobody handled.
//!
//! Everything is routed; no link asks for neighbours, as every neighbour entry is permanent, except
//! where one segment joins the nodes: there nodes ask for each other.
//!
//! The fabric carries a packet to a Service address only if it comes from an outside client, and
//! then to the node that belongs to the packet's source address.
//! From a node such a packet has been through a proxy that did not handle it, so it goes to the
//! sink, as does every packet to an address that nobody has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::namespace::{Isolation, Namespace, Wanted};
use crate::netlink::Change;
use crate::plan::{self, Family, Prefix};
use crate::pod::{self, Pod, Slots};
use crate::settings::{Role, Unset};
use crate::tap::Tap;
use crate::wiring::{
    SEGMENT_LINK, SINK_LINK, UPLINK, add_node, add_outside, add_segment, add_sink,
    neighbour_changes, node_changes, node_link, outside_changes, outside_link,
};

/// How soon the nodes' neighbour gives up asking for a link address.
const IMPATIENT: [(&str, &str); 4] = [
    ("net.ipv4.neigh.eth0.retrans_time_ms", "40"),
    ("net.ipv4.neigh.eth0.mcast_solicit", "2"),
    ("net.ipv6.neigh.eth0.retrans_time_ms", "40"),
    ("net.ipv6.neigh.eth0.mcast_solicit", "2"),
];

/// Smallest MTU of IPv6, in bytes (RFC 8200).
const SMALLEST_MTU: u32 = 1280;

/// A node to be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeShape {
    /// Its name, also its host name.
    pub name: String,
    /// MTU of its link in bytes; `None`: 1500.
    pub mtu: Option<u32>,
}

impl NodeShape {
    /// A node with an ordinary link.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), mtu: None }
    }
}

/// A topology to be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Shape {
    /// Nodes, number 1 first.
    pub nodes: Vec<NodeShape>,
    /// Names of the outside clients, number 1 first.
    pub outside: Vec<String>,
    /// The only family that nodes and pods have; both when left out.
    pub only: Option<Family>,
    /// How many addresses of each family a node has besides its InternalIP.
    pub further_addresses: u8,
    /// Whether links take segmentation and checksums off their senders.
    pub offloads: Offloads,
    /// How nodes are joined.
    pub joined: Joined,
}

/// How nodes are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Joined {
    /// Each by a link of its own to the fabric.
    #[default]
    Routed,
    /// By one segment, on which they ask for each other's link addresses; a neighbour is on it
    /// too, which asks for those of Services.
    OneSegment,
}

/// Whether links take segmentation and checksums off their senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Offloads {
    /// As the kernel has it: packets can be larger than the MTU, and lack checksums.
    #[default]
    On,
    /// Every packet is as it would be on a wire.
    Off,
}

impl Shape {
    fn check(&self) -> Result<(), Error> {
        let room = |what: &str, wanted, room| {
            if wanted > room {
                return Err(Error::Room { what: what.to_owned(), wanted, room });
            }
            Ok(())
        };
        room("nodes", self.nodes.len(), plan::MAX_NODES)?;
        room("outside clients", self.outside.len(), plan::MAX_OUTSIDE)?;
        let further = usize::from(self.further_addresses);
        room("further addresses of a node", further, plan::MAX_FURTHER.into())?;
        let mut seen = BTreeSet::new();
        for name in self.nodes.iter().map(|node| &node.name).chain(&self.outside) {
            let why = if name.is_empty() {
                "it is empty"
            } else if name.len() > 63 {
                "it is longer than 63 bytes"
            } else if name.contains('\0') {
                "it contains a null byte"
            } else if !seen.insert(name) {
                "another one has it"
            } else {
                continue;
            };
            return Err(Error::Name { name: name.clone(), why });
        }
        self.nodes.iter().filter_map(|node| node.mtu).try_for_each(check_mtu)
    }
}

pub(crate) fn check_mtu(mtu: u32) -> Result<(), Error> {
    if mtu < SMALLEST_MTU {
        return Err(Error::Mtu { mtu, minimum: SMALLEST_MTU });
    }
    Ok(())
}

#[derive(Debug)]
pub(crate) struct Fabric {
    pub(crate) namespace: Namespace,
    /// Set when the topology goes: then nobody needs to take pods out one by one.
    pub(crate) closing: AtomicBool,
    /// Families that nodes and pods have.
    pub(crate) families: &'static [Family],
    pub(crate) offloads: Offloads,
    pub(crate) joined: Joined,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: u8,
    namespace: Namespace,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) slots: Mutex<Slots>,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number in the address plan, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its namespace, with mounts and a host name of its own.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Families of which it has addresses.
    pub fn families(&self) -> &'static [Family] {
        self.fabric.families
    }

    /// Its InternalIP of a family, where it has one.
    pub fn address(&self, family: Family) -> IpAddr {
        plan::node_address(family, self.number)
    }

    /// Its pod CIDR of a family.
    pub fn pod_range(&self, family: Family) -> Prefix {
        plan::pod_range(family, self.number)
    }

    /// Changes the MTU of its link to the fabric, on both sides, in bytes.
    ///
    /// # Errors
    ///
    /// Less than IPv6 needs, or what the kernel said.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        check_mtu(mtu)?;
        self.namespace.change(vec![Change::Mtu { index: UPLINK, mtu }])?;
        self.fabric.namespace.change(vec![Change::Mtu { index: node_link(self.number), mtu }])
    }

    /// Takes every address of a range for the node's own, as a load balancer address that is
    /// bound to a node's loopback would be.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn answer_for(&self, range: Prefix) -> Result<(), Error> {
        self.namespace.change(vec![Change::LocalRoute { to: range }])
    }
}

/// An outside client.
#[derive(Debug)]
pub struct Outside {
    name: String,
    number: u8,
    namespace: Namespace,
}

impl Outside {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number in the address plan, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address whose packets to Services enter the cluster through `node`.
    pub fn address_through(&self, family: Family, node: &Node) -> IpAddr {
        plan::outside_address(family, self.number, node.number)
    }
}

/// A whole network, separate from every other one.
///
/// Dropping it ends all its namespaces; pods that are still held keep their node until they are
/// dropped too.
#[derive(Debug)]
pub struct Topology {
    nodes: Vec<Arc<Node>>,
    outside: Vec<Outside>,
    sink: Tap,
    fabric: Arc<Fabric>,
    neighbour: Option<Namespace>,
    // After the tap, which reads from it.
    _sink_namespace: Namespace,
}

impl Topology {
    /// Makes the network.
    ///
    /// Blocks: some ten milliseconds.
    ///
    /// # Errors
    ///
    /// A shape that the address plan has no room for, or what the kernel said.
    pub fn new(shape: &Shape) -> Result<Self, Error> {
        shape.check()?;
        let made = Made::new(shape)?;
        made.fabric.change(made.fabric_changes(shape))?;
        let mut changing = vec![made.sink.begin_change(vec![Change::Up { index: UPLINK }])?];
        for (namespace, i) in made.nodes.iter().zip(1..) {
            changing.push(namespace.begin_change(node_changes(i, shape))?);
        }
        if let Some(neighbour) = &made.neighbour {
            for (setting, value) in IMPATIENT {
                neighbour.set(setting, value)?;
            }
            changing.push(neighbour.begin_change(neighbour_changes(shape))?);
        }
        let nodes = made.nodes.len() as u8;
        for (namespace, k) in made.outside.iter().zip(1..) {
            changing.push(namespace.begin_change(outside_changes(k, nodes))?);
        }
        changing.into_iter().try_for_each(|changing| changing.finish())?;
        let nodes = (1..=nodes).map(node_link);
        let outside = (1..=made.outside.len() as u8).map(outside_link);
        let segment = made.neighbour.as_ref().map(|_| SEGMENT_LINK);
        let links = nodes.chain(outside).chain([SINK_LINK]).chain(segment).collect();
        made.fabric.begin_carry(links)?.finish()?;
        if shape.offloads == Offloads::Off {
            let outside = made.outside.iter();
            let all = made.nodes.iter().chain(outside).chain([&made.fabric]).chain(&made.neighbour);
            let begun: Vec<_> = all.map(Namespace::begin_no_offloads).collect::<Result<_, _>>()?;
            begun.into_iter().try_for_each(|changing| changing.finish())?;
        }
        made.finish(shape)
    }

    /// The nodes, number 1 first.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.iter().map(Arc::as_ref)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes().find(|node| node.name == name)
    }

    /// The outside clients, number 1 first.
    pub fn outside(&self) -> &[Outside] {
        &self.outside
    }

    /// The host that is a neighbour of the nodes, where one segment joins them.
    pub fn neighbour(&self) -> Option<&Namespace> {
        self.neighbour.as_ref()
    }

    /// Counts the packets that nobody handled.
    pub fn sink(&self) -> &Tap {
        &self.sink
    }

    /// The namespace between the nodes.
    pub fn fabric(&self) -> &Namespace {
        &self.fabric.namespace
    }

    /// Settings that this kernel does not have or does not let us change, by namespace.
    ///
    /// Pods have the same as outside clients.
    pub fn unset(&self) -> BTreeMap<&str, &[Unset]> {
        let nodes = self.nodes().map(Node::namespace);
        let outside = self.outside.iter().map(Outside::namespace);
        nodes
            .chain(outside)
            .chain([self.fabric()])
            .chain(&self.neighbour)
            .filter(|namespace| !namespace.unset().is_empty())
            .map(|namespace| (namespace.name(), namespace.unset()))
            .collect()
    }

    /// Adds a pod to a node.
    ///
    /// # Errors
    ///
    /// As for [`Topology::pods`].
    pub fn pod(&self, node: &str) -> Result<Pod, Error> {
        let mut pods = self.pods(node, 1)?;
        pods.pop().ok_or_else(|| Error::NoNode { name: node.to_owned() })
    }

    /// Adds `count` pods to a node.
    ///
    /// Blocks: about a millisecond for each.
    ///
    /// # Errors
    ///
    /// No such node, more pods than the plan has addresses for, or what the kernel said.
    pub fn pods(&self, node: &str, count: usize) -> Result<Vec<Pod>, Error> {
        self.pods_on(&[(node, count)])
    }

    /// Adds pods to several nodes at a time, in the order given.
    ///
    /// # Errors
    ///
    /// As for [`Topology::pods`].
    pub fn pods_on(&self, wanted: &[(&str, usize)]) -> Result<Vec<Pod>, Error> {
        let find = |&(name, count): &(&str, usize)| {
            let node = self.nodes.iter().find(|node| node.name == name);
            let node = node.ok_or_else(|| Error::NoNode { name: name.to_owned() })?;
            Ok((Arc::clone(node), count))
        };
        pod::add(&wanted.iter().map(find).collect::<Result<Vec<_>, Error>>()?)
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        self.fabric.closing.store(true, Ordering::Relaxed);
    }
}

/// Namespaces with nothing in them yet.
struct Made {
    fabric: Namespace,
    sink: Namespace,
    nodes: Vec<Namespace>,
    outside: Vec<Namespace>,
    neighbour: Option<Namespace>,
}

impl Made {
    fn new(shape: &Shape) -> Result<Self, Error> {
        let host = |name: &str, role| Wanted {
            name: name.to_owned(),
            isolation: Isolation::Network,
            role,
            families: &Family::BOTH,
        };
        let node = |node: &NodeShape| Wanted {
            name: node.name.clone(),
            isolation: Isolation::NetworkMountsAndHostName,
            role: Role::Node,
            families: Family::all_or(shape.only),
        };
        let first = [host("fabric", Role::Fabric), host("sink", Role::Sink)];
        let outside = shape.outside.iter().map(|name| host(name, Role::Host));
        let neighbour = match shape.joined {
            Joined::Routed => None,
            Joined::OneSegment => Some(Wanted {
                families: Family::all_or(shape.only),
                ..host("neighbour", Role::Neighbour)
            }),
        };
        let joined = neighbour.is_some();
        let nodes = shape.nodes.iter().map(node);
        let all = first.into_iter().chain(neighbour).chain(nodes).chain(outside);
        let mut all = Namespace::new_many(all)?.into_iter();
        let gone = || Error::Gone { namespace: "fabric".to_owned() };
        let fabric = all.next().ok_or_else(gone)?;
        let sink = all.next().ok_or_else(gone)?;
        let neighbour = if joined { Some(all.next().ok_or_else(gone)?) } else { None };
        let nodes = all.by_ref().take(shape.nodes.len()).collect();
        Ok(Self { fabric, sink, nodes, outside: all.collect(), neighbour })
    }

    fn fabric_changes(&self, shape: &Shape) -> Vec<Change> {
        let mut changes = Vec::new();
        add_sink(&mut changes, &self.sink);
        if let Some(neighbour) = &self.neighbour {
            add_segment(&mut changes, neighbour, shape);
        }
        for ((namespace, node), i) in self.nodes.iter().zip(&shape.nodes).zip(1..) {
            add_node(&mut changes, namespace, i, node.mtu, shape);
        }
        for (namespace, k) in self.outside.iter().zip(1..) {
            add_outside(&mut changes, namespace, k, self.nodes.len() as u8);
        }
        changes
    }

    fn finish(self, shape: &Shape) -> Result<Topology, Error> {
        let sink = Tap::open(&self.sink)?;
        let fabric = Arc::new(Fabric {
            namespace: self.fabric,
            closing: AtomicBool::new(false),
            families: Family::all_or(shape.only),
            offloads: shape.offloads,
            joined: shape.joined,
        });
        let nodes = self.nodes.into_iter().zip(&shape.nodes).zip(1..);
        let nodes = nodes.map(|((namespace, node), number)| {
            Arc::new(Node {
                name: node.name.clone(),
                number,
                namespace,
                fabric: Arc::clone(&fabric),
                slots: Mutex::default(),
            })
        });
        let outside = self.outside.into_iter().zip(&shape.outside).zip(1..);
        let outside = outside.map(|((namespace, name), number)| Outside {
            name: name.clone(),
            number,
            namespace,
        });
        Ok(Topology {
            nodes: nodes.collect(),
            outside: outside.collect(),
            sink,
            fabric,
            neighbour: self.neighbour,
            _sink_namespace: self.sink,
        })
    }
}

impl Node {
    pub(crate) fn lock_slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nodes: &[&str], outside: &[&str], expected: &str) {
        let shape = Shape {
            nodes: nodes.iter().map(|name| NodeShape::new(*name)).collect(),
            outside: outside.iter().map(|name| (*name).to_owned()).collect(),
            ..Shape::default()
        };
        let said = shape.check().err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(said, expected);
    }

    #[test]
    fn shapes_are_checked() {
        check(&["n1", "n2"], &["o1"], "");
        check(&["n1"; 14], &[], "no room for 14 nodes, the address plan has 13");
        check(
            &["n1", "n1"],
            &[],
            r#""n1" cannot be the name of a node or an outside client: another one has it"#,
        );
        check(&[""], &[], r#""" cannot be the name of a node or an outside client: it is empty"#);
    }
}
