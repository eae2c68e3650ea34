//! The oracle is a function of its arguments.

use std::collections::BTreeSet;

use crate::project::{members, no_complaints, sources_ending};
use crate::rust::words;

/// The pure crates, by folder, and all that they may be made of.
const PURE: [(&str, &[&str]); 3] = [
    ("spec", &["ipnet", "schemars", "serde", "serde_json", "thiserror"]),
    ("model", &["ipnet", "touchstone-spec"]),
    ("verdict", &["touchstone-spec"]),
];

/// Words of clocks, chance, unordered maps, input and output, and concurrency.
const IMPURE: [&str; 23] = [
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "rand",
    "fs",
    "io",
    "env",
    "process",
    "File",
    "Command",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "async",
    "await",
    "tokio",
    "thread",
    "Mutex",
    "RwLock",
    "println",
];

#[test]
fn the_oracle_is_pure() {
    let mut complaints = Vec::new();
    for (folder, _) in PURE {
        let below = format!("harness/{folder}/src/");
        let sources: Vec<_> =
            sources_ending(".rs").into_iter().filter(|s| s.path.starts_with(&below)).collect();
        assert!(!sources.is_empty(), "{below} holds nothing");
        for source in sources {
            for word in words(&source.text) {
                if IMPURE.contains(&word.text.as_str()) {
                    complaints.push(format!("{}:{}: {}", source.path, word.line, word.text));
                }
            }
        }
    }
    no_complaints("not pure", &complaints);
}

#[test]
fn pure_crates_are_made_of_pure_crates() {
    let members = members();
    for (folder, allowed) in PURE {
        let member = &members[&format!("touchstone-{folder}")];
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let used: BTreeSet<&str> = member.dependencies.iter().map(String::as_str).collect();
        let more: Vec<_> = used.difference(&allowed).collect();
        assert!(more.is_empty(), "{folder} depends on {more:?}: is it pure? then add it to PURE");
    }
}
