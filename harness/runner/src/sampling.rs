//! How many samples the cells of a run need, from its stated rate of false alarms.

use touchstone_case::{Variant, compile, planned_book};
use touchstone_model::expect;
use touchstone_spec::{Expectation, Features};
use touchstone_verdict::{miss_probability, samples_to_see_all};

/// Samples of a cell whose answer is no endpoint: silence and refusals do not vary by chance.
const NEGATIVE: u64 = 3;
/// Samples of a cell with a single possible endpoint.
const SINGLE: u64 = 3;
/// Probability that a proxy without affinity passes for one that has it, in one cell.
const AFFINITY_MISS: f64 = 1e-6;

/// Sample sizes of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampling {
    miss: f64,
}

impl Sampling {
    /// Divides the run's false alarm rate among all cells that have endpoints to cover.
    pub(crate) fn of(variants: &[Variant]) -> Sampling {
        let features = Features::default();
        let duties: u64 = variants
            .iter()
            .filter_map(|variant| compile(variant, &mut planned_book(variant)).ok())
            .flat_map(|script| script.steps)
            .map(|step| {
                let flows = step.rows.iter().map(|row| &row.flow).chain(&step.matrix);
                flows.filter(|flow| expect(&step.world, flow, &features).cover).count() as u64
            })
            .sum();
        Sampling { miss: miss_probability(duties) }
    }

    /// Samples that judge a cell.
    pub(crate) fn wanted(self, expectation: &Expectation) -> u64 {
        let endpoints = expectation.endpoints().len();
        if expectation.open || endpoints == 0 {
            NEGATIVE
        } else if expectation.sticky {
            // All but the first must land on the same endpoint; without affinity each does so
            // with probability 1/k.
            let k = endpoints.max(2) as f64;
            (-AFFINITY_MISS.ln() / k.ln()).ceil() as u64 + 1
        } else if expectation.cover && endpoints > 1 {
            samples_to_see_all(endpoints, self.miss)
        } else {
            SINGLE
        }
    }

    /// Probability with which a right proxy may miss one cell's duty.
    pub(crate) fn miss(self) -> f64 {
        self.miss
    }
}
