//! Attempts that were lost while their flow went from one endpoint to another.
//!
//! Where a proxy forgets the flows of an endpoint that goes, an answer that is under way just then
//! finds no way back. How many that are says how long answers take, and nothing of how long nobody
//! was served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use touchstone_spec::{Observation, Outcome};

use crate::traffic::is_loss;

/// How many of the lost ones were sent after the last answer of endpoints that their flow had
/// before, and before the first answer of others.
///
/// `attempts` are the flow by number, what it met, and when it was sent.
pub(crate) fn losses(attempts: &[(usize, Observation, Duration)]) -> usize {
    // Of each flow's endpoints, when the first and the last attempt was sent that they answered.
    let mut answered: BTreeMap<(usize, SocketAddr), (Duration, Duration)> = BTreeMap::new();
    for (flow, saw, sent) in attempts {
        if let Observation::Saw(Outcome::Reached { endpoint, resent: 0, .. }) = saw {
            let (first, last) = answered.entry((*flow, *endpoint)).or_insert((*sent, *sent));
            (*first, *last) = ((*first).min(*sent), (*last).max(*sent));
        }
    }
    let at_a_switch = |flow: usize, sent: Duration| {
        let of_flow = || answered.iter().filter(|((of, _), _)| *of == flow).map(|(_, span)| span);
        of_flow().any(|(first, _)| *first < sent)
            && of_flow().any(|(_, last)| *last > sent)
            && !of_flow().any(|(first, last)| *first < sent && *last > sent)
    };
    let lost = |saw: &Observation| matches!(saw, Observation::Saw(outcome) if is_loss(outcome));
    attempts.iter().filter(|(flow, saw, sent)| lost(saw) && at_a_switch(*flow, *sent)).count()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// One flow whose attempts, one a millisecond, were answered by the endpoint of that number, or
    /// lost where it is 0.
    fn of_flow(flow: usize, endpoints: &[u8]) -> Vec<(usize, Observation, Duration)> {
        let saw = |number: u8| {
            let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, number), 80));
            Observation::Saw(match number {
                0 => Outcome::Dropped,
                _ => Outcome::Reached { endpoint: address, source: address.ip(), resent: 0 },
            })
        };
        let times = (0..).map(Duration::from_millis);
        endpoints.iter().zip(times).map(|(number, at)| (flow, saw(*number), at)).collect()
    }

    #[test]
    fn those_between_two_endpoints_count() {
        assert_eq!(losses(&of_flow(0, &[1, 1, 0, 0, 2, 2])), 2);
        assert_eq!(losses(&of_flow(0, &[1, 0, 1, 2, 0, 2])), 0, "beside the switch");
        assert_eq!(losses(&of_flow(0, &[1, 2, 0, 1, 2])), 0, "it goes to both all the while");
        assert_eq!(losses(&of_flow(0, &[0, 1, 1, 0])), 0, "nobody answered before, or after");
        let two = [of_flow(0, &[1, 0, 2, 2]), of_flow(1, &[1, 1, 1, 0, 2])].concat();
        assert_eq!(losses(&two), 2, "each flow has its own switch");
    }
}
