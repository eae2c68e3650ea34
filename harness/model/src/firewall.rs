//! What is left of an answer behind the rules that others have in the nodes' firewall.
//!
//! A packet passes the forward hook of the node that handles it, unless it starts there or ends
//! there or the proxy takes it in and sends it on, and then that of the endpoint's node. It passes the input hook of a node whose own
//! address it is for.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use touchstone_spec::{Allowed, ClientKind, Expectation, Features, Firewall, Flow, Node, World};

use crate::claim::claim;
use crate::endpoints::reason;
use crate::path::{entry, is_own_node};

const FIREWALL: &str = "a firewall's drop is final unless the proxy accepts before it";

/// The answer behind the firewalls of the world's nodes.
///
/// The flow is as it arrives where it is handled.
pub(crate) fn pass(
    world: &World,
    flow: &Flow,
    features: &Features,
    mut answer: Expectation,
) -> Expectation {
    for owner in &world.network.firewall {
        let why = match owner {
            Firewall::ForwardDrop => {
                behind(&mut answer, |allowed| forward_drops(world, flow, features, allowed))
                    .then_some("a node's FORWARD policy is DROP, and nobody accepts the packet")
            }
            Firewall::InputDrop => {
                behind(&mut answer, |allowed| input_drops(world, flow, features, allowed))
                    .then_some("a node's INPUT policy is DROP, and nobody accepts the packet")
            }
            Firewall::Policy => {
                behind(&mut answer, |allowed| policy_drops(world, flow, features, allowed))
                    .then_some("the network policy admits pods only, and sees no pod's address")
            }
            Firewall::SecondPostrouting => None,
        };
        if let Some(why) = why {
            answer.reasons.push(reason(why, FIREWALL));
        }
    }
    answer
}

/// Drops what a firewall drops of the allowed outcomes; whether it was any.
fn behind(answer: &mut Expectation, drops: impl Fn(&Allowed) -> bool) -> bool {
    let before = std::mem::take(&mut answer.allowed);
    let mut any = false;
    for allowed in before {
        if drops(&allowed) {
            any = true;
            answer.allowed.insert(Allowed::Dropped);
        } else {
            answer.allowed.insert(allowed);
        }
    }
    any
}

/// The policy DROP of a FORWARD chain that accepts what comes from pods and nodes.
fn forward_drops(world: &World, flow: &Flow, features: &Features, allowed: &Allowed) -> bool {
    let from_outside = flow.client.kind == ClientKind::Outside;
    let Some(node) = first(world, flow, features) else { return false };
    match allowed {
        Allowed::Reached { endpoint, sources } => {
            let ends_here = node.addresses.contains(&endpoint.ip());
            // Only what is masqueraded carries the proxy's mark when it is forwarded.
            let marked = !sources.contains(&flow.client.address);
            let accepted = marked && features.has("forwards-through-drop-policy");
            let taken = takes_in(world, flow, node, features);
            from_outside && !ends_here && !taken && !accepted
        }
        Allowed::Unhandled => from_outside,
        Allowed::Http { .. }
        | Allowed::Refused
        | Allowed::Closed
        | Allowed::Dropped
        | Allowed::Answered(_) => false,
    }
}

/// The policy DROP of an INPUT chain that accepts answers, the loopback and what is for cluster IPs.
fn input_drops(world: &World, flow: &Flow, features: &Features, allowed: &Allowed) -> bool {
    let Some(node) = first(world, flow, features) else { return false };
    let taken = takes_in(world, flow, node, features);
    let ranges = &world.proxy.service_cidrs;
    // What is taken in passes the hook with the Service's address.
    if taken && !is_own_node(flow, node) && !ranges.iter().any(|r| r.contains(&flow.to.ip())) {
        return matches!(allowed, Allowed::Reached { .. } | Allowed::Refused);
    }
    match allowed {
        Allowed::Reached { endpoint, .. } => {
            // What a node sends to itself comes by its loopback.
            let passes =
                |owner: &Node| is_own_node(flow, owner) || taken && owner.name == node.name;
            world.owner(endpoint.ip()).is_some_and(|owner| !passes(owner))
        }
        Allowed::Http { .. } => {
            !is_own_node(flow, node) && !features.has("opens-health-check-in-input")
        }
        // The kernel's own refusal comes after the hook, the proxy's before it.
        Allowed::Refused => {
            world.owner(flow.to.ip()).is_some()
                && !is_own_node(flow, node)
                && claim(world, flow, node, features).is_empty()
        }
        Allowed::Closed | Allowed::Unhandled | Allowed::Dropped | Allowed::Answered(_) => false,
    }
}

/// A network policy that admits pods only, and looks at the forward hook for a pod's source and
/// an endpoint's destination.
fn policy_drops(world: &World, flow: &Flow, features: &Features, allowed: &Allowed) -> bool {
    let Some(node) = first(world, flow, features) else { return false };
    let starts_here = is_own_node(flow, node);
    let from_pod = flow.client.kind == ClientKind::Pod;
    match allowed {
        Allowed::Reached { endpoint, sources } => {
            if world.owner(endpoint.ip()).is_some() {
                return false;
            }
            let forwarded = !starts_here && !takes_in(world, flow, node, features);
            if forwarded && !from_pod {
                return true;
            }
            let kept = from_pod && *sources == BTreeSet::from([flow.client.address]);
            home(world, *endpoint).is_none_or(|home| home != node.name) && !kept
        }
        // On its way out it still has the Service's address.
        Allowed::Unhandled => !starts_here,
        Allowed::Http { .. }
        | Allowed::Refused
        | Allowed::Closed
        | Allowed::Dropped
        | Allowed::Answered(_) => false,
    }
}

/// Whether the node's proxy takes the packet in and sends it on as the node's own.
fn takes_in(world: &World, flow: &Flow, node: &Node, features: &Features) -> bool {
    features.has("sends-on-as-the-node") && !claim(world, flow, node, features).is_empty()
}

/// The node whose hooks a packet passes first: for one that goes straight to an endpoint, the
/// endpoint's own.
fn first<'w>(world: &'w World, flow: &Flow, features: &Features) -> Option<&'w Node> {
    entry(world, flow, features).or_else(|| world.node(home(world, flow.to)?))
}

/// The node on which an endpoint runs, as its slice says.
fn home(world: &World, endpoint: SocketAddr) -> Option<&str> {
    world.slices.iter().flat_map(|slice| &slice.endpoints).find_map(|one| {
        let here = one.addresses.iter().any(|a| a.parse() == Ok(endpoint.ip()));
        one.node_name.as_deref().filter(|_| here)
    })
}
