//! What is planned, and why parts of it will not be judged on a subject.

use std::collections::BTreeSet;

use touchstone_case::Variant;
use touchstone_record::PlannedCase;
use touchstone_spec::{Excuse, Features, Level};

/// The case that every run has: no proxy ends unexpectedly.
pub const PROXY_STAYS_UP: &str = "lifecycle/proxy-stays-up";

/// The plan's cells as the log records them, the run's own case last.
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
        plan.push(PlannedCase {
            case: PROXY_STAYS_UP.to_owned(),
            area: "lifecycle".to_owned(),
            level: Level::Must,
            covers: vec![],
            about: "no proxy ends unexpectedly during the run".to_owned(),
        });
    }
    plan
}

/// Why a variant will not be judged on a subject with these features; none when it will.
pub(crate) fn excuse(
    variant: &Variant,
    features: &Features,
    provided: &BTreeSet<String>,
) -> Option<Excuse> {
    let lacking = variant.features().into_iter().find(|feature| !features.has(feature.name()));
    if let Some(feature) = lacking {
        return Some(Excuse::LacksFeature(feature));
    }
    variant
        .lab_needs()
        .iter()
        .find(|need| !provided.contains(*need))
        .map(|need| Excuse::HostLacks(need.clone()))
}
