//! The cells of a step: which flows, what they must meet, what they have met.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use touchstone_case::{Pin, ScriptStep};
use touchstone_model::entry;
use touchstone_spec::{
    Allowed, ApiService, Client, ClusterFacts, DNS_PORT, DnsFacts, Expectation, FEW_REFUSALS,
    Features, Flow, FrontendKind, Observation, Outcome, OutcomeKind, Protocol, Question, World,
};
use touchstone_verdict::{CellTally, Wrong};

use crate::affinity::{Pauses, runs_out_soon};
use crate::expected::expect;
use crate::sampling::{ChoiceKey, Sampling, choice};
use crate::shown::Shown;
use crate::worlds::Worlds;

/// How long silence must last to count as such, and how long a first look waits.
const SILENCE: Duration = Duration::from_millis(300);
/// How long an answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// Samples of one of many clients: what one of them misses, another shows.
const SAMPLES_IN_A_CROWD: u64 = 3;

/// Why a flow is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A row of the case pins it.
    Pinned,
    /// The model's matrix has it.
    Matrix,
    /// Past the proxy, to know that the network itself works.
    Control,
    /// To know that the proxy has seen the change.
    Marker,
}

/// One flow at one step.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) flow: Flow,
    pub(crate) role: Role,
    pub(crate) line: Option<usize>,
    pub(crate) pin: Option<Pin>,
    pub(crate) expectation: Expectation,
    /// The node that handles the flow.
    pub(crate) node: Option<String>,
    /// Whether an answer of before the change would be wrong now.
    pub(crate) changed: bool,
    /// Whether a proxy that has not heard of its node's zone yet would answer differently.
    pub(crate) needs_zone: bool,
    /// Whether its connections wait for no others, since what they show is a matter of time.
    pub(crate) hurried: bool,
    /// Samples that judge it.
    pub(crate) wanted: u64,
    /// What was seen since it was last wrong.
    pub(crate) tally: CellTally,
    /// How regularly that was looked at.
    pub(crate) pauses: Pauses,
    pub(crate) first_right: Option<u64>,
    pub(crate) last_wrong: Option<u64>,
    /// The first thing that was wrong, and when.
    pub(crate) first_disagreement: Option<(u64, Observation)>,
    /// What decided against it.
    pub(crate) wrong: Option<Wrong>,
}

impl Cell {
    fn new(flow: Flow, role: Role, worlds: &Worlds, features: &Features) -> Cell {
        let expectation = expect(&worlds.after, &flow, features);
        let before = expect(&worlds.before, &flow, features);
        Cell {
            node: entry(&worlds.after, &flow, features).map(|node| node.name.clone()),
            changed: worlds.damaged || before.allowed != expectation.allowed,
            needs_zone: worlds
                .unheard
                .as_ref()
                .is_some_and(|world| expect(world, &flow, features).allowed != expectation.allowed),
            hurried: expectation.sticky && runs_out_soon(&worlds.after),
            line: None,
            pin: None,
            tally: CellTally::default(),
            pauses: Pauses::default(),
            first_right: None,
            last_wrong: None,
            first_disagreement: None,
            wrong: None,
            flow,
            role,
            expectation,
            wanted: 1,
        }
    }

    /// The choice whose endpoints it helps to see.
    pub(crate) fn choice(&self) -> Option<ChoiceKey> {
        if let Some(crowd) = self.crowd() {
            return Some(crowd);
        }
        let judged = self.is_judged();
        if judged { choice(self.node.as_deref(), &self.flow, &self.expectation) } else { None }
    }

    /// The choices that are made for many clients, where it is one of them: together they see every
    /// endpoint, although each keeps to its own.
    pub(crate) fn crowd(&self) -> Option<ChoiceKey> {
        let many = self.pin.as_ref().is_some_and(|pin| pin.clients.is_some());
        let (flow, endpoints) = (&self.flow, self.expectation.endpoints());
        many.then(|| (self.node.clone(), flow.to, flow.protocol, endpoints))
    }

    /// The endpoint that it has reached, where it was the only one.
    pub(crate) fn only_endpoint(&self) -> Option<SocketAddr> {
        let mut endpoints = self.tally.endpoints().into_keys();
        endpoints.next().filter(|_| endpoints.next().is_none())
    }

    /// After which pause it is chosen for anew.
    pub(crate) fn forgets(&self) -> Option<Duration> {
        self.pin.as_ref()?.forgets
    }

    /// How long a probe that judges waits: long where an answer must come, short where none may.
    pub(crate) fn patience(&self) -> Duration {
        let silent = self.expectation.open
            || self
                .expectation
                .kinds()
                .iter()
                .any(|k| matches!(k, OutcomeKind::Dropped | OutcomeKind::Unhandled));
        if silent { SILENCE } else { PATIENCE }
    }

    /// How long a probe that only looks whether the change has arrived waits.
    pub(crate) fn glance() -> Duration {
        SILENCE
    }

    /// Takes back that it is wrong where silence came instead of a refusal, and nodes send few of
    /// them; gives the doubt.
    pub(crate) fn doubt_of_refusal(&mut self, world: &World) -> Option<String> {
        let silent = self.wrong == Some(Wrong::Outcome(Outcome::Dropped));
        let due = self.expectation.allowed.contains(&Allowed::Refused);
        let doubtful = world.refusals_are_few && silent && due;
        doubtful.then(|| {
            self.wrong = None;
            format!("{}: a refusal is missing: {FEW_REFUSALS}", self.flow.text)
        })
    }

    /// Whether it counts for the verdict on the proxy.
    pub(crate) fn is_judged(&self) -> bool {
        match self.role {
            Role::Pinned | Role::Matrix => true,
            Role::Control | Role::Marker => false,
        }
    }
}

/// Every cell of a step.
pub(crate) fn cells(
    step: &ScriptStep,
    worlds: &Worlds,
    features: &Features,
    sampling: Sampling,
    shown: &Shown,
    facts: &ClusterFacts,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for row in &step.rows {
        let mut cell = Cell::new(row.flow.clone(), Role::Pinned, worlds, features);
        cell.line = Some(row.line);
        shown.expect(&row.flow, &row.pin, &mut cell.expectation);
        // Whether it keeps to an endpoint is a matter of the pause.
        cell.expectation.sticky &= row.pin.forgets.is_none();
        cell.pin = Some(row.pin.clone());
        cells.push(cell);
    }
    for flow in &step.matrix {
        cells.push(Cell::new(flow.clone(), Role::Matrix, worlds, features));
    }
    for flow in controls(&cells).into_iter().chain(name_controls(&cells, facts.dns.as_ref())) {
        cells.push(Cell::new(flow, Role::Control, worlds, features));
    }
    for (flow, expectation) in api_controls(&cells, facts.api.as_ref()) {
        let control = Cell::new(flow, Role::Control, worlds, features);
        cells.push(Cell { expectation, ..control });
    }
    let mut sharing: BTreeMap<ChoiceKey, u64> = BTreeMap::new();
    for choice in cells.iter().filter_map(Cell::choice) {
        *sharing.entry(choice).or_default() += 1;
    }
    for cell in cells.iter_mut().filter(|cell| cell.is_judged()) {
        let sharing = cell.choice().and_then(|choice| sharing.get(&choice).copied());
        cell.wanted = match (cell.crowd(), cell.forgets()) {
            (None, _) => {
                sampling.wanted(&cell.expectation, sharing.unwrap_or(1), cell.role == Role::Pinned)
            }
            (Some(_), None) => SAMPLES_IN_A_CROWD,
            (Some(_), Some(_)) => 1,
        };
    }
    cells
}

/// Cells that show that a marker has arrived.
pub(crate) fn marker_cells(flows: &[Flow], worlds: &Worlds, features: &Features) -> Vec<Cell> {
    flows.iter().map(|flow| Cell::new(flow.clone(), Role::Marker, worlds, features)).collect()
}

/// Every question that a judged flow asks, put to the name servers past the proxy: what they say
/// is no proxy's doing.
fn name_controls(cells: &[Cell], dns: Option<&DnsFacts>) -> Vec<Flow> {
    let mut controls: Vec<Flow> = Vec::new();
    let servers = || dns.into_iter().flat_map(|dns| &dns.servers);
    for cell in cells {
        let Some(question) = &cell.flow.question else { continue };
        let question = Question { then: None, ..question.clone() };
        for address in servers().filter_map(|server| server.address(cell.flow.family())) {
            let to = SocketAddr::new(address, DNS_PORT);
            let client = &cell.flow.client;
            let known = controls.iter().any(|known| {
                known.to == to
                    && known.question.as_ref() == Some(&question)
                    && known.client.place == client.place
            });
            if !known && client.address != address {
                controls.push(Flow {
                    client: client.clone(),
                    via: None,
                    to,
                    protocol: Protocol::Udp,
                    frontend: FrontendKind::Name,
                    question: Some(question.clone()),
                    size: 0,
                    source_port: None,
                    http: None,
                    text: format!("control: {} asks {to} for {}", client.place, question.name),
                });
            }
        }
    }
    controls
}

/// Every page of an API server that a judged flow asks for, asked of every API server past the
/// proxy, with what must be there.
fn api_controls(cells: &[Cell], api: Option<&ApiService>) -> Vec<(Flow, Expectation)> {
    let Some(api) = api else { return Vec::new() };
    let service = SocketAddr::new(api.address, ApiService::PORT);
    let mut controls = Vec::new();
    for cell in cells {
        if cell.flow.frontend != FrontendKind::Page || cell.flow.to != service {
            continue;
        }
        for (_, address) in &api.servers {
            let to = SocketAddr::new(*address, ApiService::TARGET_PORT);
            let text = format!("control: {} → {to}", cell.flow.client.place);
            let flow = Flow { via: None, to, text, ..cell.flow.clone() };
            controls.push((flow, cell.expectation.clone()));
        }
    }
    controls
}

/// From every place that judged flows start from, directly to every endpoint that they may reach.
fn controls(cells: &[Cell]) -> Vec<Flow> {
    let mut controls: Vec<Flow> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.flow.frontend != FrontendKind::HealthCheck) {
        for allowed in &cell.expectation.allowed {
            let Allowed::Reached { endpoint, .. } = allowed else { continue };
            let client: &Client = &cell.flow.client;
            let known = controls.iter().any(|known| {
                known.to == *endpoint
                    && known.protocol == cell.flow.protocol
                    && known.size == cell.flow.size
                    && known.client.place == client.place
            });
            // A pod that calls its own address never leaves its namespace: no control.
            if !known && client.address != endpoint.ip() {
                controls.push(Flow {
                    client: client.clone(),
                    via: None,
                    to: *endpoint,
                    protocol: cell.flow.protocol,
                    frontend: FrontendKind::Direct,
                    question: None,
                    size: cell.flow.size,
                    source_port: None,
                    http: None,
                    text: format!("control: {} → {endpoint}", client.place),
                });
            }
        }
    }
    controls
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use touchstone_spec::{ClientKind, Protocol, Refusal};

    use super::*;
    use crate::losses::is_lossy;

    fn cell(wrong: Outcome, allowed: Allowed) -> Cell {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client =
            Client { kind: ClientKind::Pod, place: "pod-1".to_owned(), node: None, address };
        let flow = Flow {
            client,
            via: None,
            to: SocketAddr::new(address, 80),
            protocol: Protocol::Tcp,
            frontend: FrontendKind::ClusterIp,
            question: None,
            size: 0,
            source_port: None,
            http: None,
            text: "pod@n1 → web clusterIP".to_owned(),
        };
        let worlds = Worlds {
            before: World::default(),
            after: World::default(),
            between: Vec::new(),
            unheard: None,
            long_before: Vec::new(),
            first: true,
            damaged: false,
        };
        let mut cell = Cell::new(flow, Role::Matrix, &worlds, &Features::default());
        cell.expectation = Expectation { allowed: [allowed].into(), ..Expectation::default() };
        cell.wrong = Some(Wrong::Outcome(wrong));
        cell
    }

    #[test]
    fn api_servers_are_asked_past_the_proxy_as_well() {
        let ip = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let server = |last| (format!("n{last}"), ip(last));
        let api = ApiService { address: ip(100), servers: vec![server(1), server(2)] };
        let http = Allowed::Http { status: 200, local_endpoints: 0, shows: BTreeMap::new() };
        let mut page = cell(Outcome::Dropped, http);
        page.flow.frontend = FrontendKind::Page;
        let elsewhere =
            Cell { flow: page.flow.clone(), ..cell(Outcome::Dropped, Allowed::Refused) };
        page.flow.to = SocketAddr::new(api.address, ApiService::PORT);
        let controls = api_controls(&[elsewhere, page], Some(&api));
        let asked: Vec<String> = controls.iter().map(|(flow, _)| flow.to_string()).collect();
        let control = |at: &str| format!("control: pod-1 → {at} (tcp {at})");
        assert_eq!(asked, [control("192.0.2.1:6443"), control("192.0.2.2:6443")]);
        assert!(controls.iter().all(|(_, due)| due.kinds() == [OutcomeKind::Http].into()));
        assert!(api_controls(&[], None).is_empty());
    }

    #[test]
    fn silence_where_an_answer_is_due_may_be_one_lost_packet() {
        let endpoint = || Allowed::Reached {
            endpoint: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            sources: [IpAddr::V4(Ipv4Addr::LOCALHOST)].into(),
        };
        let reset = || Outcome::Refused(Refusal::Reset);
        assert!(is_lossy(&cell(Outcome::Dropped, endpoint())));
        assert!(is_lossy(&cell(reset(), endpoint())));
        assert!(is_lossy(&cell(Outcome::Dropped, Allowed::Refused)));
        assert!(!is_lossy(&cell(Outcome::Unhandled, Allowed::Refused)));
        assert!(!is_lossy(&cell(Outcome::Unhandled, Allowed::Dropped)));
        assert!(!is_lossy(&cell(reset(), Allowed::Dropped)));
    }

    #[test]
    fn a_refusal_is_missed_only_where_few_are_sent() {
        let few = World { refusals_are_few: true, ..World::default() };
        let doubt = |wrong, allowed, world: &World| {
            let mut cell = cell(wrong, allowed);
            let doubt = cell.doubt_of_refusal(world);
            assert_eq!(doubt.is_some(), cell.wrong.is_none());
            doubt
        };
        let said = doubt(Outcome::Dropped, Allowed::Refused, &few);
        assert!(said.is_some_and(|said| said.contains("icmp_ratelimit=0")));
        assert_eq!(doubt(Outcome::Dropped, Allowed::Refused, &World::default()), None);
        assert_eq!(doubt(Outcome::Refused(Refusal::Reset), Allowed::Dropped, &few), None);
        assert_eq!(doubt(Outcome::Reset, Allowed::Refused, &few), None);
    }
}
