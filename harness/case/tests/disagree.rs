//! A pin says something: whatever is changed in it, the model objects, with the place in the
//! case file and with its reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::LazyLock;

use touchstone_case::{
    Library, Pin, PinnedOutcome, PinnedSource, Row, Spread, check, compile, planned_book,
};
use touchstone_model::expect;
use touchstone_spec::{Features, NameAnswer, OutcomeKind};

const BEHAVIOURS: &str = include_str!("../../../cases/behaviours.yaml");

static LIBRARY: LazyLock<Library> =
    LazyLock::new(|| Library::bundled().unwrap_or_else(|errors| panic!("{}", errors.render())));

/// What somebody might have written instead of an outcome.
fn others(outcome: &PinnedOutcome) -> Vec<PinnedOutcome> {
    let kinds = |kinds: BTreeSet<OutcomeKind>, http: &BTreeSet<u16>| PinnedOutcome::Kinds {
        kinds,
        http: http.clone(),
    };
    let none = BTreeSet::new();
    match outcome {
        PinnedOutcome::Reaches(endpoints) => {
            let mut one_more = endpoints.clone();
            let stranger = SocketAddr::from(([192, 0, 2, 1], 1));
            one_more.insert(stranger, "a stranger".to_owned());
            let others = one_more.iter().take(endpoints.len().saturating_sub(1));
            let fewer: BTreeMap<_, _> = others.map(|(at, name)| (*at, name.clone())).collect();
            vec![
                PinnedOutcome::Reaches(one_more.clone()),
                PinnedOutcome::Reaches(fewer),
                kinds(BTreeSet::from([OutcomeKind::Refused]), &none),
                PinnedOutcome::Any,
            ]
        }
        PinnedOutcome::Kinds { kinds: pinned, http } => {
            let mut others = vec![PinnedOutcome::Any];
            for kind in [OutcomeKind::Refused, OutcomeKind::Dropped, OutcomeKind::Unhandled] {
                let mut changed = pinned.clone();
                if !changed.remove(&kind) {
                    changed.insert(kind);
                }
                others.push(kinds(changed, http));
            }
            if !http.is_empty() {
                others.push(kinds(pinned.clone(), &BTreeSet::from([418])));
            }
            others
        }
        PinnedOutcome::Answers(answers) => {
            let mut others = vec![PinnedOutcome::Any, PinnedOutcome::Answers(BTreeSet::new())];
            for answer in [NameAnswer::Nothing, NameAnswer::NoSuchName] {
                let mut changed = answers.clone();
                if !changed.remove(&answer) {
                    changed.insert(answer);
                }
                others.push(PinnedOutcome::Answers(changed));
            }
            others
        }
        PinnedOutcome::Any => vec![kinds(BTreeSet::from([OutcomeKind::Dropped]), &none)],
    }
}

/// Pins that differ from one in a single thing, with its name.
fn changed(pin: &Pin) -> Vec<(&'static str, Pin)> {
    let mut all: Vec<(&str, Pin)> = others(&pin.outcome)
        .into_iter()
        .map(|outcome| ("outcome", Pin { outcome, ..pin.clone() }))
        .collect();
    if pin.source != PinnedSource::Any {
        let source = PinnedSource::Node("nowhere".to_owned());
        all.push(("source", Pin { source, ..pin.clone() }));
    }
    if let Some(sticky) = pin.sticky {
        all.push(("sticky", Pin { sticky: Some(!sticky), ..pin.clone() }));
    }
    if pin.sticky == Some(true) {
        all.push(("spread", Pin { spread: Some(Spread::Even), ..pin.clone() }));
    }
    all
}

#[test]
fn every_row_of_every_case_can_be_contradicted() {
    let mut unseen = Vec::new();
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    for variant in LIBRARY.variants() {
        let script = compile(&variant, &mut planned_book(&variant)).expect("it compiles");
        let features: Features = variant.features().into_iter().collect();
        for step in &script.steps {
            // No model knows what a proxy says of itself: there the row decides alone.
            let modelled = |row: &&Row| !row.flow.frontend.is_told();
            for row in step.rows.iter().filter(modelled) {
                let expectation = expect(&step.world, &row.flow, &features);
                for (what, pin) in changed(&row.pin) {
                    *tried.entry(what).or_default() += 1;
                    let objects = pin.disagreement(&row.flow, &step.world, &expectation).is_some();
                    if !objects || expectation.reasons.is_empty() {
                        let id = variant.id();
                        unseen.push(format!("{id}:{}: {what}: {}", row.line, pin.words()));
                    }
                }
            }
        }
    }
    let kinds: Vec<&str> = tried.keys().copied().collect();
    assert_eq!(kinds, ["outcome", "source", "spread", "sticky"]);
    assert!(unseen.is_empty(), "{} changes unseen:\n{}", unseen.len(), unseen.join("\n"));
}

/// Changes one text in a bundled case and gives what the model says to it.
#[track_caller]
fn objection(id: &str, from: &str, to: &str) -> (usize, String) {
    let case = LIBRARY.case(id).unwrap_or_else(|| panic!("no case {id}"));
    let text = case.text();
    let line = text.lines().position(|line| line.contains(from));
    let line = line.unwrap_or_else(|| panic!("{id} has no {from:?}")) + 1;
    let path = format!("{id}.yaml");
    let texts = [("behaviours.yaml", BEHAVIOURS), (&path, &text.replacen(from, to, 1))];
    let library = Library::of_texts(texts).unwrap_or_else(|errors| panic!("{}", errors.render()));
    let conflicts: Vec<String> = library
        .variants()
        .iter()
        .flat_map(|variant| check(variant, &Features::default()).expect("it compiles"))
        .map(|conflict| conflict.to_string())
        .collect();
    (line, conflicts.first().cloned().unwrap_or_else(|| panic!("{id}: nobody objects to {to:?}")))
}

#[test]
fn a_changed_answer_is_contradicted_at_its_line() {
    for (id, from, to) in [
        // Endpoints: one too few, one too many, none.
        ("endpoints/conditions", "reaches: [a, d]", "reaches: a"),
        ("endpoints/conditions", "reaches: [a, d]", "reaches: [a, b, d]"),
        ("cluster-ip/unallocated", "reaches: a", "is: refused"),
        // Kinds of failure.
        ("endpoints/none", "is: refused", "is: dropped"),
        ("traffic-policy/external-local", "is: dropped", "is: [refused, dropped]"),
        ("external-ips/unassigned", "is: unhandled", "is: refused"),
        ("cluster-ip/unallocated", "is: [dropped, unhandled]", "is: unhandled"),
        ("cluster-ip/unallocated", "is: [dropped, unhandled]", "is: any"),
        // Health checks.
        ("health-check-node-port/status", "is: http 503", "is: http 200"),
        ("health-check-node-port/body", "localEndpoints: 0", "localEndpoints: 7"),
        ("health-check-node-port/weight-header", "Weight: '2'", "Weight: '9'"),
        // Sources.
        ("node-port/first-endpoint", "source: node@n1", "source: node@n2"),
        ("load-balancer/every-vantage", "source: node", "source: client"),
        ("session-affinity/cluster-ip", "source: client", "source: node"),
        // Affinity.
        ("session-affinity/switched", "sticky: false", "sticky: true"),
        ("session-affinity/cluster-ip", "sticky: true", "spread: even"),
        ("session-affinity/timeout-expires", "forgets: 35s", "forgets: 10s"),
    ] {
        // What follows `spread` is no contradiction where clients do not keep to endpoints.
        let to = if to == "spread: even" { "sticky: true, spread: even" } else { to };
        let (line, said) = objection(id, from, to);
        assert!(said.starts_with(&format!("{id}.yaml:{line}: ")), "{line}: {said}");
        for part in ["\n  flow:  ", "\n  pin:   ", "\n  model: ", "\n    because "] {
            assert!(said.contains(part), "no {part:?} in\n{said}");
        }
    }
}
