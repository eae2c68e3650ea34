//! Endpoints and their slices, in the controller's manner or in that of a hand.

use std::collections::BTreeMap;
use std::net::IpAddr;

use touchstone_spec::api::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, HEADLESS_LABEL, HintFor, Hints, Meta,
    SERVICE_NAME_LABEL, Service,
};
use touchstone_spec::{Family, Protocol};

use crate::deployed;
use crate::objects::{Context, target_port};
use crate::state::{State, conditions, no_endpoint};
use crate::text::{ConditionName, EndpointText, Patch, PortText, ServiceText, SlicesBy};
use crate::{At, CaseError};

/// Label that says who manages a slice.
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Who manages the slices of cases.
const MANAGER: &str = "touchstone";
/// Endpoints of one slice, as the slice controller has it by default.
const SLICE_LIMIT: usize = 100;

/// Ports of an endpoint: by name, with protocol and number.
pub(crate) type Ports = Vec<(String, Protocol, u16)>;

/// An endpoint with its name.
type Member<'s> = (&'s String, &'s At<EndpointText>);

/// Where an endpoint stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stand {
    /// In a pod on this node.
    Pod(String),
    /// In the network of this node.
    Node(String),
    /// At this outside client.
    Outside(String),
}

impl Stand {
    /// The node, if there is one.
    pub(crate) fn node(self) -> Option<String> {
        match self {
            Stand::Pod(node) | Stand::Node(node) => Some(node),
            Stand::Outside(_) => None,
        }
    }
}

impl Context<'_> {
    /// The endpoint whose address another one has; itself when it has its own.
    pub(crate) fn home<'s>(
        &self,
        state: &'s State,
        service: &str,
        name: &str,
        text: &'s At<EndpointText>,
    ) -> Result<(String, &'s At<EndpointText>), CaseError> {
        let Some(At { value: other, place }) = text.value.address.get() else {
            return Ok((format!("{service}/{name}"), text));
        };
        let (service, name) = other.split_once('/').unwrap_or((service, other));
        let Some(home) = state.find(service, name) else {
            let known = state.endpoints.get(service).cloned().unwrap_or_default();
            return Err(no_endpoint(self.source, *place, service, name, &known));
        };
        if home.value.address.get().is_some() {
            let message = format!("`{other}` has no address of its own either");
            return Err(self.wrong(*place, message));
        }
        Ok((format!("{service}/{name}"), home))
    }

    /// Where an endpoint stands; one that has the address of another stands where that one does,
    /// though its slice may say otherwise.
    pub(crate) fn stand(
        &self,
        state: &State,
        service: &str,
        name: &str,
        text: &At<EndpointText>,
    ) -> Result<Stand, CaseError> {
        let (_, home) = self.home(state, service, name, text)?;
        let on_host = home.value.host_network.get() == Some(&true);
        if let Some(At { value: outside, place }) = home.value.outside.get() {
            let known = self.book.facts.outside.iter().map(|client| client.name.as_str());
            if !known.clone().any(|name| name == outside) {
                let message = format!("there is no outside client `{outside}`");
                return Err(self.wrong(*place, message).suggest(outside, known));
            }
            if on_host || home.value.node.get().is_some() {
                let message = "an endpoint outside has neither `node` nor `hostNetwork`";
                return Err(self.wrong(*place, message));
            }
            return Ok(Stand::Outside(outside.clone()));
        }
        let Some(At { value: node, place }) = text.value.node.get().or(home.value.node.get())
        else {
            let message = format!("endpoint {service}/{name} has no `node`");
            return Err(self.wrong(text.place, message));
        };
        if !state.nodes.contains_key(node) {
            return Err(state.no_node(self.source, *place, node));
        }
        Ok(if on_host { Stand::Node(node.clone()) } else { Stand::Pod(node.clone()) })
    }

    /// The address of an endpoint.
    pub(crate) fn endpoint_address(
        &self,
        state: &State,
        service: &str,
        name: &str,
        text: &At<EndpointText>,
        family: Family,
    ) -> Result<IpAddr, CaseError> {
        let (key, home) = self.home(state, service, name, text)?;
        let address = match self.stand(state, service, name, home)? {
            Stand::Pod(_) => self.book.pod_address(&key, family),
            Stand::Node(node) => self.book.node_address(&node, family),
            Stand::Outside(client) => self.book.outside_address(&client, family),
        };
        address.map_err(self.lack(text.place))
    }

    /// The ports of an endpoint.
    pub(crate) fn endpoint_ports(
        &mut self,
        state: &State,
        service: &str,
        name: &str,
        text: &At<EndpointText>,
        ports: &[PortText],
    ) -> Result<Ports, CaseError> {
        let (key, home) = self.home(state, service, name, text)?;
        let on_host = match self.stand(state, service, name, home)? {
            Stand::Pod(_) => false,
            Stand::Node(_) | Stand::Outside(_) => true,
        };
        let own = text.value.ports.get();
        let names = || ports.iter().map(|port| port.name.as_str());
        if let Some(unknown) =
            own.into_iter().flatten().map(|(port, _)| port).find(|p| !names().any(|n| n == *p))
        {
            let message = format!("{service} has no port `{unknown}`");
            return Err(self.wrong(text.place, message).suggest(unknown, names()));
        }
        let mut found = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let number = match own.and_then(|own| own.get(&port.name)) {
                Some(None) => continue,
                Some(Some(_)) if on_host && !self.alone => {
                    let message = "a literal port on a shared host collides with other cases";
                    return Err(self.wrong(text.place, message).help(
                        "leave it out to have one allocated, or write `needs: { alone: true }`",
                    ));
                }
                Some(Some(number)) => *number,
                None if on_host => {
                    self.book.host_port(&key, &port.name).map_err(self.lack(text.place))?
                }
                None => target_port(port, index),
            };
            found.push((port.name.clone(), port.protocol.unwrap_or(self.protocol), number));
        }
        Ok(found)
    }

    pub(crate) fn slices(
        &mut self,
        state: &State,
        name: &str,
        text: &At<ServiceText>,
        service: &Service,
    ) -> Result<Vec<EndpointSlice>, CaseError> {
        let Some(endpoints) = state.endpoints.get(name) else {
            return Ok(Vec::new());
        };
        let nobody = BTreeMap::new();
        let selects = state.slices_by != SlicesBy::Cluster || deployed::selects(name, service);
        let endpoints = if selects { endpoints } else { &nobody };
        let ports = text.value.ports.get().map(Vec::as_slice).unwrap_or_default();
        let mut groups: BTreeMap<(String, usize), (Ports, Vec<Member<'_>>)> = BTreeMap::new();
        for (endpoint, text) in endpoints {
            if !crate::grammar::is_name(endpoint) {
                return Err(self.wrong(text.place, format!("`{endpoint}` cannot name an endpoint")));
            }
            let slice = match (&text.value.slice, state.slices_by) {
                // Only slices that are written out have it.
                (Patch::Remove, _) => continue,
                (Patch::Keep | Patch::Set(_), SlicesBy::Hand) => endpoint.clone(),
                (Patch::Keep, SlicesBy::Controller | SlicesBy::Cluster) => "1".to_owned(),
                (Patch::Set(slice), SlicesBy::Controller | SlicesBy::Cluster) => slice.clone(),
            };
            let ports = self.endpoint_ports(state, name, endpoint, text, ports)?;
            let known = self.slice_numbers.entry((name.to_owned(), slice.clone())).or_default();
            let number = known.iter().position(|known| *known == ports).unwrap_or_else(|| {
                known.push(ports.clone());
                known.len() - 1
            });
            groups.entry((slice, number)).or_insert((ports, Vec::new())).1.push((endpoint, text));
        }
        if endpoints.is_empty() && state.slices_by != SlicesBy::Hand {
            groups.insert(("0".to_owned(), 0), (Vec::new(), Vec::new()));
        }
        let mut slices = Vec::new();
        for family in self.families(&text.value)? {
            for ((slice, number), (ports, members)) in &groups {
                let base = match number {
                    0 => format!("{name}-{family}-{slice}"),
                    number => format!("{name}-{family}-{slice}-p{}", number + 1),
                };
                let chunks: Vec<&[_]> = if members.is_empty() {
                    vec![&[]]
                } else {
                    members.chunks(SLICE_LIMIT).collect()
                };
                for (chunk, members) in chunks.into_iter().enumerate() {
                    let mut endpoints = Vec::new();
                    for (endpoint, text) in members {
                        endpoints.push(self.endpoint(state, name, endpoint, text, family)?);
                    }
                    slices.push(EndpointSlice {
                        metadata: Meta {
                            name: match chunk {
                                0 => base.clone(),
                                chunk => format!("{base}-c{}", chunk + 1),
                            },
                            namespace: self.namespace.clone(),
                            labels: match state.slices_by {
                                SlicesBy::Controller | SlicesBy::Cluster => slice_labels(service),
                                SlicesBy::Hand => service_label(service),
                            },
                            annotations: BTreeMap::new(),
                        },
                        address_type: family.api_name().to_owned(),
                        ports: ports
                            .iter()
                            .map(|(name, protocol, port)| EndpointPort {
                                name: Some(name.clone()),
                                protocol: *protocol,
                                port: Some(*port),
                            })
                            .collect(),
                        endpoints,
                    });
                }
            }
        }
        Ok(slices)
    }

    fn endpoint(
        &self,
        state: &State,
        service: &str,
        name: &str,
        text: &At<EndpointText>,
        family: Family,
    ) -> Result<Endpoint, CaseError> {
        let node = self.stand(state, service, name, text)?.node();
        let address = self.endpoint_address(state, service, name, text, family)?;
        let (ready, serving, terminating) = conditions(&text.value);
        let omit = text.value.omit.get().map(Vec::as_slice).unwrap_or_default();
        let written = |name, value| (!omit.contains(&name)).then_some(value);
        let zones = text.value.for_zones.get().cloned().unwrap_or_default();
        let mut nodes = Vec::new();
        for At { value, place } in text.value.for_nodes.get().into_iter().flatten() {
            if !state.nodes.contains_key(value) {
                return Err(state.no_node(self.source, *place, value));
            }
            nodes.push(HintFor { name: value.clone() });
        }
        let hints = Hints {
            for_zones: zones.into_iter().map(|name| HintFor { name }).collect(),
            for_nodes: nodes,
        };
        let node_name = match &text.value.node_name {
            Patch::Keep => node.clone(),
            Patch::Remove => None,
            Patch::Set(name) => Some(name.clone()),
        };
        Ok(Endpoint {
            addresses: vec![address.to_string()],
            hostname: text.value.hostname.get().cloned(),
            node_name,
            zone: node.and_then(|node| state.nodes.get(&node)?.zone.clone()),
            conditions: Conditions {
                ready: written(ConditionName::Ready, ready),
                serving: written(ConditionName::Serving, serving),
                terminating: written(ConditionName::Terminating, terminating),
            },
            hints: (hints != Hints::default()).then_some(hints),
        })
    }
}

/// What a slice that is written by hand must have at least.
fn service_label(service: &Service) -> BTreeMap<String, String> {
    BTreeMap::from([(SERVICE_NAME_LABEL.to_owned(), service.metadata.name.clone())])
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone();
    labels.insert(SERVICE_NAME_LABEL.to_owned(), service.metadata.name.clone());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    if service.spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    labels
}
