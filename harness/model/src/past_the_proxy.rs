//! Traffic past the proxy: straight to an endpoint, or to what listens on a node's loopback.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use touchstone_spec::{Allowed, ClientKind, Expectation, Family, Flow, World};

use crate::answer::{PROXY, one};
use crate::endpoints::{address, reason};
use crate::path::kept_source;

/// What listens on a loopback address of a node: there for the node alone.
pub(crate) fn on_loopback(flow: &Flow) -> Expectation {
    if flow.client.kind == ClientKind::Node {
        let source = match flow.family() {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        let reached = Allowed::Reached { endpoint: flow.to, sources: BTreeSet::from([source]) };
        return Expectation {
            allowed: BTreeSet::from([reached]),
            reasons: vec![reason(
                "a node reaches what listens on its loopback",
                "RFC 1122 section 3.2.1.3",
            )],
            ..Expectation::default()
        };
    }
    one(
        Allowed::Dropped,
        reason(
            "a packet from another machine for a loopback address is dropped",
            "CVE-2020-8558; RFC 1122 section 3.2.1.3",
        ),
    )
}

/// An endpoint itself, past the proxy.
pub(crate) fn direct(world: &World, flow: &Flow) -> Expectation {
    Expectation {
        allowed: BTreeSet::from([Allowed::Reached {
            endpoint: flow.to,
            sources: kept_source(world, flow),
        }]),
        reasons: vec![reason("traffic past the proxy keeps its addresses", PROXY)],
        ..Expectation::default()
    }
}

pub(crate) fn is_endpoint(world: &World, to: SocketAddr) -> bool {
    world.slices.iter().any(|slice| {
        slice.ports.iter().any(|port| port.port == Some(to.port()))
            && slice.endpoints.iter().any(|endpoint| {
                endpoint.addresses.iter().any(|text| address(text) == Some(to.ip()))
            })
    })
}
