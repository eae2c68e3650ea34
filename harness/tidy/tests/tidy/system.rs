//! What only one place may do: unsafe code, switching namespaces, letting time pass.

use crate::project::{members, no_complaints, root, sources_ending};
use crate::rust::words;

/// Complains about words in code that stands in none of these places.
fn confined(forbidden: &[&str], below: &str, places: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources_ending(".rs") {
        let inside = source.path.contains(below);
        if !inside || places.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for word in words(&source.text) {
            if forbidden.contains(&word.text.as_str()) {
                complaints.push(format!("{}:{}: {}", source.path, word.line, word.text));
            }
        }
    }
    complaints
}

#[test]
fn unsafe_code_lives_in_sys() {
    let complaints = confined(&["unsafe", "unsafe_code"], "", &["harness/sys/"]);
    no_complaints("unsafe outside harness/sys", &complaints);
}

#[test]
fn the_lints_of_the_workspace_hold_everywhere() {
    for member in members().values() {
        let path = root().join("harness").join(&member.folder).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).expect("a crate has a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true\n"), "{}", path.display());
    }
}

#[test]
fn namespaces_are_switched_in_netlab_and_sys() {
    let complaints = confined(
        &["setns", "unshare", "CLONE_NEWNET", "CLONE_NEWUSER"],
        "",
        &["harness/netlab/", "harness/sys/"],
    );
    no_complaints("namespaces are switched elsewhere", &complaints);
}

#[test]
fn time_passes_in_one_place() {
    let complaints = confined(
        &["sleep", "sleep_until", "park_timeout", "nanosleep", "usleep", "disallowed_methods"],
        "/src/",
        &["harness/runner/src/pace.rs"],
    );
    no_complaints("time passes outside the runner's pace", &complaints);
}
