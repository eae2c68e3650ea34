//! From everything that happened in a case to its one verdict.

use touchstone_spec::{Level, Listing, Verdict};

/// Whether the subject lists the case as a known failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// It does.
    Known,
    /// It does, as one that fails only at times.
    Intermittent,
    /// It does not.
    No,
}

impl From<Option<&Listing>> for Listed {
    fn from(listing: Option<&Listing>) -> Listed {
        match listing {
            Some(Listing { intermittent: true, .. }) => Listed::Intermittent,
            Some(Listing { intermittent: false, .. }) => Listed::Known,
            None => Listed::No,
        }
    }
}

/// What happened in one attempt of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaseFacts {
    /// Level of the case.
    pub level: Level,
    /// Whether the harness, the lab or the API had trouble.
    pub trouble: bool,
    /// Number of things that were wrong about the proxy.
    pub failures: usize,
    /// Whether a control failed, a probe broke, or there were too few samples.
    pub doubtful: bool,
    /// Number of cells that were judged; a case that probed nothing never passes.
    pub judged: usize,
    /// Whether it is a listed failure.
    pub listed: Listed,
}

/// The verdict of a case.
///
/// Trouble of our own goes first, doubt next: a proxy is never blamed while a control fails.
#[must_use]
pub fn decide(facts: CaseFacts) -> Verdict {
    if facts.trouble {
        return Verdict::Error;
    }
    if facts.doubtful || facts.judged == 0 {
        return Verdict::Inconclusive;
    }
    match (facts.level, facts.failures, facts.listed) {
        (Level::Survey, _, _) => Verdict::Survey,
        (Level::Must | Level::Should | Level::May, 0, Listed::No | Listed::Intermittent) => {
            Verdict::Pass
        }
        (Level::Must | Level::Should | Level::May, 0, Listed::Known) => Verdict::UnexpectedPass,
        (Level::Must | Level::Should | Level::May, _, Listed::Known | Listed::Intermittent) => {
            Verdict::KnownFailure
        }
        (Level::Must | Level::Should | Level::May, _, Listed::No) => Verdict::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: CaseFacts = CaseFacts {
        level: Level::Must,
        trouble: false,
        failures: 0,
        doubtful: false,
        judged: 1,
        listed: Listed::No,
    };

    #[test]
    fn verdicts() {
        let table = [
            (FINE, Verdict::Pass),
            (CaseFacts { failures: 1, ..FINE }, Verdict::Fail),
            (CaseFacts { failures: 1, listed: Listed::Known, ..FINE }, Verdict::KnownFailure),
            (CaseFacts { listed: Listed::Known, ..FINE }, Verdict::UnexpectedPass),
            (
                CaseFacts { failures: 1, listed: Listed::Intermittent, ..FINE },
                Verdict::KnownFailure,
            ),
            (CaseFacts { listed: Listed::Intermittent, ..FINE }, Verdict::Pass),
            (CaseFacts { failures: 1, doubtful: true, ..FINE }, Verdict::Inconclusive),
            (CaseFacts { failures: 1, trouble: true, ..FINE }, Verdict::Error),
            (CaseFacts { judged: 0, ..FINE }, Verdict::Inconclusive),
            (CaseFacts { failures: 1, level: Level::Survey, ..FINE }, Verdict::Survey),
        ];
        for (facts, verdict) in table {
            assert_eq!(decide(facts), verdict, "{facts:?}");
        }
    }
}
