//! What was seen in earlier steps and binds later ones: figures of pages that grow, endpoints that
//! clients keep.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use touchstone_case::{Growth, Pin, PinnedOutcome};
use touchstone_spec::{
    Allowed, Condition, Expectation, Flow, Observation, Outcome, OutcomeKind, Reason,
};

use crate::cells::Cell;

/// What an attempt has seen last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// Values, by flow and part.
    values: BTreeMap<(String, String), String>,
    /// Where clients that keep to one endpoint were in the step before, by flow.
    endpoints: BTreeMap<String, SocketAddr>,
}

impl Shown {
    /// Keeps what the cells of a step saw last.
    pub(crate) fn remember(&mut self, cells: &[Cell]) {
        for cell in cells.iter().filter(|cell| cell.flow.http.is_some()) {
            if let Some((Observation::Saw(Outcome::Http { shown, .. }), _)) =
                cell.tally.seen().last()
            {
                for (part, value) in shown {
                    self.values.insert((cell.flow.text.clone(), part.clone()), value.clone());
                }
            }
        }
        let sticky = cells.iter().filter(|cell| cell.expectation.sticky);
        let at = |cell: &Cell| Some((cell.flow.text.clone(), cell.only_endpoint()?));
        self.endpoints = sticky.filter_map(at).collect();
    }

    /// Tightens an expectation by what a row says about an HTTP answer, or about the endpoint that
    /// its client had before.
    pub(crate) fn expect(&self, flow: &Flow, pin: &Pin, expectation: &mut Expectation) {
        if let (true, Some(had)) = (pin.keeps, self.endpoints.get(&flow.text)) {
            keep(*had, expectation);
        }
        let conditions = self.conditions(flow, pin);
        if flow.frontend.is_told() {
            *expectation = alone(pin, conditions);
            return;
        }
        if conditions.is_empty() {
            return;
        }
        expectation.allowed = std::mem::take(&mut expectation.allowed)
            .into_iter()
            .map(|allowed| match allowed {
                Allowed::Http { status, local_endpoints, shows: _ } => {
                    Allowed::Http { status, local_endpoints, shows: conditions.clone() }
                }
                other @ (Allowed::Reached { .. }
                | Allowed::Refused
                | Allowed::Closed
                | Allowed::Dropped
                | Allowed::Unhandled
                | Allowed::Answered(_)) => other,
            })
            .collect();
    }

    fn conditions(&self, flow: &Flow, pin: &Pin) -> BTreeMap<String, Condition> {
        let mut conditions = pin.shows.conditions.clone();
        for (part, growth) in &pin.shows.growth {
            let before = self.values.get(&(flow.text.clone(), part.clone()));
            let Some(before) = before.and_then(|value| value.parse::<f64>().ok()) else {
                continue;
            };
            let condition = match growth {
                Growth::Somehow => Condition::MoreThan(before.to_string()),
                Growth::By(number) => Condition::Is((before + f64::from(*number)).to_string()),
            };
            conditions.insert(part.clone(), condition);
        }
        conditions
    }
}

/// Leaves nothing allowed but the endpoint that a client had, where that may still answer.
fn keep(had: SocketAddr, expectation: &mut Expectation) {
    if expectation.endpoints().contains(&had) {
        expectation.allowed.retain(
            |allowed| !matches!(allowed, Allowed::Reached { endpoint, .. } if *endpoint != had),
        );
        expectation.reasons.push(Reason {
            text: format!("the row says so: the client was at {had} before, and keeps to it"),
            source: "v1.Service sessionAffinity".to_owned(),
        });
    }
}

/// No model knows the pages of a proxy: the row alone says what is allowed.
fn alone(pin: &Pin, shows: BTreeMap<String, Condition>) -> Expectation {
    let (kinds, http) = match &pin.outcome {
        PinnedOutcome::Kinds { kinds, http } => (kinds.clone(), http.clone()),
        PinnedOutcome::Reaches(_) | PinnedOutcome::Answers(_) | PinnedOutcome::Any => {
            Default::default()
        }
    };
    let mut expectation = Expectation {
        reasons: vec![Reason {
            text:
                "the row says so; what a proxy, a kernel or a server says of itself is no part of \
                   the API"
                    .into(),
            source: "the case".into(),
        }],
        ..Expectation::default()
    };
    for kind in kinds {
        match kind {
            OutcomeKind::Http => expectation.allowed.extend(http.iter().map(|status| {
                Allowed::Http { status: *status, local_endpoints: 0, shows: shows.clone() }
            })),
            OutcomeKind::Refused => {
                expectation.allowed.insert(Allowed::Refused);
            }
            OutcomeKind::Dropped => {
                expectation.allowed.insert(Allowed::Dropped);
            }
            OutcomeKind::Unhandled => {
                expectation.allowed.insert(Allowed::Unhandled);
            }
            // No row about a page may name these.
            OutcomeKind::Reached
            | OutcomeKind::Unreachable
            | OutcomeKind::Reset
            | OutcomeKind::Answered => {}
        }
    }
    expectation
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use touchstone_case::{PinnedSource, Shows};
    use touchstone_spec::{Asked, Client, ClientKind, FrontendKind, Protocol};

    use super::*;

    fn flow(frontend: FrontendKind) -> Flow {
        let to = SocketAddr::from(([127, 0, 0, 1], 1));
        let client =
            Client { kind: ClientKind::Node, place: "n1".into(), node: None, address: to.ip() };
        Flow {
            client,
            via: None,
            to,
            protocol: Protocol::Tcp,
            frontend,
            question: None,
            size: 0,
            source_port: None,
            http: Some(Asked { path: "/metrics".into(), looks: vec![] }),
            text: "node@n1 → proxy metrics@n1".into(),
        }
    }

    fn pin(growth: Growth) -> Pin {
        Pin {
            outcome: PinnedOutcome::Kinds {
                kinds: BTreeSet::from([OutcomeKind::Http]),
                http: BTreeSet::from([200]),
            },
            source: PinnedSource::Any,
            sticky: None,
            clients: None,
            keeps: false,
            forgets: None,
            spread: None,
            shows: Shows {
                status: Some(200),
                conditions: [("metric x".to_owned(), Condition::Present)].into(),
                growth: [("metric x".to_owned(), growth)].into(),
                ..Shows::default()
            },
        }
    }

    fn http(value: Option<&str>) -> Outcome {
        let shown = value.map(|value| ("metric x".to_owned(), value.to_owned()));
        Outcome::Http { status: 200, local_endpoints: None, shown: shown.into_iter().collect() }
    }

    #[test]
    fn growth_is_measured_from_the_step_before() {
        let flow = flow(FrontendKind::Page);
        let mut shown = Shown::default();
        let expectation = |shown: &Shown, growth| {
            let mut expectation = Expectation { open: true, ..Expectation::default() };
            shown.expect(&flow, &pin(growth), &mut expectation);
            expectation
        };
        let first = expectation(&shown, Growth::Somehow);
        assert!(first.admits(&http(Some("1"))) && !first.admits(&http(None)));
        assert!(!first.admits(&Outcome::Dropped));
        shown.values.insert((flow.text.clone(), "metric x".into()), "3".into());
        let later = expectation(&shown, Growth::Somehow);
        assert!(later.admits(&http(Some("3.5"))) && !later.admits(&http(Some("3"))));
        let by = expectation(&shown, Growth::By(2));
        assert!(by.admits(&http(Some("5"))) && !by.admits(&http(Some("6"))));
        let still = expectation(&shown, Growth::By(0));
        assert!(still.admits(&http(Some("3"))) && !still.admits(&http(Some("4"))));
    }
}
