//! Which crate may know which.

use std::collections::{BTreeMap, BTreeSet};

use crate::project::{Member, members, no_complaints, sources_ending};
use crate::rust::words;

/// Every crate that ships and its layer; a crate depends on lower layers only.
const LAYERS: [(&str, u8); 15] = [
    ("touchstone-spec", 0),
    ("touchstone-sys", 0),
    ("touchstone-model", 1),
    ("touchstone-verdict", 1),
    ("touchstone-record", 1),
    ("touchstone-case", 2),
    ("touchstone-probe", 2),
    ("touchstone-apiserver", 2),
    ("touchstone-netlab", 2),
    ("touchstone-subject", 2),
    ("touchstone-agent", 3),
    ("touchstone-provider", 4),
    ("touchstone-runner", 5),
    ("touchstone-report", 5),
    ("touchstone", 6),
];
/// Crates that do not ship.
const FOR_TESTS: [&str; 2] = ["touchstone-tidy", "touchstone-stand-in"];
/// Crates that look; they must not know what is expected.
const OBSERVERS: [&str; 6] = [
    "touchstone-probe",
    "touchstone-agent",
    "touchstone-provider",
    "touchstone-netlab",
    "touchstone-apiserver",
    "touchstone-subject",
];
/// Crates that know what is expected.
const ANSWERS: [&str; 3] = ["touchstone-model", "touchstone-case", "touchstone-verdict"];
/// The one exception, which the next constant confines: the simulation answers from the model.
const EXCEPTION: (&str, &str) = ("touchstone-provider", "touchstone-model");
const SIMULATION: &str = "harness/provider/src/sim.rs";

#[test]
fn crates_depend_on_lower_layers_only() {
    let layers = BTreeMap::from(LAYERS);
    let members = members();
    let mut complaints = Vec::new();
    for (name, member) in members.iter().filter(|(name, _)| !FOR_TESTS.contains(&name.as_str())) {
        let Some(layer) = layers.get(name.as_str()) else {
            complaints.push(format!("{name} has no layer: add it to LAYERS"));
            continue;
        };
        for dependency in &member.dependencies {
            if !members.contains_key(dependency) {
                continue;
            }
            if layers.get(dependency.as_str()).is_none_or(|below| below >= layer) {
                complaints.push(format!("{name} depends on {dependency}, which is not below it"));
            }
        }
    }
    for name in layers.keys().filter(|name| !members.contains_key(**name)) {
        complaints.push(format!("{name} is in LAYERS, but is no crate"));
    }
    no_complaints("layers", &complaints);
}

#[test]
fn observers_cannot_see_the_answer() {
    let members = members();
    let mut complaints = Vec::new();
    for observer in OBSERVERS {
        let reached = reach(&members, observer);
        for answer in ANSWERS.into_iter().filter(|answer| reached.contains(*answer)) {
            complaints.push(format!("{observer} reaches {answer}"));
        }
    }
    no_complaints("observers", &complaints);
}

/// Everything that a crate is made of, without the declared exception.
fn reach(members: &BTreeMap<String, Member>, from: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![from.to_owned()];
    while let Some(name) = pending.pop() {
        let dependencies = members.get(&name).map(|member| &member.dependencies);
        for dependency in dependencies.into_iter().flatten() {
            let excepted = (name.as_str(), dependency.as_str()) == EXCEPTION;
            if !excepted && reached.insert(dependency.clone()) {
                pending.push(dependency.clone());
            }
        }
    }
    reached
}

#[test]
fn only_the_simulation_sees_the_model() {
    let mut complaints = Vec::new();
    let mut seen = false;
    for source in sources_ending(".rs") {
        if !source.path.starts_with("harness/provider/src/") {
            continue;
        }
        for word in words(&source.text) {
            if word.text == "touchstone_model" {
                if source.path == SIMULATION {
                    seen = true;
                } else {
                    complaints.push(format!("{}:{}", source.path, word.line));
                }
            }
        }
    }
    assert!(seen, "{SIMULATION} does not name the model: the exception is not needed");
    no_complaints("touchstone_model is named outside the simulation", &complaints);
}

#[test]
fn reports_read_only_the_log() {
    let members = members();
    let own: BTreeSet<&str> = members["touchstone-report"]
        .dependencies
        .iter()
        .filter(|name| members.contains_key(*name))
        .map(String::as_str)
        .collect();
    let allowed = BTreeSet::from(["touchstone-record", "touchstone-spec"]);
    assert_eq!(own, allowed, "crates of ours that touchstone-report depends on");
}
