//! One cell: what was seen against what is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use touchstone_spec::{Expectation, Observation, Outcome};

/// What a cell has seen since it was last wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CellTally {
    seen: Vec<(Observation, u64)>,
    samples: u64,
}

/// What is wrong about one observation or about all of a cell's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// An outcome outside the allowed set.
    Outcome(Outcome),
    /// An answer that came only after a packet was sent again: lost packets.
    Resent(Outcome),
    /// Endpoints that never answered although there were enough connections.
    NeverSeen(BTreeSet<SocketAddr>),
    /// One client address was served by several endpoints although it must keep to one.
    Moved(BTreeSet<SocketAddr>),
    /// None of many clients was chosen for anew after a pause of so many seconds.
    Kept(u64),
    /// Endpoints whose share of the connections is too far from even, in thousandths.
    Uneven(BTreeMap<SocketAddr, u64>),
}

/// What follows from a cell's tally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellJudgement {
    /// Everything seen is allowed, and enough was seen.
    Agrees,
    /// More samples are needed.
    NeedsMore,
    /// The probe itself broke, so nothing can be said.
    Broken(String),
    /// Something is wrong.
    Wrong(Wrong),
}

impl CellTally {
    /// Adds one observation.
    pub fn add(&mut self, saw: Observation) {
        self.samples += 1;
        match self.seen.iter_mut().find(|(known, _)| *known == saw) {
            Some((_, count)) => *count += 1,
            None => self.seen.push((saw, 1)),
        }
    }

    /// The tally without some observations.
    #[must_use]
    pub fn without(&self, gone: impl Fn(&Observation) -> bool) -> CellTally {
        let seen: Vec<_> = self.seen.iter().filter(|(saw, _)| !gone(saw)).cloned().collect();
        CellTally { samples: seen.iter().map(|(_, count)| count).sum(), seen }
    }

    /// Number of observations.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// What was seen how often, in order of first sight.
    #[must_use]
    pub fn seen(&self) -> &[(Observation, u64)] {
        &self.seen
    }

    /// How often each endpoint answered.
    #[must_use]
    pub fn endpoints(&self) -> BTreeMap<SocketAddr, u64> {
        let mut counts = BTreeMap::new();
        for (saw, count) in &self.seen {
            if let Observation::Saw(Outcome::Reached { endpoint, .. }) = saw {
                *counts.entry(*endpoint).or_default() += count;
            }
        }
        counts
    }

    /// Judges what was seen so far; `wanted` is the number of samples that covers the duty.
    #[must_use]
    pub fn judge(&self, expectation: &Expectation, wanted: u64) -> CellJudgement {
        for (saw, _) in &self.seen {
            match judge_one(expectation, saw) {
                CellJudgement::Agrees => {}
                worse @ (CellJudgement::NeedsMore
                | CellJudgement::Broken(_)
                | CellJudgement::Wrong(_)) => return worse,
            }
        }
        if expectation.sticky && !expectation.open {
            let moved: BTreeSet<SocketAddr> = self.endpoints().into_keys().collect();
            if moved.len() > 1 {
                return CellJudgement::Wrong(Wrong::Moved(moved));
            }
        }
        if self.samples < wanted {
            return CellJudgement::NeedsMore;
        }
        if expectation.cover && !expectation.open {
            let answered = self.endpoints();
            let never: BTreeSet<SocketAddr> = expectation
                .endpoints()
                .into_iter()
                .filter(|endpoint| !answered.contains_key(endpoint))
                .collect();
            if !never.is_empty() {
                return CellJudgement::Wrong(Wrong::NeverSeen(never));
            }
        }
        CellJudgement::Agrees
    }

    /// Whether the endpoints' shares are even within `slack`.
    #[must_use]
    pub fn judge_even(&self, expectation: &Expectation, slack: f64) -> CellJudgement {
        let endpoints = expectation.endpoints();
        let counts = self.endpoints();
        let total = counts.values().sum::<u64>().max(1) as f64;
        let fair = 1.0 / endpoints.len().max(1) as f64;
        let uneven: BTreeMap<SocketAddr, u64> = endpoints
            .into_iter()
            .map(|e| (e, counts.get(&e).copied().unwrap_or(0) as f64 / total))
            .filter(|(_, share)| (share - fair).abs() > slack)
            .map(|(e, share)| (e, (share * 1000.0).round() as u64))
            .collect();
        if uneven.is_empty() {
            CellJudgement::Agrees
        } else {
            CellJudgement::Wrong(Wrong::Uneven(uneven))
        }
    }
}

/// Judges a single observation by membership alone.
#[must_use]
pub fn judge_one(expectation: &Expectation, saw: &Observation) -> CellJudgement {
    match saw {
        Observation::ProbeBroke(why) => CellJudgement::Broken(why.clone()),
        Observation::Saw(outcome @ Outcome::Reached { resent, .. })
            if *resent > 0 && !expectation.open =>
        {
            CellJudgement::Wrong(Wrong::Resent(outcome.clone()))
        }
        Observation::Saw(outcome) if expectation.admits(outcome) => CellJudgement::Agrees,
        Observation::Saw(outcome) => CellJudgement::Wrong(Wrong::Outcome(outcome.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchstone_spec::Allowed;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn reached(port: u16, resent: u32) -> Observation {
        Observation::Saw(Outcome::Reached { endpoint: at(port), source: at(1).ip(), resent })
    }

    fn two() -> Expectation {
        let allowed = [1, 2].map(|port| Allowed::Reached {
            endpoint: at(port),
            sources: BTreeSet::from([at(1).ip()]),
        });
        Expectation { allowed: allowed.into(), cover: true, ..Expectation::default() }
    }

    fn judge(seen: &[Observation], expectation: &Expectation, wanted: u64) -> CellJudgement {
        let mut tally = CellTally::default();
        for saw in seen {
            tally.add(saw.clone());
        }
        tally.judge(expectation, wanted)
    }

    #[test]
    fn enough_of_everything_agrees() {
        let seen = [reached(1, 0), reached(2, 0)];
        assert_eq!(judge(&seen, &two(), 2), CellJudgement::Agrees);
        assert_eq!(judge(&seen, &two(), 3), CellJudgement::NeedsMore);
        assert_ne!(judge(&[], &two(), 1), CellJudgement::Agrees);
    }

    #[test]
    fn a_missing_endpoint_is_wrong_only_with_enough_samples() {
        let seen = [reached(1, 0), reached(1, 0)];
        assert_eq!(judge(&seen, &two(), 2), CellJudgement::Wrong(Wrong::NeverSeen([at(2)].into())));
        assert_eq!(judge(&seen, &two(), 3), CellJudgement::NeedsMore);
    }

    #[test]
    fn a_retransmission_is_a_loss() {
        assert!(matches!(
            judge(&[reached(1, 1)], &two(), 1),
            CellJudgement::Wrong(Wrong::Resent(_))
        ));
    }

    #[test]
    fn a_strange_answer_is_wrong_at_once() {
        let seen = [reached(1, 0), reached(2, 0), reached(3, 0)];
        assert!(matches!(judge(&seen, &two(), 2), CellJudgement::Wrong(Wrong::Outcome(_))));
        let dropped = [Observation::Saw(Outcome::Dropped)];
        assert!(matches!(judge(&dropped, &two(), 9), CellJudgement::Wrong(Wrong::Outcome(_))));
    }

    #[test]
    fn a_broken_probe_says_nothing() {
        let seen = [Observation::ProbeBroke("no socket".into())];
        assert_eq!(judge(&seen, &two(), 1), CellJudgement::Broken("no socket".into()));
    }

    #[test]
    fn affinity_keeps_to_one() {
        let sticky = Expectation { cover: false, sticky: true, ..two() };
        assert_eq!(judge(&[reached(1, 0), reached(1, 0)], &sticky, 2), CellJudgement::Agrees);
        assert!(matches!(
            judge(&[reached(1, 0), reached(2, 0)], &sticky, 2),
            CellJudgement::Wrong(Wrong::Moved(_))
        ));
    }

    #[test]
    fn shares_may_differ_by_the_slack() {
        let mut tally = CellTally::default();
        for i in 0..100 {
            tally.add(reached(if i < 70 { 1 } else { 2 }, 0));
        }
        assert_eq!(tally.judge_even(&two(), 0.25), CellJudgement::Agrees);
        assert_eq!(
            tally.judge_even(&two(), 0.1),
            CellJudgement::Wrong(Wrong::Uneven([(at(1), 700), (at(2), 300)].into()))
        );
    }
}
