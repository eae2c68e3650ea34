//! Each defect of the simulation is caught by a case that is named here.

mod common;

use touchstone_case::Library;
use touchstone_provider::Defect;
use touchstone_spec::Verdict;

/// The case that catches a defect, and a word of its reason.
fn catcher(defect: Defect) -> (&'static str, &'static str) {
    match defect {
        Defect::NoMasquerade => ("node-port/every-node", "seeing"),
        Defect::OneForAll => ("session-affinity/each-client", "never seen"),
        Defect::NeverForgets => ("session-affinity/timeout", "after a pause"),
        Defect::NoAffinity => ("session-affinity/", "one client address"),
        Defect::MissingEndpoint => ("cluster-ip/basic", "never seen"),
        Defect::NodeWithoutProxy => ("cluster-ip/basic", "unhandled"),
        Defect::DropsOnePercent => ("cluster-ip/even-spread", "dropped"),
        Defect::RefusesInsteadOfDrops => ("traffic-policy/external-local", "refused"),
        Defect::ForgetsUdpFlows => ("udp/flows-stay", "went from"),
    }
}

#[test]
fn every_defect_is_caught_for_its_reason() {
    let library = Library::bundled().expect("the bundled cases are right");
    for defect in Defect::ALL {
        let (case, word) = catcher(defect);
        let variants: Vec<_> = library
            .variants()
            .into_iter()
            .filter(|variant| variant.id().starts_with(case))
            .take(2)
            .collect();
        assert!(!variants.is_empty(), "{case} exists");
        let ended = common::run_on_sim(&variants, Some(defect)).expect("a run");
        let caught = ended.iter().any(|end| {
            end.verdict == Verdict::Fail
                && end.failures.iter().any(|failure| {
                    let texts = failure.seen.iter().chain(&failure.evidence);
                    texts.into_iter().any(|text| text.contains(word))
                })
        });
        assert!(caught, "{defect:?} is not caught by {case}: {ended:#?}");
    }
}
