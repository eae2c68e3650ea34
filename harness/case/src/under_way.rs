//! Datagrams under way to an endpoint that goes.
//!
//! A proxy has to forget the UDP flows of an endpoint that serves no more, and nothing translates
//! an answer that is under way at that moment. How many there are is a matter of the network and
//! of the endpoint, so that no proxy can be held to a small number (adjudication 0134).

use std::time::Duration;

use touchstone_spec::{Features, Flow, Protocol, World};

use crate::{CaseError, Keep, Script, ScriptStep, Traffic, Variant};

/// How long an answer may be under way where the machine is busy, until a loss is in doubt anyway.
const UNDER_WAY: Duration = Duration::from_millis(400);

/// Refuses traffic of new UDP clients that may lose next to nothing while one of its endpoints
/// stops serving.
///
/// A client that keeps its port has one datagram under way at a time: its budget can be exact.
pub(crate) fn check(
    variant: &Variant,
    script: &Script,
    features: &Features,
) -> Result<(), CaseError> {
    for (index, (step, text)) in script.steps.iter().zip(&variant.case().body().steps).enumerate() {
        let before = index.checked_sub(1).and_then(|earlier| script.steps.get(earlier));
        let (Some(before), Some(traffic), Some(text)) =
            (before, &step.traffic, &text.value.traffic)
        else {
            continue;
        };
        let needed = needed(before, step, traffic, features);
        if traffic.budget < needed {
            let message = "UDP clients may be answered by an endpoint that stops serving in this \
                           step, and the proxy has to forget their flows with answers under way";
            return Err(CaseError::new(variant.case().source(), text.place, message).help(
                format!(
                    "let the endpoint terminate first and go in a later step, keep the clients' \
                 ports (`keep: connection`), or give a budget of {needed} or more"
                ),
            ));
        }
    }
    Ok(())
}

/// The smallest budget that says something about the proxy.
fn needed(before: &ScriptStep, step: &ScriptStep, traffic: &Traffic, features: &Features) -> u32 {
    if traffic.keep != Keep::Nothing {
        return 0;
    }
    let loses = |flow: &&Flow| {
        flow.protocol == Protocol::Udp
            && touchstone_model::expect(&before.world, flow, features)
                .endpoints()
                .iter()
                .any(|endpoint| !serves(&step.world, &endpoint.ip().to_string()))
    };
    let flows = u32::try_from(traffic.flows.iter().filter(loses).count()).unwrap_or(u32::MAX);
    let each = UNDER_WAY.as_millis().div_ceil(traffic.every.as_millis().max(1));
    flows.saturating_mul(u32::try_from(each).unwrap_or(u32::MAX))
}

/// Whether an address is that of an endpoint that serves, terminating or not.
fn serves(world: &World, address: &str) -> bool {
    world.slices.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| {
        endpoint.conditions.is_serving() && endpoint.addresses.iter().any(|a| a == address)
    })
}
