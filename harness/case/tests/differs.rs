//! What a subject may do otherwise is said by the behaviours themselves.

use std::collections::BTreeSet;

use touchstone_case::Library;
use touchstone_spec::KNOWN_FEATURES;

/// Families, protocols, kinds of addresses and fields of a Service: without one of them nothing
/// differs, there is nothing to ask for.
const BASIC: &[&str] = &[
    "ipv4",
    "ipv6",
    "tcp",
    "udp",
    "sctp",
    "node-port",
    "load-balancer",
    "external-ips",
    "internal-traffic-policy",
    "external-traffic-policy",
    "session-affinity",
    "source-ranges",
    "health-check-node-port",
];

/// Needs that are about no behaviour of their case.
const BESIDE: &[(&str, &str)] = &[
    // The case asks no health-check node port: `health-follows-sync` alone would do.
    ("metrics/stuck", "health-check-body"),
];

fn library() -> Library {
    Library::bundled().unwrap_or_else(|errors| panic!("{}", errors.render()))
}

/// The features by which some behaviours differ.
fn named<'a>(library: &'a Library, ids: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    ids.filter_map(|id| library.behaviours().get(id))
        .flat_map(|behaviour| &behaviour.differs)
        .map(|difference| difference.feature.value.as_str())
        .collect()
}

#[test]
fn every_feature_is_a_difference_of_some_behaviour() {
    let library = library();
    let named = named(&library, library.behaviours().keys().map(String::as_str));
    let known = KNOWN_FEATURES.iter().map(|known| known.name);
    let silent: Vec<&str> =
        known.filter(|name| !BASIC.contains(name) && !named.contains(name)).collect();
    assert!(silent.is_empty(), "in no `differs`: {}", silent.join(", "));
}

#[test]
fn what_a_case_needs_is_a_difference_of_what_it_covers() {
    let library = library();
    let mut missing = Vec::new();
    for case in library.cases() {
        let named = named(&library, case.covers());
        let needs = case.needs().features.iter().map(|feature| feature.name());
        let needs = needs.filter(|name| !BASIC.contains(name) && !named.contains(name));
        missing.extend(needs.map(|name| (case.id().as_str(), name)));
    }
    assert_eq!(missing, BESIDE, "needs that no covered behaviour has in its `differs`");
}

#[test]
fn no_behaviour_tells_a_difference_twice() {
    for (id, behaviour) in library().behaviours() {
        let differs = || behaviour.differs.iter().map(|one| one.feature.value.as_str());
        let once: BTreeSet<&str> = differs().collect();
        assert_eq!(once.len(), differs().count(), "{id}");
    }
}
