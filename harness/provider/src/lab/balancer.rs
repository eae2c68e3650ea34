//! Load balancers that choose the node by which a connection enters.
//!
//! One that forwards sends the client's packets on as they are, by a node whose health-check node
//! port answers 200. One that is a proxy connects to a node port under an address of its own. Both
//! choose for each connection, the nodes in turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use touchstone_apiserver::ApiServer;
use touchstone_probe::{Sockets, get_http};
use touchstone_spec::api::{Service, ServiceType, TrafficPolicy};
use touchstone_spec::{
    Asked, Client, ClientFacts, ClientKind, ClusterFacts, Flow, FrontendKind, LoadBalancers,
    Observation, Outcome, Protocol,
};

use super::places::Places;

/// How long a node may take to answer a health check.
const HEALTH_WAIT: Duration = Duration::from_millis(500);
/// Status of a healthy node.
const HEALTHY: u16 = 200;

/// The choices made so far.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    /// Connections per client and address, so that nodes take turns.
    turns: Mutex<BTreeMap<(String, SocketAddr), usize>>,
}

/// What a balancer makes of a flow.
pub(super) enum Balanced {
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
    /// Chooses a node for one connection.
    pub(super) async fn choose(
        &self,
        flow: &Flow,
        facts: &ClusterFacts,
        api: &ApiServer,
        places: &Places,
    ) -> Balanced {
        let chooses = facts.network.balancer_chooses()
            && flow.client.kind == ClientKind::Outside
            && flow.frontend == FrontendKind::LoadBalancer
            && flow.via.is_none();
        if !chooses {
            return Balanced::Untouched;
        }
        let service = match balanced(api, flow) {
            Ok(Some(service)) => service,
            Ok(None) => return Balanced::Untouched,
            Err(why) => return Balanced::Broke(why),
        };
        let candidates = candidates(&service, flow, facts);
        let candidates = match health_port(&service) {
            None => candidates,
            Some(port) => {
                let checks = candidates.iter().map(|(to, sent)| async move {
                    healthy(sent, SocketAddr::new(*to, port), places).await
                });
                let healthy = futures::future::join_all(checks).await;
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

/// The Service whose load balancer has the flow's destination.
fn balanced(api: &ApiServer, flow: &Flow) -> Result<Option<Service>, String> {
    let list = api.list("Service", None, "").map_err(|status| status.to_string())?;
    for object in list {
        let service: Service =
            serde_json::from_value(object).map_err(|error| format!("a Service: {error}"))?;
        let ingress = &service.status.load_balancer.ingress;
        if service.spec.service_type == ServiceType::LoadBalancer
            && ingress.iter().any(|ingress| ingress.ip == Some(flow.to.ip()))
        {
            return Ok(Some(service));
        }
    }
    Ok(None)
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

/// Whether a node answers 200, asked from where the balancer would send.
async fn healthy(sent: &Flow, to: SocketAddr, places: &Places) -> bool {
    let check =
        Flow { to, protocol: Protocol::Tcp, frontend: FrontendKind::HealthCheck, ..sent.clone() };
    let Ok(socket) = places.tcp(&check).await else { return false };
    let asked = Asked { path: "/healthz".to_owned(), looks: Vec::new() };
    match get_http(socket, to, &asked, HEALTH_WAIT).await {
        Observation::Saw(Outcome::Http { status, .. }) => status == HEALTHY,
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
