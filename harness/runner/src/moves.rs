//! Kept UDP flows that left an endpoint without need.
//!
//! A TCP connection that is handed to another endpoint breaks, so it is noticed as lost. A UDP
//! flow goes on, and only the name of who answers tells that its choice was made anew.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use touchstone_case::{Keep, Traffic};
use touchstone_spec::{Features, Observation, Outcome, Protocol};

use crate::worlds::Worlds;

/// The moves of kept UDP flows from endpoints that could be used all the while, in words.
///
/// `attempts` are the flow by number, what it met, and when after the start it was sent, in the
/// order of each flow.
pub(crate) fn needless(
    traffic: &Traffic,
    attempts: &[(usize, Observation, Duration)],
    worlds: &Worlds,
    features: &Features,
) -> Vec<String> {
    if traffic.keep != Keep::Connection {
        return Vec::new();
    }
    let mut at: BTreeMap<usize, SocketAddr> = BTreeMap::new();
    let mut moves = Vec::new();
    for (number, saw, when) in attempts {
        let flow = &traffic.flows[*number];
        let Observation::Saw(Outcome::Reached { endpoint, .. }) = saw else { continue };
        if flow.protocol != Protocol::Udp {
            continue;
        }
        if let Some(left) = at.insert(*number, *endpoint)
            && left != *endpoint
            && worlds.always_reach(flow, left, features)
        {
            let when = when.as_millis();
            moves.push(format!(
                "{}: went from {left} to {endpoint}, {when} ms after its start",
                flow.text
            ));
        }
    }
    moves
}
