//! What the model expects, as far as the cluster can show it.

use touchstone_spec::{Allowed, Expectation, Features, Flow, World};

/// What a flow may meet in a world.
///
/// Where nobody can tell what no node took from what a node dropped, one is as good as the other.
pub(crate) fn expect(world: &World, flow: &Flow, features: &Features) -> Expectation {
    let mut expectation = touchstone_model::expect(world, flow, features);
    if world.unhandled_is_silent && expectation.allowed.contains(&Allowed::Unhandled) {
        expectation.allowed.insert(Allowed::Dropped);
    }
    expectation
}
