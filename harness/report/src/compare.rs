//! What several runs of the same cases differ in: verdicts that depend on the kernel, and verdicts
//! that depend on what supplied the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use touchstone_spec::{Level, Verdict};

use crate::{CaseResult, Report};

/// Where a run was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What supplied its clusters: lab, kind, ….
    pub provider: String,
    /// Release of the kernel.
    pub kernel: String,
}

impl Place {
    /// Where the run of a report was.
    #[must_use]
    pub fn of(report: &Report) -> Place {
        let run = report.run.as_ref();
        Place {
            provider: run.map_or("an unknown provider", |run| &run.provider).to_owned(),
            kernel: run.map_or("an unknown kernel", |run| &run.host.kernel).to_owned(),
        }
    }
}

/// What tells the places of a finding apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// The kernel alone.
    Kernel,
    /// What supplied the cluster alone.
    Provider,
    /// Both, so nobody can tell which of them it is.
    Both,
}

impl Aspect {
    /// What tells these places apart; none where they are one.
    pub(crate) fn of<'a>(places: impl IntoIterator<Item = &'a Place>) -> Option<Aspect> {
        let mut providers = BTreeSet::new();
        let mut kernels = BTreeSet::new();
        for place in places {
            providers.insert(&place.provider);
            kernels.insert(&place.kernel);
        }
        match (providers.len() > 1, kernels.len() > 1) {
            (false, false) => None,
            (false, true) => Some(Aspect::Kernel),
            (true, false) => Some(Aspect::Provider),
            (true, true) => Some(Aspect::Both),
        }
    }

    /// A place by what tells it apart.
    pub(crate) fn name(self, place: &Place) -> String {
        match self {
            Aspect::Kernel => place.kernel.clone(),
            Aspect::Provider => place.provider.clone(),
            Aspect::Both => format!("{}, {}", place.provider, place.kernel),
        }
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Aspect::Kernel => "kernel",
            Aspect::Provider => "provider",
            Aspect::Both => "provider or kernel",
        })
    }
}

/// A case that is judged differently elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Subject as selected.
    pub subject: String,
    /// Case with its axes.
    pub case: String,
    /// What the verdict depends on.
    pub aspect: Aspect,
    /// Verdict by place.
    pub verdicts: BTreeMap<Place, Verdict>,
}

/// How far the providers of some runs agree about what binds every proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// Subject as selected.
    pub subject: String,
    /// Providers.
    pub providers: BTreeSet<String>,
    /// `must` cases that were judged with at least one of them.
    pub judged: usize,
    /// Of these, judged with all of them.
    pub everywhere: usize,
    /// Of these, with the same verdict.
    pub alike: usize,
    /// How many of the cases judged elsewhere a provider did not judge, by provider and reason.
    pub missing: BTreeMap<(String, String), usize>,
}

/// The cases that were judged in several places, not with the same verdict in all.
///
/// What was not asked somewhere, or got no clear answer there, is in the matrix and is no finding.
#[must_use]
pub fn findings(reports: &[Report]) -> Vec<Finding> {
    let mut seen: BTreeMap<(&str, &str), BTreeMap<Place, Verdict>> = BTreeMap::new();
    for report in reports {
        for result in report.results.iter().filter(|result| is_judged(result)) {
            let verdicts = seen.entry((&result.subject, &result.case)).or_default();
            verdicts
                .entry(Place::of(report))
                // Of several runs in one place the worst counts.
                .and_modify(|verdict| *verdict = (*verdict).max(result.verdict))
                .or_insert(result.verdict);
        }
    }
    let finding = |((subject, case), verdicts): ((&str, &str), BTreeMap<Place, Verdict>)| {
        let one = verdicts.values().next()?;
        if verdicts.values().all(|other| other == one) {
            return None;
        }
        let aspect = aspect_of_verdicts(&verdicts)?;
        Some(Finding { subject: subject.to_owned(), case: case.to_owned(), aspect, verdicts })
    };
    seen.into_iter().filter_map(finding).collect()
}

/// What the verdicts depend on: places that differ in one thing alone tell.
fn aspect_of_verdicts(verdicts: &BTreeMap<Place, Verdict>) -> Option<Aspect> {
    let mut aspects = BTreeSet::new();
    for (place, verdict) in verdicts {
        let others = verdicts.iter().filter(|(_, other)| *other != verdict);
        aspects.extend(others.filter_map(|(other, _)| Aspect::of([place, other])));
    }
    if aspects.len() > 1 {
        aspects.remove(&Aspect::Both);
    }
    if aspects.len() > 1 { Some(Aspect::Both) } else { aspects.pop_first() }
}

/// How far several providers agree, for each subject that more than one of them ran.
#[must_use]
pub fn agreements(reports: &[Report]) -> Vec<Agreement> {
    // Of several runs of a provider the clearest answer counts: what one could not ask, another may.
    type Results<'a> = BTreeMap<&'a str, &'a CaseResult>;
    let mut ran: BTreeMap<&str, BTreeMap<String, Results<'_>>> = BTreeMap::new();
    for report in reports {
        let provider = Place::of(report).provider;
        for result in report.results.iter().filter(|result| result.level == Level::Must) {
            let results = ran.entry(&result.subject).or_default().entry(provider.clone());
            let known = results.or_default().entry(&result.case).or_insert(result);
            let worse = is_judged(known) && known.verdict >= result.verdict;
            if is_judged(result) && !worse {
                *known = result;
            }
        }
    }
    ran.into_iter()
        .filter(|(_, providers)| providers.len() > 1)
        .map(|(subject, providers)| agreement(subject, &providers))
        .collect()
}

fn agreement(
    subject: &str,
    providers: &BTreeMap<String, BTreeMap<&str, &CaseResult>>,
) -> Agreement {
    let judged = |results: &BTreeMap<&str, &CaseResult>, case: &str| {
        results.get(case).filter(|result| is_judged(result)).map(|result| result.verdict)
    };
    let cases: BTreeSet<&str> =
        providers.values().flat_map(|results| results.keys().copied()).collect();
    let mut found = Agreement {
        subject: subject.to_owned(),
        providers: providers.keys().cloned().collect(),
        judged: 0,
        everywhere: 0,
        alike: 0,
        missing: BTreeMap::new(),
    };
    for case in cases {
        let verdicts: Vec<Option<Verdict>> =
            providers.values().map(|results| judged(results, case)).collect();
        if verdicts.iter().all(Option::is_none) {
            continue;
        }
        found.judged += 1;
        if verdicts.iter().all(Option::is_some) {
            found.everywhere += 1;
            found.alike += usize::from(verdicts.windows(2).all(|pair| pair.first() == pair.last()));
            continue;
        }
        for (provider, results) in providers {
            if judged(results, case).is_none() {
                let why = results.get(case).map_or_else(|| "not planned".to_owned(), |r| why(r));
                *found.missing.entry((provider.clone(), why)).or_default() += 1;
            }
        }
    }
    found
}

/// Why a case has no verdict that can be compared.
fn why(result: &CaseResult) -> String {
    result.excuse.as_ref().map_or_else(|| result.verdict.to_string(), ToString::to_string)
}

fn is_judged(result: &CaseResult) -> bool {
    match result.verdict {
        Verdict::Pass | Verdict::KnownFailure | Verdict::UnexpectedPass | Verdict::Fail => true,
        Verdict::Survey
        | Verdict::Unsupported
        | Verdict::Inconclusive
        | Verdict::NotRun
        | Verdict::Error => false,
    }
}
