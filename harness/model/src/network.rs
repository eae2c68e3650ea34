//! What the network between pods and nodes makes of a client's address.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use touchstone_spec::{Client, ClientKind, Flow, Node, World};

use crate::path::{kept_source, node_addresses};

/// A flow as it arrives where it is handled: a pod that calls another node's address arrives as
/// its own node, where the network masquerades so.
pub(crate) fn arriving<'f>(world: &World, flow: &'f Flow) -> Cow<'f, Flow> {
    let Some(node) = masquerading(world, flow, flow.to.ip()) else { return Cow::Borrowed(flow) };
    let Some(address) = node.internal_ip(flow.family()) else { return Cow::Borrowed(flow) };
    let client = Client { kind: ClientKind::Node, address, ..flow.client.clone() };
    Cow::Owned(Flow { client, ..flow.clone() })
}

/// Addresses under which an endpoint may see a client whose address the proxy keeps.
pub(crate) fn source_at(world: &World, flow: &Flow, endpoint: IpAddr) -> BTreeSet<IpAddr> {
    match masquerading(world, flow, endpoint) {
        Some(node) => node_addresses(node, flow.family()),
        None => kept_source(world, flow),
    }
}

/// The node whose address a pod's packet to `destination` gets from the network.
fn masquerading<'w>(world: &'w World, flow: &Flow, destination: IpAddr) -> Option<&'w Node> {
    if !world.network.masquerades_pods() || flow.client.kind != ClientKind::Pod {
        return None;
    }
    let own = world.node(flow.client.node.as_deref()?)?;
    let owner = world.owner(destination)?;
    (owner.name != own.name).then_some(own)
}
