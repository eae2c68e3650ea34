//! Markers: how the runner knows that a proxy has seen a change.
//!
//! After the changes of a step one more Service is created, answered by a pod that every cluster
//! has. Objects of a kind reach a proxy in order, so where the marker answers, everything before
//! it has been programmed too. That turns "nothing happens" into something that can be tested:
//! without it, a step that expects no difference would pass before the proxy had noticed it.

use std::net::SocketAddr;

use touchstone_case::{Book, BookError};
use touchstone_spec::api::{Conditions, Endpoint};
use touchstone_spec::{
    CLIENT_PORT, Change, Client, ClientKind, ClusterFacts, Family, Flow, FrontendKind, PlainPort,
    PlainService, Protocol,
};

/// A marker: the objects that make it and the flows that see it; none of either where a step has
/// no marker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marker {
    pub(crate) changes: Vec<Change>,
    pub(crate) flows: Vec<Flow>,
}

/// The marker of a step, from every node in every family of the variant.
///
/// A proxy that goes step by step may serve it before masquerading is in force, so there nodes ask
/// as well, since what they send is masqueraded (adjudication 0121).
pub(crate) fn marker(
    namespace: &str,
    step: usize,
    families: &[Family],
    book: &mut Book,
    step_by_step: bool,
) -> Result<Marker, BookError> {
    let (name, port, port_name) = match step_by_step {
        true => ("marker".to_owned(), nth_port(step), Some(format!("step-{step}"))),
        false => (format!("marker-{step}"), CLIENT_PORT, None),
    };
    let facts = book.facts.clone();
    let mut ips = Vec::new();
    for family in families {
        ips.push((*family, book.cluster_ip(&name, *family)?));
    }
    let changes = PlainService {
        namespace,
        name: &name,
        ips: ips.iter().map(|(_, ip)| *ip).collect(),
        ports: &[PlainPort {
            name: port_name.as_deref().unwrap_or_default(),
            protocol: Protocol::Tcp,
            port,
            target_port: CLIENT_PORT,
        }],
    }
    .changes(|family| answering(&facts, family));
    let mut flows = Vec::new();
    for (family, ip) in ips {
        for node in &facts.nodes {
            let pod = (ClientKind::Pod, "pod", &node.client.place, node.client.address(family));
            let own = node.addresses.iter().copied().find(|own| Family::of(*own) == family);
            let own = (ClientKind::Node, "node", &node.name, own.filter(|_| step_by_step));
            let clients = [pod, own].into_iter().filter_map(|(kind, word, place, address)| {
                let (place, name) = (place.clone(), Some(node.name.clone()));
                Some((word, Client { kind, place, node: name, address: address? }))
            });
            flows.extend(clients.map(|(word, client)| Flow {
                via: None,
                to: SocketAddr::new(ip, port),
                protocol: Protocol::Tcp,
                frontend: FrontendKind::ClusterIp,
                question: None,
                size: 0,
                source_port: None,
                http: None,
                text: format!("{word}@{} → marker of step {step}", node.name),
                client,
            }));
        }
    }
    Ok(Marker { changes, flows })
}

/// The port of a marker in a step.
fn nth_port(step: usize) -> u16 {
    CLIENT_PORT.saturating_add(u16::try_from(step).unwrap_or(u16::MAX))
}

/// The client pod of the last node answers for all markers.
fn answering(facts: &ClusterFacts, family: Family) -> Vec<Endpoint> {
    facts
        .nodes
        .last()
        .and_then(|node| {
            Some(Endpoint {
                addresses: vec![node.client.address(family)?.to_string()],
                node_name: Some(node.name.clone()),
                zone: node.zone.clone(),
                conditions: Conditions {
                    ready: Some(true),
                    serving: Some(true),
                    terminating: Some(false),
                },
                hints: None,
                hostname: None,
            })
        })
        .into_iter()
        .collect()
}
