//! Destinations: what a target of a row stands for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use touchstone_spec::api::{Service, ServicePort};
use touchstone_spec::{Family, FrontendKind, Protocol, Question};

use crate::grammar::{PortRef, Target};
use crate::rows::Scene;
use crate::slices::Stand;
use crate::state::{no_endpoint, no_service};
use crate::{CaseError, Place};

/// A destination.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    pub(crate) kind: FrontendKind,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// The node that owns the address, if one does.
    pub(crate) owner: Option<String>,
    /// The node by which packets from outside enter, where the target says so.
    pub(crate) via: Option<String>,
    /// Service and name of its port, where the port is one of the Service's.
    pub(crate) service: Option<(String, String)>,
    /// For a page: where the node itself finds it, and its path.
    pub(crate) page: Option<(SocketAddr, String)>,
    pub(crate) text: String,
    /// What is asked of the name server at `address` first.
    pub(crate) question: Option<Question>,
}

/// A number with its protocol, and the name of the Service port that it is.
pub(crate) type FoundPort = (u16, Protocol, Option<String>);

impl Scene<'_, '_> {
    /// Destinations of a target in one family.
    pub(crate) fn goals(
        &mut self,
        target: &Target,
        place: Place,
        family: Family,
    ) -> Result<Vec<Goal>, CaseError> {
        match target {
            Target::Frontend { service, kind: FrontendKind::Name, port, .. } => {
                self.named(service, port.as_ref(), place, family)
            }
            Target::Frontend { service, kind, index, node, port } => {
                if let Some(node) = node {
                    self.known_node(node, place)?;
                }
                self.frontend(service, *kind, *index, node.as_deref(), port.as_ref(), place, family)
            }
            Target::Direct { service, endpoint, loopback, port } => {
                let goals = self.direct(service, endpoint, port.as_ref(), place, family)?;
                if !loopback {
                    return Ok(goals);
                }
                goals.into_iter().map(|goal| self.on_loopback(goal, place, family)).collect()
            }
            Target::Unallocated { node, port } => {
                if let Some(node) = node {
                    self.known_node(node, place)?;
                }
                let (number, protocol) = match port {
                    None => (80, self.context.protocol),
                    Some(PortRef::Number(number, protocol)) => {
                        (*number, protocol.unwrap_or(self.context.protocol))
                    }
                    Some(PortRef::Name(_)) => {
                        return Err(self
                            .context
                            .wrong(place, "nobody's address has no named port"));
                    }
                };
                let address =
                    self.context.book.unallocated(family).map_err(self.context.lack(place))?;
                Ok(vec![Goal {
                    kind: FrontendKind::Address,
                    address,
                    port: number,
                    protocol,
                    owner: None,
                    via: node.clone(),
                    service: None,
                    page: None,
                    text: format!("unallocated clusterIP:{number}/{protocol}"),
                    question: None,
                }])
            }
            Target::Loopback { service, address, port } => {
                self.loopback(service, *address, port.as_ref(), place, family)
            }
            Target::Page { page, node } => {
                let nodes = match node {
                    Some(node) => vec![node.clone()],
                    None => self.nodes.to_vec(),
                };
                nodes.into_iter().map(|node| self.page(*page, node, place, family)).collect()
            }
            Target::ApiServer => Ok(vec![self.api_server(place, family)?]),
            Target::Node { node, port, protocol } => {
                self.known_node(node, place)?;
                let protocol = protocol.unwrap_or(self.context.protocol);
                let address = self
                    .context
                    .book
                    .node_address(node, family)
                    .map_err(self.context.lack(place))?;
                Ok(vec![Goal {
                    kind: FrontendKind::Address,
                    address,
                    port: *port,
                    protocol,
                    owner: Some(node.clone()),
                    via: None,
                    service: None,
                    page: None,
                    text: format!("node@{node}:{port}/{protocol}"),
                    question: None,
                }])
            }
        }
    }

    /// A Service's node ports on a loopback address, of whichever node the client is.
    fn loopback(
        &mut self,
        service: &str,
        given: Option<Ipv4Addr>,
        port: Option<&PortRef>,
        place: Place,
        family: Family,
    ) -> Result<Vec<Goal>, CaseError> {
        let address = match (family, given) {
            (Family::V4, given) => given.unwrap_or(Ipv4Addr::LOCALHOST).into(),
            (Family::V6, None) => Ipv6Addr::LOCALHOST.into(),
            (Family::V6, Some(address)) => {
                let message = format!("{address} is an IPv4 address, and the row is for IPv6 too");
                return Err(self
                    .context
                    .wrong(place, message)
                    .help("set `axes: { family: [v4] }`, or `family: v4` in the row"));
            }
        };
        let Some(versions) = self.history.get(service) else {
            return Err(no_service(self.context.source, place, service, self.history));
        };
        let ports = self.frontend_ports(service, versions, FrontendKind::NodePort, port, place)?;
        let several = ports.len() > 1 || port.is_some();
        let written = given.map_or_else(|| "loopback".to_owned(), |given| given.to_string());
        let goals = ports.into_iter().map(|(number, protocol, name)| Goal {
            kind: FrontendKind::NodePort,
            address,
            port: number,
            protocol,
            owner: None,
            via: None,
            page: None,
            text: match &name {
                Some(name) if several => format!("{service} nodePort@{written}:{name}"),
                Some(_) => format!("{service} nodePort@{written}"),
                None => format!("{service} nodePort@{written}:{number}/{protocol}"),
            },
            service: name.map(|name| (service.to_owned(), name)),
            question: None,
        });
        Ok(goals.collect())
    }

    fn direct(
        &mut self,
        service: &str,
        name: &str,
        port: Option<&PortRef>,
        place: Place,
        family: Family,
    ) -> Result<Vec<Goal>, CaseError> {
        let source = self.context.source;
        let Some(text) = self.state.services.get(service) else {
            return Err(no_service(source, place, service, &self.state.services));
        };
        let Some(endpoint) = self.state.find(service, name) else {
            let known = self.state.endpoints.get(service).cloned().unwrap_or_default();
            return Err(no_endpoint(source, place, service, name, &known));
        };
        let texts = text.value.ports.get().map(Vec::as_slice).unwrap_or_default();
        let ports = self.context.endpoint_ports(self.state, service, name, endpoint, texts)?;
        let address = self.context.endpoint_address(self.state, service, name, endpoint, family)?;
        let (_, home) = self.context.home(self.state, service, name, endpoint)?;
        let (owner, via) = match self.context.stand(self.state, service, name, home)? {
            Stand::Pod(node) => (None, Some(node)),
            Stand::Node(node) => (Some(node), None),
            // No node is on the way of another outside client; a flow has one all the same.
            Stand::Outside(_) => (None, self.nodes.first().cloned()),
        };
        let goals: Vec<Goal> = ports
            .iter()
            .filter(|(known, protocol, number)| match port {
                None => true,
                Some(PortRef::Name(name)) => name == known,
                Some(PortRef::Number(wanted, over)) => {
                    wanted == number && over.is_none_or(|over| over == *protocol)
                }
            })
            .map(|(port, protocol, number)| Goal {
                kind: FrontendKind::Direct,
                address,
                port: *number,
                protocol: *protocol,
                owner: owner.clone(),
                via: via.clone(),
                service: Some((service.to_owned(), port.clone())),
                page: None,
                text: match ports.len() {
                    1 => format!("{service} endpoint/{name}"),
                    _ => format!("{service} endpoint/{name}:{port}"),
                },
                question: None,
            })
            .collect();
        if goals.is_empty() {
            let message = format!("endpoint {service}/{name} has no such port");
            return Err(self.context.wrong(place, message));
        }
        Ok(goals)
    }

    /// What an endpoint in its node's network listens on at a loopback address of that node: an
    /// own one for each, so that neighbours of nodes can tell which one a packet is for.
    fn on_loopback(&self, goal: Goal, place: Place, family: Family) -> Result<Goal, CaseError> {
        let node = goal.owner.as_deref().and_then(|node| self.context.book.node(node));
        let Some((index, node)) = node else {
            let message = format!("{} is in no node's network", goal.text);
            return Err(self.context.wrong(place, message).help("write `hostNetwork: true`"));
        };
        let number = u8::try_from(index + 1).ok().filter(|_| family == Family::V4);
        let Some(number) = number else {
            let message = "IPv6 has one loopback address, which is sent to nobody else";
            return Err(self
                .context
                .wrong(place, message)
                .help("set `axes: { family: [v4] }`, or `family: v4` in the row"));
        };
        Ok(Goal {
            address: Ipv4Addr::new(127, 0, 0, number).into(),
            owner: None,
            via: Some(node.name.clone()),
            text: match goal.text.split_once(':') {
                Some((endpoint, port)) => format!("{endpoint}@loopback:{port}"),
                None => format!("{}@loopback", goal.text),
            },
            ..goal
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a target, each named")]
    fn frontend(
        &mut self,
        service: &str,
        kind: FrontendKind,
        index: Option<usize>,
        node: Option<&str>,
        port: Option<&PortRef>,
        place: Place,
        family: Family,
    ) -> Result<Vec<Goal>, CaseError> {
        let Some(versions) = self.history.get(service) else {
            return Err(no_service(self.context.source, place, service, self.history));
        };
        let ports = self.frontend_ports(service, versions, kind, port, place)?;
        let of_node = matches!(kind, FrontendKind::NodePort | FrontendKind::HealthCheck);
        let mut places: Vec<(IpAddr, Option<String>, String)> = Vec::new();
        if of_node {
            let all = self.nodes.iter().map(String::as_str);
            for node in node.map_or_else(|| all.collect(), |node| vec![node]) {
                let number = index.unwrap_or(0);
                let address = self.context.book.nth_node_address(node, family, number);
                let address = address.map_err(self.context.lack(place))?;
                let text = match index {
                    None | Some(0) => format!("{service} {kind}@{node}"),
                    Some(number) => format!("{service} {kind}@{node}[{number}]"),
                };
                places.push((address, Some(node.to_owned()), text));
            }
        } else {
            let all = versions
                .iter()
                .rev()
                .map(|version| addresses(version, kind, family))
                .find(|all| all.len() > index.unwrap_or(0))
                .unwrap_or_default();
            let several = all.len() > 1;
            for (i, address) in all.into_iter().enumerate() {
                if index.is_none_or(|index| index == i) {
                    let text = if several {
                        format!("{service} {kind}[{i}]")
                    } else {
                        format!("{service} {kind}")
                    };
                    places.push((address, None, text));
                }
            }
        }
        let several_ports = ports.len() > 1 || port.is_some();
        let mut goals = Vec::new();
        for (address, owner, text) in places {
            for (number, protocol, name) in &ports {
                let text = match (name, several_ports) {
                    (Some(name), true) if !name.is_empty() => format!("{text}:{name}"),
                    (Some(_), false) => text.clone(),
                    (None, _) if kind == FrontendKind::HealthCheck => text.clone(),
                    (Some(_), true) | (None, _) => format!("{text}:{number}/{protocol}"),
                };
                goals.push(Goal {
                    kind,
                    address,
                    port: *number,
                    protocol: *protocol,
                    owner: owner.clone(),
                    via: node.filter(|_| !of_node).map(str::to_owned),
                    service: name.clone().map(|name| (service.to_owned(), name)),
                    page: None,
                    text,
                    question: None,
                });
            }
        }
        Ok(goals)
    }

    /// Ports by which clients know a Service.
    pub(crate) fn ports_of(
        &self,
        service: &str,
        port: Option<&PortRef>,
        place: Place,
    ) -> Result<Vec<FoundPort>, CaseError> {
        let Some(versions) = self.history.get(service) else {
            return Err(no_service(self.context.source, place, service, self.history));
        };
        self.frontend_ports(service, versions, FrontendKind::Name, port, place)
    }

    fn frontend_ports(
        &self,
        service: &str,
        versions: &[Service],
        kind: FrontendKind,
        port: Option<&PortRef>,
        place: Place,
    ) -> Result<Vec<FoundPort>, CaseError> {
        let number = |port: &ServicePort| match kind {
            FrontendKind::NodePort => port.node_port,
            FrontendKind::ClusterIp
            | FrontendKind::ExternalIp
            | FrontendKind::LoadBalancer
            | FrontendKind::HealthCheck
            | FrontendKind::Direct
            | FrontendKind::Name
            | FrontendKind::Page
            | FrontendKind::Table
            | FrontendKind::Address => Some(port.port),
        };
        let latest = || versions.iter().rev();
        if kind == FrontendKind::HealthCheck {
            let port = latest().find_map(|version| version.spec.health_check_node_port);
            return Ok(port.map(|port| (port, Protocol::Tcp, None)).into_iter().collect());
        }
        match port {
            None => Ok(latest()
                .map(|version| {
                    version
                        .spec
                        .ports
                        .iter()
                        .filter_map(|port| {
                            Some((number(port)?, port.transport(), Some(port.name.clone())))
                        })
                        .collect::<Vec<_>>()
                })
                .find(|ports| !ports.is_empty())
                .unwrap_or_default()),
            Some(PortRef::Name(name)) => {
                let found = latest()
                    .flat_map(|version| &version.spec.ports)
                    .filter(|port| port.name == *name)
                    .find_map(|port| Some((number(port)?, port.transport(), Some(name.clone()))));
                if let Some(found) = found {
                    return Ok(vec![found]);
                }
                let known: BTreeSet<&str> = versions
                    .iter()
                    .flat_map(|version| &version.spec.ports)
                    .map(|port| port.name.as_str())
                    .collect();
                let message = if known.contains(name.as_str()) {
                    format!("port `{name}` of {service} has no node port")
                } else {
                    format!("{service} has no port `{name}`")
                };
                Err(self.context.wrong(place, message).suggest(name, known))
            }
            Some(PortRef::Number(wanted, protocol)) => {
                let protocol = protocol.unwrap_or(self.context.protocol);
                let name = versions
                    .last()
                    .into_iter()
                    .flat_map(|version| &version.spec.ports)
                    .find(|port| number(port) == Some(*wanted) && port.transport() == protocol)
                    .map(|port| port.name.clone());
                Ok(vec![(*wanted, protocol, name)])
            }
        }
    }
}

/// Addresses of one kind that a Service has of its own.
pub(crate) fn addresses(service: &Service, kind: FrontendKind, family: Family) -> Vec<IpAddr> {
    match kind {
        FrontendKind::ClusterIp => service.cluster_ip(family).into_iter().collect(),
        FrontendKind::ExternalIp => service.external_ips(family),
        FrontendKind::LoadBalancer => service
            .status
            .load_balancer
            .ingress
            .iter()
            .filter_map(|ingress| ingress.ip)
            .filter(|ip| Family::of(*ip) == family)
            .collect(),
        FrontendKind::NodePort
        | FrontendKind::HealthCheck
        | FrontendKind::Direct
        | FrontendKind::Name
        | FrontendKind::Page
        | FrontendKind::Table
        | FrontendKind::Address => Vec::new(),
    }
}
