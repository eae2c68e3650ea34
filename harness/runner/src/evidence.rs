//! What a failing cell shows.

use std::collections::BTreeSet;

use touchstone_case::{Names, PinnedOutcome};
use touchstone_provider::Cluster;
use touchstone_record::{CellRecord, Failure, PhaseKind, Tally};
use touchstone_spec::{Allowed, FrontendKind, Observation, Outcome, Refusal};
use touchstone_verdict::Wrong;

use crate::cells::{Cell, Role};
use crate::step::StepOutcome;
use crate::traffic::TrafficResult;

/// Failures of which the rules are listed; more of the same add nothing.
const WITH_RULES: usize = 4;

/// Whose step it is.
pub(crate) struct Whose<'a> {
    pub(crate) subject: &'a str,
    pub(crate) case: &'a str,
    pub(crate) attempt: u32,
    pub(crate) step: usize,
    /// Milliseconds of the case at which the step began.
    pub(crate) began: u64,
}

/// The failures of a step, pinned rows first, with the proxy's rules.
pub(crate) async fn failures(
    whose: &Whose<'_>,
    outcome: &StepOutcome,
    names: &Names,
    cluster: &dyn Cluster,
) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut wrong: Vec<&Cell> = outcome.wrong.iter().map(|i| &outcome.cells[*i]).collect();
    wrong.sort_by_key(|cell| (cell.line.is_none(), cell.line));
    for cell in wrong {
        let mut failure = failure(whose, cell, outcome, names);
        // Rules say nothing about what a proxy tells of itself.
        let ruled = failures.len() < WITH_RULES && !cell.flow.frontend.is_told();
        if let (true, Some(node)) = (ruled, &cell.node) {
            failure.rules = cluster.rules(node, &needles(cell)).await;
        }
        failures.push(failure);
    }
    if let Some(traffic) = &outcome.traffic {
        failures.extend(of_traffic(whose, traffic));
    }
    failures
}

/// The log's record of a cell.
pub(crate) fn record(whose: &Whose<'_>, cell: &Cell, settled: bool) -> CellRecord {
    let agrees = cell.wrong.is_none();
    let mut expectation = cell.expectation.clone();
    if agrees {
        // Reasons are wanted where something is wrong; for the rest `explain` gives them.
        expectation.reasons.clear();
    }
    CellRecord {
        subject: whose.subject.to_owned(),
        case: whose.case.to_owned(),
        attempt: whose.attempt,
        step: whose.step,
        flow: cell.flow.text.clone(),
        to: format!("{} {}", cell.flow.protocol, cell.flow.to),
        line: cell.line,
        phase: match cell.role {
            Role::Control => PhaseKind::Control,
            Role::Pinned | Role::Matrix | Role::Marker if settled => PhaseKind::Hold,
            Role::Pinned | Role::Matrix | Role::Marker => PhaseKind::Settle,
        },
        expectation,
        seen: cell
            .tally
            .seen()
            .iter()
            .map(|(saw, count)| Tally { saw: saw.clone(), count: *count })
            .collect(),
        first_right: cell.first_right,
        last_wrong: cell.last_wrong,
        agrees,
    }
}

fn failure(whose: &Whose<'_>, cell: &Cell, outcome: &StepOutcome, names: &Names) -> Failure {
    let at = cell.first_disagreement.as_ref().map_or(outcome.times.ended, |(at, _)| *at);
    let mut evidence = Vec::new();
    match &cell.wrong {
        Some(Wrong::NeverSeen(endpoints)) => evidence.push(format!(
            "never seen by any client of this frontend on this node: {}",
            list(endpoints.iter().map(|e| named(names, *e)))
        )),
        Some(Wrong::Moved(endpoints)) => evidence.push(format!(
            "one client address was served by {} endpoints: {}",
            endpoints.len(),
            list(endpoints.iter().map(|e| named(names, *e)))
        )),
        Some(Wrong::Kept(seconds)) => evidence.push(format!(
            "after a pause of {seconds} s every client reached the same endpoint as before"
        )),
        Some(Wrong::Uneven(shares)) => evidence.push(format!(
            "uneven shares: {}",
            list(shares.iter().map(|(e, share)| {
                format!("{} {}.{} %", named(names, *e), share / 10, share % 10)
            }))
        )),
        Some(Wrong::Resent(_)) => evidence.push(
            "a packet had to be sent again before the answer came, which counts as lost".to_owned(),
        ),
        Some(Wrong::Outcome(_)) | None => {}
    }
    if let Some((_, saw)) = &cell.first_disagreement {
        evidence.push(format!("first disagreement: {}", said(saw, names)));
        if matches!(saw, Observation::Saw(Outcome::Unhandled)) {
            evidence.push(
                "the packet left its node unhandled and ended in the fabric's sink".to_owned(),
            );
        }
    }
    if cell.role == Role::Marker {
        evidence.push(
            "a Service created after the step's changes must answer as well, to show that the \
             proxy has seen them"
                .to_owned(),
        );
    }
    Failure {
        step: whose.step,
        at_ms: whose.began + at,
        flow: cell.flow.to_string(),
        line: cell.line,
        allowed: allowed(cell, names),
        because: cell.expectation.reasons.iter().map(ToString::to_string).collect(),
        seen: cell
            .tally
            .seen()
            .iter()
            .map(|(saw, count)| format!("{count} × {}", said(saw, names)))
            .collect(),
        phase: Some(if outcome.settled { PhaseKind::Hold } else { PhaseKind::Settle }),
        rules: Vec::new(),
        evidence,
    }
}

fn of_traffic(whose: &Whose<'_>, traffic: &TrafficResult) -> Vec<Failure> {
    let mut evidence = vec![format!(
        "{} attempts were made, and {} past the proxy meanwhile",
        traffic.sent, traffic.past_the_proxy
    )];
    if let Some((first, last)) = traffic.span {
        let (first, last) = (first.as_millis(), last.as_millis());
        evidence
            .push(format!("what was lost was sent {first} to {last} ms after the traffic began"));
    }
    if traffic.at_a_switch > 0 {
        evidence.push(format!(
            "{} of them while their flow went from one endpoint to another",
            traffic.at_a_switch
        ));
    }
    let base = Failure {
        step: whose.step,
        at_ms: whose.began,
        flow: format!("traffic through the change: {}", traffic.text),
        line: Some(traffic.line),
        allowed: Vec::new(),
        because: Vec::new(),
        seen: Vec::new(),
        phase: Some(PhaseKind::Traffic),
        rules: Vec::new(),
        evidence,
    };
    let mut failures = Vec::new();
    if traffic.lost > traffic.budget {
        failures.push(Failure {
            allowed: vec![format!("at most {} lost attempts", traffic.budget)],
            seen: traffic.losses.clone(),
            ..base.clone()
        });
    }
    if !traffic.strange.is_empty() {
        failures.push(Failure {
            allowed: vec!["answers that are right before, during or after the change".to_owned()],
            seen: traffic.strange.clone(),
            ..base.clone()
        });
    }
    if !traffic.moved.is_empty() {
        failures.push(Failure {
            allowed: vec![
                "a kept flow that stays with an endpoint while it may be used".to_owned(),
            ],
            seen: traffic.moved.clone(),
            ..base.clone()
        });
    }
    if !traffic.stuck.is_empty() {
        failures.push(Failure {
            allowed: vec!["a kept flow that follows the change".to_owned()],
            seen: traffic.stuck.clone(),
            ..base
        });
    }
    failures
}

/// What was allowed, in words: the pin's where there is one, then the model's.
fn allowed(cell: &Cell, names: &Names) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    if let Some(pin) = &cell.pin
        && !matches!(pin.outcome, PinnedOutcome::Any)
    {
        lines.push(format!("pinned: {}", pin.words()));
    }
    for allowed in &cell.expectation.allowed {
        lines.push(match allowed {
            Allowed::Reached { endpoint, sources } => format!(
                "reached {} seeing {}",
                named(names, *endpoint),
                list(sources.iter().map(ToString::to_string))
            ),
            Allowed::Http { status, local_endpoints, shows } => {
                let mut line = match cell.flow.frontend {
                    FrontendKind::Page => format!("http {status}"),
                    FrontendKind::Table if *status == 404 => "not listed".to_owned(),
                    FrontendKind::Table => "listed".to_owned(),
                    FrontendKind::ClusterIp
                    | FrontendKind::NodePort
                    | FrontendKind::ExternalIp
                    | FrontendKind::LoadBalancer
                    | FrontendKind::HealthCheck
                    | FrontendKind::Direct
                    | FrontendKind::Name
                    | FrontendKind::Address => {
                        format!("http {status} ({local_endpoints} local endpoints)")
                    }
                };
                for (part, wanted) in shows {
                    line.push_str(&format!(", {part} {wanted}"));
                }
                line
            }
            Allowed::Refused | Allowed::Closed | Allowed::Dropped | Allowed::Unhandled => {
                allowed.kind().to_string()
            }
            Allowed::Answered(answer) => answer.to_string(),
        });
    }
    if cell.expectation.sticky {
        lines.push("always the same endpoint for one client address".to_owned());
    }
    lines
}

/// What was seen, in words.
fn said(saw: &Observation, names: &Names) -> String {
    match saw {
        Observation::ProbeBroke(why) => format!("the probe broke: {why}"),
        Observation::Saw(Outcome::Reached { endpoint, source, resent }) => {
            let again = if *resent > 0 {
                format!(" after {resent} retransmissions")
            } else {
                String::new()
            };
            let who =
                names.addresses.get(source).map_or(String::new(), |name| format!(" ({name})"));
            format!("reached {} seeing {source}{who}{again}", named(names, *endpoint))
        }
        Observation::Saw(Outcome::Refused(Refusal::Icmp { kind, code, from: Some(from) })) => {
            let who = names.addresses.get(from).map_or(String::new(), |name| format!(" ({name})"));
            format!("refused (icmp {kind}/{code} from {from}{who})")
        }
        Observation::Saw(
            other @ (Outcome::Http { .. }
            | Outcome::Refused(_)
            | Outcome::Dropped
            | Outcome::Unhandled
            | Outcome::Unreachable
            | Outcome::Reset
            | Outcome::Answered(_)),
        ) => other.to_string(),
    }
}

fn named(names: &Names, endpoint: std::net::SocketAddr) -> String {
    match names.of(endpoint) {
        Some(name) => format!("{name} ({endpoint})"),
        None => endpoint.to_string(),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// What to look for in the proxy's rules.
fn needles(cell: &Cell) -> Vec<String> {
    let mut needles = BTreeSet::new();
    match cell.flow.frontend {
        FrontendKind::NodePort | FrontendKind::HealthCheck => {
            needles.insert(cell.flow.to.port().to_string());
        }
        FrontendKind::ClusterIp
        | FrontendKind::ExternalIp
        | FrontendKind::LoadBalancer
        | FrontendKind::Direct
        | FrontendKind::Name
        | FrontendKind::Page
        | FrontendKind::Table
        | FrontendKind::Address => {
            needles.insert(cell.flow.to.ip().to_string());
        }
    }
    needles.into_iter().collect()
}
