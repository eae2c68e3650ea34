//! Which node's proxy sees a packet first, and which addresses that node may put on it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use touchstone_spec::{ClientKind, Family, Features, Flow, LocalDetector, Node, World};

use crate::claim::claim;

/// The node whose proxy decides about a flow.
///
/// The first node that sees the packet decides when one of its Services claims address and port,
/// also where the address is another node's own (adjudication 0001); what it does not claim is
/// decided by the owner of the address. Packets of outside clients come to the owner directly, and
/// those to any other address enter by `via`.
/// None when the packet never enters a node.
#[must_use]
pub fn entry<'w>(world: &'w World, flow: &Flow, features: &Features) -> Option<&'w Node> {
    let own = flow.client.node.as_deref().and_then(|name| world.node(name));
    if flow.to.ip().is_loopback() {
        return own;
    }
    if let Some(owner) = world.owner(flow.to.ip()) {
        let first = own.filter(|node| !claim(world, flow, node, features).is_empty());
        return first.or(Some(owner));
    }
    own.or_else(|| world.node(flow.via.as_deref()?))
}

/// Whether the proxy on `node` takes the flow's client for a pod of the cluster.
///
/// Spec: `detectLocalMode`; with the ranges of all pods, pods of other nodes count as well when
/// their packets arrive with the pod's address. The other modes know pods of `node` only.
pub(crate) fn is_local_pod(world: &World, flow: &Flow, node: &Node) -> bool {
    let address = &flow.client.address;
    let here = flow.client.node.as_deref() == Some(node.name.as_str());
    flow.client.kind == ClientKind::Pod
        && match &world.proxy.detector {
            LocalDetector::None => false,
            LocalDetector::ClusterCidr(ranges) => ranges.iter().any(|r| r.contains(address)),
            LocalDetector::NodeCidr(ranges) => ranges
                .get(&node.name)
                .is_some_and(|ranges| ranges.iter().any(|range| range.contains(address))),
            LocalDetector::BridgeInterface(behind) => {
                here && behind.get(&node.name).is_some_and(|behind| behind.contains(address))
            }
            LocalDetector::InterfaceNamePrefix => here,
        }
}

/// How a detector decides, in words.
pub(crate) fn detection(detector: &LocalDetector) -> &'static str {
    match detector {
        LocalDetector::None => "nothing tells pods from other clients",
        LocalDetector::ClusterCidr(_) => "detectLocalMode ClusterCIDR: by the ranges of all pods",
        LocalDetector::NodeCidr(_) => "detectLocalMode NodeCIDR: by the node's own pod ranges",
        LocalDetector::BridgeInterface(_) => {
            "detectLocalMode BridgeInterface: by the one link behind which pods are"
        }
        LocalDetector::InterfaceNamePrefix => {
            "detectLocalMode InterfaceNamePrefix: by the links of the node's pods"
        }
    }
}

/// Whether the flow's client is the node itself.
pub(crate) fn is_own_node(flow: &Flow, node: &Node) -> bool {
    flow.client.kind == ClientKind::Node && flow.client.node.as_deref() == Some(&node.name)
}

/// Addresses under which an endpoint may see a client whose address is kept.
///
/// A node may send from any of its addresses.
pub(crate) fn kept_source(world: &World, flow: &Flow) -> BTreeSet<IpAddr> {
    match flow.client.kind {
        ClientKind::Pod | ClientKind::Outside => BTreeSet::from([flow.client.address]),
        ClientKind::Node => flow
            .client
            .node
            .as_deref()
            .and_then(|name| world.node(name))
            .map(|node| node_addresses(node, flow.family()))
            .unwrap_or_else(|| BTreeSet::from([flow.client.address])),
    }
}

/// A node's addresses of one family: any of them may be the source after masquerade.
pub(crate) fn node_addresses(node: &Node, family: Family) -> BTreeSet<IpAddr> {
    node.addresses.iter().copied().filter(|ip| Family::of(*ip) == family).collect()
}
