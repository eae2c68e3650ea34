//! How many samples the cells of a run need, from its stated rate of false alarms.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use touchstone_case::{Variant, compile, planned_book};
use touchstone_model::entry;
use touchstone_spec::{Expectation, Features, Flow, Protocol};

use crate::expected::expect;
use touchstone_verdict::{miss_probability, samples_to_see_all};

/// Least samples of a cell that a case pins. Silence and refusals do not vary by chance, so for
/// them it is also the most.
const PINNED: u64 = 2;
/// Least samples of a cell of the model's matrix, which was already looked at once.
const MATRIX: u64 = 1;
/// Probability that a proxy without affinity passes for one that has it, in one cell.
const AFFINITY_MISS: f64 = 1e-6;

/// Sample sizes of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampling {
    miss: f64,
}

/// What cells must have in common to see the endpoints of one choice: the node that chooses, the
/// frontend, and the endpoints. Which client asks makes no difference to a choice by chance, so
/// the duty to see every endpoint is theirs together.
pub(crate) type ChoiceKey = (Option<String>, SocketAddr, Protocol, BTreeSet<SocketAddr>);

/// The choice that a flow takes part in, if its endpoints must all be seen.
pub(crate) fn choice(
    node: Option<&str>,
    flow: &Flow,
    expectation: &Expectation,
) -> Option<ChoiceKey> {
    let endpoints = expectation.endpoints();
    let duty = expectation.cover && !expectation.open && endpoints.len() > 1;
    duty.then(|| (node.map(str::to_owned), flow.to, flow.protocol, endpoints))
}

impl Sampling {
    /// Divides the run's false alarm rate among all choices whose endpoints must be seen.
    pub(crate) fn of(variants: &[Variant]) -> Sampling {
        let features = Features::default();
        let mut duties = 0;
        for variant in variants {
            let Ok(script) = compile(variant, &mut planned_book(variant)) else { continue };
            for step in script.steps {
                let flows = step.rows.iter().map(|row| &row.flow).chain(&step.matrix);
                let choices: BTreeSet<ChoiceKey> = flows
                    .filter_map(|flow| {
                        let node =
                            entry(&step.world, flow, &features).map(|node| node.name.as_str());
                        choice(node, flow, &expect(&step.world, flow, &features))
                    })
                    .collect();
                duties += choices.len() as u64;
            }
        }
        Sampling { miss: miss_probability(duties) }
    }

    /// Samples that judge a cell which shares its choice with `sharing` cells, itself included.
    pub(crate) fn wanted(self, expectation: &Expectation, sharing: u64, pinned: bool) -> u64 {
        let endpoints = expectation.endpoints().len();
        let least = if pinned { PINNED } else { MATRIX };
        if expectation.open || endpoints == 0 {
            least
        } else if expectation.sticky {
            // All but the first must land on the same endpoint; without affinity each does so
            // with probability 1/k.
            let k = endpoints.max(2) as f64;
            (-AFFINITY_MISS.ln() / k.ln()).ceil() as u64 + 1
        } else if expectation.cover && endpoints > 1 {
            samples_to_see_all(endpoints, self.miss).div_ceil(sharing.max(1)).max(least)
        } else {
            least
        }
    }

    /// Probability with which a right proxy may miss one duty.
    pub(crate) fn miss(self) -> f64 {
        self.miss
    }
}
