//! Load balancers that choose the node by which a connection enters.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use touchstone_spec::api::{Service, ServicePort, ServiceType};
use touchstone_spec::{
    Allowed, Client, ClientFacts, ClientKind, Expectation, Family, Features, Flow, LoadBalancers,
    Node, World,
};

use crate::answer::ready_on;
use crate::claim::{health_check_port, is_proxied};
use crate::endpoints::reason;

const BALANCER: &str = "v1.Service type LoadBalancer, healthCheckNodePort";

/// The flows that a load balancer may make of one, each by a node of its choice; none when no
/// load balancer has a choice.
///
/// With a health-check node port it takes the nodes that answer 200 there, else any.
pub(crate) fn choices(world: &World, flow: &Flow, features: &Features) -> Option<Vec<Flow>> {
    let chooses = world.network.balancer_chooses()
        && flow.client.kind == ClientKind::Outside
        && flow.via.is_none()
        && world.outside.iter().any(|client| client.name == flow.client.place);
    if !chooses {
        return None;
    }
    let (service, port) = balanced(world, flow, features)?;
    let nodes = world.nodes.iter().enumerate().filter(|(_, node)| {
        health_check_port(service).is_none() || ready_on(world, service, node, flow.family()) > 0
    });
    let through = |(index, node): (usize, &Node)| match world.network.load_balancers {
        None | Some(LoadBalancers::Static) => None,
        Some(LoadBalancers::HealthChecked) => {
            let client = world.outside.iter().find(|client| client.name == flow.client.place)?;
            let client = sender(client, index, flow.family())?;
            Some(Flow { client, via: Some(node.name.clone()), ..flow.clone() })
        }
        Some(LoadBalancers::NodePort) => {
            let client = sender(world.balancer.as_ref()?, index, flow.family())?;
            let to = SocketAddr::new(node.internal_ip(flow.family())?, port.node_port?);
            Some(Flow { client, to, ..flow.clone() })
        }
    };
    Some(nodes.filter_map(through).collect())
}

/// Any of the answers to several flows.
pub(crate) fn any_of(flows: &[Flow], answer: impl Fn(&Flow) -> Expectation) -> Expectation {
    if flows.is_empty() {
        let why = reason("the load balancer has no node to send to", BALANCER);
        return Expectation {
            allowed: BTreeSet::from([Allowed::Dropped]),
            reasons: vec![why],
            ..Expectation::default()
        };
    }
    let each: Vec<Expectation> = flows.iter().map(answer).collect();
    let sizes: BTreeSet<usize> = each.iter().map(|one| one.endpoints().len()).collect();
    let mut all = Expectation {
        // Every endpoint is as likely as another only if every node chooses among as many.
        cover: sizes.len() == 1 && each.iter().all(|one| one.cover),
        open: each.iter().any(|one| one.open),
        ..Expectation::default()
    };
    let mut endpoints: std::collections::BTreeMap<SocketAddr, BTreeSet<IpAddr>> =
        std::collections::BTreeMap::new();
    for one in each {
        for allowed in one.allowed {
            match allowed {
                Allowed::Reached { endpoint, sources } => {
                    endpoints.entry(endpoint).or_default().extend(sources);
                }
                other @ (Allowed::Http { .. }
                | Allowed::Refused
                | Allowed::Closed
                | Allowed::Dropped
                | Allowed::Unhandled
                | Allowed::Answered(_)) => {
                    all.allowed.insert(other);
                }
            }
        }
        for reason in one.reasons {
            if !all.reasons.contains(&reason) {
                all.reasons.push(reason);
            }
        }
    }
    all.allowed.extend(
        endpoints.into_iter().map(|(endpoint, sources)| Allowed::Reached { endpoint, sources }),
    );
    let nodes: Vec<&str> = flows.iter().filter_map(|flow| flow.via.as_deref()).collect();
    let text = if nodes.is_empty() {
        format!("the load balancer sends to the node port of any of {} nodes", flows.len())
    } else {
        format!("the load balancer may choose {}", nodes.join(", "))
    };
    all.reasons.insert(0, reason(&text, BALANCER));
    all
}

/// The Service port whose load balancer has the flow's destination.
fn balanced<'w>(
    world: &'w World,
    flow: &Flow,
    features: &Features,
) -> Option<(&'w Service, &'w ServicePort)> {
    world
        .services
        .iter()
        .filter(|service| service.spec.service_type == ServiceType::LoadBalancer)
        .filter(|service| is_proxied(service, features))
        .filter(|service| {
            let ingress = &service.status.load_balancer.ingress;
            ingress.iter().any(|ingress| ingress.ip == Some(flow.to.ip()))
        })
        .find_map(|service| {
            let port = service
                .spec
                .ports
                .iter()
                .find(|port| port.port == flow.to.port() && port.transport() == flow.protocol);
            port.map(|port| (service, port))
        })
}

fn sender(client: &ClientFacts, index: usize, family: Family) -> Option<Client> {
    Some(Client {
        kind: ClientKind::Outside,
        place: client.name.clone(),
        node: None,
        address: client.address(index, family)?,
    })
}
