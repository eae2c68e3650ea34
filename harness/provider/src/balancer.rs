//! Load balancers that choose the node by which a connection enters.
//!
//! One that forwards sends the client's packets on as they are, by a node whose health-check node
//! port answers 200. One that is a proxy connects to a node port under an address of its own. Both
//! choose for each connection, the nodes in turn.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use touchstone_spec::api::{Service, ServiceType, TrafficPolicy};
use touchstone_spec::{
    Asked, Client, ClientFacts, ClientKind, ClusterFacts, Flow, FrontendKind, LoadBalancers,
    Observation, Outcome, Protocol,
};

/// How long a node may take to answer a health check.
pub(crate) const HEALTH_WAIT: Duration = Duration::from_millis(500);
/// Status of a healthy node.
const HEALTHY: u16 = 200;

/// The choices made so far.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    /// Connections per client and address, so that nodes take turns.
    turns: Mutex<BTreeMap<(String, SocketAddr), usize>>,
}

/// What a balancer makes of a flow.
pub(crate) enum Balanced {
    /// It has no part in it.
    Untouched,
    /// It sends it so.
    Sent(Box<Flow>),
    /// It has nowhere to send it.
    Nowhere,
    /// It could not look.
    Broke(String),
}

impl Balancer {
    /// Chooses a node for one connection to one of these Services; `ask` asks a health check.
    pub(crate) async fn choose<A, O>(
        &self,
        flow: &Flow,
        facts: &ClusterFacts,
        services: impl FnOnce() -> Result<Vec<Service>, String>,
        ask: A,
    ) -> Balanced
    where
        A: Fn(Flow) -> O,
        O: Future<Output = Observation>,
    {
        let chooses = facts.network.balancer_chooses()
            && flow.client.kind == ClientKind::Outside
            && flow.frontend == FrontendKind::LoadBalancer
            && flow.via.is_none();
        if !chooses {
            return Balanced::Untouched;
        }
        let service = match services() {
            Ok(services) => services.into_iter().find(|service| has_address(service, flow)),
            Err(why) => return Balanced::Broke(why),
        };
        let Some(service) = service else { return Balanced::Untouched };
        let candidates = candidates(&service, flow, facts);
        let candidates = match health_port(&service) {
            None => candidates,
            Some(port) => {
                let checks = candidates
                    .iter()
                    .map(|(to, sent)| ask(health_check(sent, SocketAddr::new(*to, port))));
                let answers = futures::future::join_all(checks).await;
                let healthy = answers.iter().map(is_healthy);
                let both = candidates.into_iter().zip(healthy);
                both.filter(|(_, healthy)| *healthy).map(|(candidate, _)| candidate).collect()
            }
        };
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = turns.entry((flow.client.place.clone(), flow.to)).or_default();
            *turn += 1;
            *turn
        };
        match candidates.len() {
            0 => Balanced::Nowhere,
            count => {
                let chosen = candidates.into_iter().nth(turn % count);
                chosen.map_or(Balanced::Nowhere, |(_, flow)| Balanced::Sent(Box::new(flow)))
            }
        }
    }
}

/// Whether a Service's load balancer has the flow's destination.
fn has_address(service: &Service, flow: &Flow) -> bool {
    let mut ingress = service.status.load_balancer.ingress.iter();
    service.spec.service_type == ServiceType::LoadBalancer
        && ingress.any(|ingress| ingress.ip == Some(flow.to.ip()))
}

/// Every node's InternalIP, with the flow as it would be sent there.
fn candidates(
    service: &Service,
    flow: &Flow,
    facts: &ClusterFacts,
) -> Vec<(std::net::IpAddr, Flow)> {
    let family = flow.family();
    let sender = |client: &ClientFacts, index: usize| {
        Some(Client {
            kind: ClientKind::Outside,
            place: client.name.clone(),
            node: None,
            address: client.address(index, family)?,
        })
    };
    let mut found = Vec::new();
    for (index, node) in facts.nodes.iter().enumerate() {
        let address = node.addresses.iter().find(|ip| touchstone_spec::Family::of(**ip) == family);
        let Some(address) = address.copied() else { continue };
        let sent = match facts.network.load_balancers {
            None | Some(LoadBalancers::Static) => None,
            Some(LoadBalancers::HealthChecked) => {
                let client = facts.outside.iter().find(|client| client.name == flow.client.place);
                client.and_then(|client| sender(client, index)).map(|client| Flow {
                    client,
                    via: Some(node.name.clone()),
                    ..flow.clone()
                })
            }
            Some(LoadBalancers::NodePort) => {
                let port =
                    service.spec.ports.iter().find(|port| {
                        port.port == flow.to.port() && port.transport() == flow.protocol
                    });
                let client = facts.balancer.as_ref().and_then(|client| sender(client, index));
                client.zip(port.and_then(|port| port.node_port)).map(|(client, port)| Flow {
                    client,
                    to: SocketAddr::new(address, port),
                    ..flow.clone()
                })
            }
        };
        found.extend(sent.map(|flow| (address, flow)));
    }
    found
}

/// The health-check node port that the balancer asks, if the Service has one.
fn health_port(service: &Service) -> Option<u16> {
    let local = service.spec.external_traffic_policy == Some(TrafficPolicy::Local);
    service.spec.health_check_node_port.filter(|port| local && *port != 0)
}

/// The question to a node, asked from where the balancer would send.
fn health_check(sent: &Flow, to: SocketAddr) -> Flow {
    let asked = Asked { path: "/healthz".to_owned(), looks: Vec::new() };
    let (protocol, frontend) = (Protocol::Tcp, FrontendKind::HealthCheck);
    Flow { to, protocol, frontend, http: Some(asked), size: 0, ..sent.clone() }
}

fn is_healthy(answer: &Observation) -> bool {
    match answer {
        Observation::Saw(Outcome::Http { status, .. }) => *status == HEALTHY,
        Observation::Saw(
            Outcome::Reached { .. }
            | Outcome::Refused(_)
            | Outcome::Dropped
            | Outcome::Unhandled
            | Outcome::Unreachable
            | Outcome::Reset
            | Outcome::Answered(_),
        )
        | Observation::ProbeBroke(_) => false,
    }
}
