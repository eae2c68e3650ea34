//! A part of a plan, where several processes that know nothing of each other carry it out.

use crate::batches::{Batch, weight};

/// What a cluster costs before its first case, in lines of rules.
const CLUSTER: usize = 300;
/// What a case costs whatever its rules, in lines of rules.
const CASE: usize = 20;

/// Which part of a plan a process runs. All of them get the same plan and the same seed, and each
/// finds out by itself which clusters are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: usize,
    of: usize,
}

impl Share {
    /// The whole plan.
    pub const WHOLE: Share = Share { index: 0, of: 1 };

    /// Part number `index`, from 0, of `of` parts. None where there is no such part.
    #[must_use]
    pub fn new(index: usize, of: usize) -> Option<Share> {
        (index < of).then_some(Share { index, of })
    }

    /// Whether it is the first part, whose process tells what is to be told once.
    pub(crate) fn is_first(self) -> bool {
        self.index == 0
    }

    /// Of how many parts.
    pub(crate) fn of(self) -> usize {
        self.of
    }

    /// The number within the run of the cluster that is this part's `number`th.
    pub(crate) fn of_run(self, number: usize) -> usize {
        (number - 1) * self.of + self.index + 1
    }

    /// Its own clusters: the heaviest go first to whoever has least.
    pub(crate) fn mine(self, batches: Vec<Batch>) -> Vec<Batch> {
        let mut heaviest: Vec<(usize, usize)> = batches.iter().map(cost).enumerate().collect();
        heaviest.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        let mut loads = vec![0; self.of];
        let mut owners = vec![0; batches.len()];
        for (number, cost) in heaviest {
            let least = (0..self.of).min_by_key(|part| loads[*part]).unwrap_or_default();
            loads[least] += cost;
            owners[number] = least;
        }
        let owned = batches.into_iter().zip(owners);
        owned.filter(|(_, owner)| *owner == self.index).map(|(batch, _)| batch).collect()
    }
}

fn cost(batch: &Batch) -> usize {
    let cases = batch.variants.iter().map(|variant| CASE + weight(variant) as usize);
    CLUSTER + cases.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use touchstone_case::Library;

    use super::*;
    use crate::batches::batches;

    #[test]
    fn every_case_is_in_one_part_and_no_part_has_much_more_than_its_share() {
        let variants = Library::bundled().expect("the bundled cases parse").variants();
        let parts: Vec<Vec<Batch>> = (0..3)
            .filter_map(|index| Share::new(index, 3))
            .map(|share| share.mine(batches(variants.clone(), 1, share.of())))
            .collect();
        let ids: Vec<String> =
            parts.iter().flatten().flat_map(|batch| &batch.variants).map(|v| v.id()).collect();
        assert_eq!(ids.len(), variants.len());
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), variants.len());
        let loads: Vec<usize> =
            parts.iter().map(|part| part.iter().map(cost).sum::<usize>()).collect();
        let (least, most) = (loads.iter().min(), loads.iter().max());
        assert!(least.zip(most).is_some_and(|(least, most)| most * 4 < least * 5), "{loads:?}");
    }

    #[test]
    fn no_two_parts_give_a_cluster_the_same_number() {
        let parts = [Share::new(0, 2), Share::new(1, 2)].map(Option::unwrap);
        let numbers: Vec<usize> =
            (1..=3).flat_map(|number| parts.map(|part| part.of_run(number))).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        assert_eq!(Share::WHOLE.of_run(3), 3);
        assert_eq!(Share::new(2, 2), None);
    }
}
