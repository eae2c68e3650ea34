//! The oracle: what the Service API allows for one flow in one world, with reasons.
//!
//! [`expect`] is a function of its arguments: no clock, no randomness, no I/O, no unordered map.
//! It answers with a *set* of outcomes, since the API leaves choices open; a subject narrows some
//! of them by declaring features.

mod answer;
mod balancer;
mod claim;
mod endpoints;
mod firewall;
mod names;
mod network;
mod node_ports;
mod past_the_proxy;
mod path;

pub use claim::{Claim, ClaimKind, claim};
pub use endpoints::{Backend, backends};
pub use path::entry;

use touchstone_spec::{Expectation, Features, Flow, World};

/// The outcomes that the API allows for a flow in a world.
///
/// Features narrow the answer where the API leaves a choice that the subject has declared.
///
/// Spec: the API text of `v1.Service` and `EndpointSlice`, the DNS specification for Kubernetes
/// Services 1.1.0, and the KEPs named in each reason.
#[must_use]
pub fn expect(world: &World, flow: &Flow, features: &Features) -> Expectation {
    match &flow.question {
        Some(question) => names::answer(world, flow, question, features),
        None => answer::answer(world, flow, features),
    }
}
