//! No proxy is asked to deliver what it has to forget.

use touchstone_case::{CaseErrors, Library, check};
use touchstone_spec::Features;

const BEHAVIOURS: &str = include_str!("../../../cases/behaviours.yaml");

/// What is said about a case in which clients of two endpoints see one of them change.
fn said(protocol: &str, change: &str, traffic: &str) -> Vec<String> {
    let text = format!(
        "about: clients while endpoints change
covers: [clusterip-udp-basic]
level: must
axes: {{ family: [v4], protocol: [{protocol}] }}
world:
  services:
    web: {{ ports: [{{ name: p, port: 80 }}] }}
  endpoints:
    web: {{ a: {{ node: n1 }}, b: {{ node: n2 }}, c: {{ node: n2, ready: false, serving: false }} }}
steps:
  - expect:
      - {{ from: pod@n1, to: web clusterIP, reaches: [a, b] }}
  - change: [{{ endpoint: web/{change} }}]
    traffic: {{ from: [pod@n1, pod@n2], to: web clusterIP, rate: 200/s, {traffic} }}
"
    );
    let texts = [("behaviours.yaml", BEHAVIOURS), ("mine/under-way.yaml", &text)];
    let library =
        Library::of_texts(texts).unwrap_or_else(|errors: CaseErrors| panic!("{}", errors.render()));
    let variants = library.variants();
    assert_eq!(variants.len(), 1, "or nothing is tried");
    variants
        .iter()
        .filter_map(|variant| check(variant, &Features::default()).err())
        .map(|error| error.to_string())
        .collect()
}

#[test]
fn new_udp_clients_of_an_endpoint_that_goes_may_lose_what_is_under_way() {
    for change in ["a, remove: true", "b, set: { ready: false, serving: false }"] {
        for budget in ["budget: 0", "budget: 79"] {
            let said = said("udp", change, budget);
            assert_eq!(said.len(), 1, "{change}, {budget}");
            assert!(said[0].starts_with("mine/under-way.yaml:14:14: UDP clients"), "{}", said[0]);
            assert!(said[0].ends_with("give a budget of 80 or more"), "{}", said[0]);
        }
        assert_eq!(said("udp", change, "budget: 80"), [""; 0]);
    }
}

#[test]
fn whatever_else_changes_may_lose_nothing() {
    for change in [
        // Its flows stay while it serves.
        "a, set: { ready: false, serving: true, terminating: true }",
        // Nobody uses it.
        "c, remove: true",
        "d, add: { node: n1 }",
    ] {
        assert_eq!(said("udp", change, "budget: 0"), [""; 0], "{change}");
    }
    // No flow of theirs is forgotten.
    assert_eq!(said("tcp", "a, remove: true", "budget: 0"), [""; 0]);
    // One datagram of each is under way, as its author can count.
    assert_eq!(said("udp", "a, remove: true", "budget: 2, keep: connection"), [""; 0]);
}
