//! What is planned, and why parts of it will not be judged on a subject.

use std::collections::BTreeSet;

use touchstone_case::Variant;
use touchstone_provider::Provider;
use touchstone_record::PlannedCase;
use touchstone_spec::{Excuse, Features, Level};

/// The case that every run has: no proxy ends unexpectedly.
pub const PROXY_STAYS_UP: &str = "lifecycle/proxy-stays-up";

/// The case that every run has: when all Services are gone, so are their rules.
pub const RULES_GO: &str = "lifecycle/rules-go-with-services";

/// The case that every run has: when all Services are gone, so are the UDP flows to them.
pub const FLOWS_GO: &str = "lifecycle/udp-flows-go-with-services";

/// The plan's cells as the log records them, the run's own cases last.
#[must_use]
pub fn planned(variants: &[Variant]) -> Vec<PlannedCase> {
    let mut plan: Vec<PlannedCase> = variants
        .iter()
        .map(|variant| {
            let case = variant.case();
            PlannedCase {
                case: variant.id(),
                area: case.area().to_owned(),
                level: variant.level(),
                covers: case.covers().map(ToOwned::to_owned).collect(),
                about: case.about().to_owned(),
            }
        })
        .collect();
    if !plan.is_empty() {
        plan.push(of_the_run(PROXY_STAYS_UP, Level::Must, "no proxy ends unexpectedly in the run"));
        plan.push(of_the_run(
            RULES_GO,
            Level::Should,
            "after the last case no rule speaks of an address that its Services had",
        ));
        plan.push(of_the_run(
            FLOWS_GO,
            Level::Should,
            "after the last case no UDP flow is translated to an address that its Services had",
        ));
    }
    plan
}

/// A case that is judged once for the whole run.
fn of_the_run(case: &str, level: Level, about: &str) -> PlannedCase {
    PlannedCase {
        case: case.to_owned(),
        area: "lifecycle".to_owned(),
        level,
        covers: vec![],
        about: about.to_owned(),
    }
}

/// Why a variant will not be judged on a subject with these features; none when it will.
pub(crate) fn excuse(
    variant: &Variant,
    features: &Features,
    provider: &dyn Provider,
    provided: &BTreeSet<String>,
) -> Option<Excuse> {
    let lacking = variant.features().into_iter().find(|feature| !features.has(feature.name()));
    if let Some(feature) = lacking {
        return Some(Excuse::LacksFeature(feature));
    }
    if let Some(lacking) = provider.lacks(&variant.asks()) {
        return Some(Excuse::HostLacks(lacking));
    }
    let of_host = variant.host_needs().into_iter().map(str::to_owned);
    let mut needs = variant.lab_needs().into_iter().chain(of_host);
    let lacking = needs.find(|need| !provided.contains(need))?;
    Some(Excuse::HostLacks(provider.why_lacking(&lacking)))
}
