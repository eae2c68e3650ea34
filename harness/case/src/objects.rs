//! API objects out of a state: Services with everything that is allocated for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use touchstone_spec::api::{
    ClientIpConfig, EndpointSlice, LoadBalancerIngress, LoadBalancerStatus, Meta, Service,
    ServicePort, ServiceSpec, ServiceStatus, ServiceType, SessionAffinity, SessionAffinityConfig,
    TrafficPolicy,
};
use touchstone_spec::{Deployed, Family, Protocol};

use crate::error::Source;
use crate::slices::Ports;
use crate::state::{State, no_service};
use crate::text::{
    ExternalIpsText, FamilyAxis, NodePortText, Patch, PortText, ServiceText, SlicesBy,
};
use crate::{At, Book, BookError, CaseError, Place};

/// Number of the first port of endpoints; later ports follow.
const FIRST_TARGET_PORT: u16 = 8000;

/// What building objects needs besides the state.
pub(crate) struct Context<'a> {
    pub(crate) source: &'a Source,
    pub(crate) book: &'a mut Book,
    pub(crate) namespace: String,
    pub(crate) family: FamilyAxis,
    pub(crate) protocol: Protocol,
    pub(crate) alone: bool,
    /// Numbers of slices by Service, slice and ports, in order of appearance.
    pub(crate) slice_numbers: BTreeMap<(String, String), Vec<Ports>>,
}

/// The objects of one moment, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) slices: BTreeMap<String, EndpointSlice>,
    /// What controllers of the cluster run for a Service, by its name.
    pub(crate) deployed: BTreeMap<String, Deployed>,
    /// Slices that are stored as they are, without the API server's rules.
    pub(crate) raw: BTreeMap<String, EndpointSlice>,
}

impl Context<'_> {
    pub(crate) fn wrong(&self, place: Place, message: impl Into<String>) -> CaseError {
        CaseError::new(self.source, place, message)
    }

    pub(crate) fn lack(&self, place: Place) -> impl FnOnce(BookError) -> CaseError {
        let source = self.source.clone();
        move |error| CaseError::new(&source, place, error.to_string())
    }

    /// All objects of a state.
    pub(crate) fn objects(&mut self, state: &State) -> Result<Objects, CaseError> {
        let mut objects = Objects::default();
        for (name, text) in &state.services {
            let service = self.service(state, name, text)?;
            let slices = self.slices(state, name, text, &service)?;
            if state.slices_by == SlicesBy::Cluster && state.endpoints.contains_key(name) {
                let deployed = self.deployed(state, name, text, slices.clone())?;
                objects.deployed.insert(name.clone(), deployed);
            }
            for slice in slices {
                objects.slices.insert(slice.metadata.name.clone(), slice);
            }
            objects.services.insert(name.clone(), service);
        }
        for (name, text) in &state.slices {
            for slice in self.raw_slices(state, name, text)? {
                if objects.slices.contains_key(&slice.metadata.name) {
                    let message = format!("another slice has the name `{}`", slice.metadata.name);
                    return Err(self.wrong(text.place, message));
                }
                objects.raw.insert(slice.metadata.name.clone(), slice);
            }
        }
        Ok(objects)
    }

    pub(crate) fn families(&self, text: &ServiceText) -> Result<Vec<Family>, CaseError> {
        let Some(words) = text.ip_families.get() else {
            return Ok(self.family.families().to_vec());
        };
        let mut families = Vec::new();
        for word in words {
            let family = match (word.value.as_str(), self.family) {
                ("IPv4", _) => Family::V4,
                ("IPv6", _) => Family::V6,
                ("$other", FamilyAxis::V4) => {
                    families.push(Family::V6);
                    continue;
                }
                ("$other", FamilyAxis::V6) => {
                    families.push(Family::V4);
                    continue;
                }
                (other, FamilyAxis::V4 | FamilyAxis::V6 | FamilyAxis::Dual) => {
                    let error = self.wrong(word.place, format!("unknown family `{other}`"));
                    return Err(error.suggest(other, ["IPv4", "IPv6"]));
                }
            };
            if !self.family.families().contains(&family) {
                let message = format!("{family} is not a family of the variant {}", self.family);
                return Err(self
                    .wrong(word.place, message)
                    .help("write `axes: { family: [dual] }`"));
            }
            families.push(family);
        }
        Ok(families)
    }

    fn service(
        &mut self,
        state: &State,
        name: &str,
        text: &At<ServiceText>,
    ) -> Result<Service, CaseError> {
        let At { value: text, place } = text;
        let place = *place;
        let service_type = text.service_type.get().copied().unwrap_or_default();
        let families = self.families(text)?;
        let mut spec = ServiceSpec {
            service_type,
            selector: text.selector.get().cloned().unwrap_or_default(),
            external_traffic_policy: text.external_traffic_policy.get().copied(),
            internal_traffic_policy: text.internal_traffic_policy.get().copied(),
            session_affinity: text.session_affinity.get().copied(),
            session_affinity_config: affinity_config(text),
            allocate_load_balancer_node_ports: text
                .allocate_load_balancer_node_ports
                .get()
                .copied(),
            load_balancer_class: text.load_balancer_class.get().cloned(),
            external_name: text
                .external_name
                .get()
                .map(|name| name.replace("$ns", &self.namespace)),
            publish_not_ready_addresses: text.publish_not_ready_addresses.get().copied(),
            traffic_distribution: text.traffic_distribution.get().cloned(),
            ..ServiceSpec::default()
        };
        if service_type != ServiceType::ExternalName {
            spec.ip_families = families.iter().map(|f| f.api_name().to_owned()).collect();
            let policy = if families.len() > 1 { "PreferDualStack" } else { "SingleStack" };
            spec.ip_family_policy =
                Some(text.ip_family_policy.get().cloned().unwrap_or_else(|| policy.to_owned()));
            spec.cluster_ips = self.cluster_ips(state, name, text, &families, place)?;
            spec.cluster_ip = spec.cluster_ips.first().cloned();
        }
        spec.ports = self.ports(state, name, text, service_type)?;
        spec.external_ips = self.external_ips(state, name, text, &families)?;
        spec.load_balancer_source_ranges = self.source_ranges(state, text)?;
        if service_type == ServiceType::LoadBalancer
            && spec.external_traffic_policy == Some(TrafficPolicy::Local)
        {
            spec.health_check_node_port = Some(match text.health_check_node_port.get() {
                None => self.book.health_check_node_port(name).map_err(self.lack(place))?,
                Some(At { value: number, place }) => self.literal_node_port(*number, *place)?,
            });
        }
        let ingress = self.ingress(state, name, text, service_type, &families, place)?;
        Ok(Service {
            metadata: Meta {
                name: name.to_owned(),
                namespace: self.namespace.clone(),
                labels: text.labels.get().cloned().unwrap_or_default(),
                annotations: text.annotations.get().cloned().unwrap_or_default(),
            },
            spec,
            status: ServiceStatus { load_balancer: LoadBalancerStatus { ingress } },
        })
    }

    fn cluster_ips(
        &mut self,
        state: &State,
        name: &str,
        text: &ServiceText,
        families: &[Family],
        place: Place,
    ) -> Result<Vec<String>, CaseError> {
        let owner = match text.cluster_ip.get() {
            None => name.to_owned(),
            Some(At { value, .. }) if value == "None" => return Ok(vec!["None".to_owned()]),
            Some(At { value, place }) => match value.strip_prefix('$') {
                Some(other) if crate::grammar::is_name(other) => {
                    if state.services.contains_key(other) {
                        let message = format!("`{other}` still has its cluster IP");
                        return Err(self.wrong(*place, message).help("delete it in the same step"));
                    }
                    other.to_owned()
                }
                Some(_) | None => {
                    let message = format!("`{value}` is not a cluster IP that a case can ask for");
                    return Err(self
                        .wrong(*place, message)
                        .help("`None`, or `$web` for the address of a deleted Service"));
                }
            },
        };
        families
            .iter()
            .map(|family| self.book.cluster_ip(&owner, *family).map(|ip| ip.to_string()))
            .collect::<Result<_, _>>()
            .map_err(self.lack(place))
    }

    fn ports(
        &mut self,
        state: &State,
        name: &str,
        text: &ServiceText,
        service_type: ServiceType,
    ) -> Result<Vec<ServicePort>, CaseError> {
        let place = state.services.get(name).map(|text| text.place).unwrap_or_default();
        let wants_node_port = match service_type {
            ServiceType::NodePort => true,
            ServiceType::LoadBalancer => {
                text.allocate_load_balancer_node_ports.get().copied().unwrap_or(true)
            }
            ServiceType::ClusterIP | ServiceType::ExternalName => false,
        };
        let texts = text.ports.get().map(Vec::as_slice).unwrap_or_default();
        let mut ports: Vec<ServicePort> = Vec::new();
        for (index, port) in texts.iter().enumerate() {
            if ports.iter().any(|earlier| earlier.name == port.name) {
                let message = format!("{name} has two ports named `{}`", port.name);
                return Err(self.wrong(place, message).help("give every port a name of its own"));
            }
            let node_port = if wants_node_port {
                Some(self.node_port(state, name, port, place)?)
            } else {
                None
            };
            ports.push(ServicePort {
                name: port.name.clone(),
                protocol: Some(port.protocol.unwrap_or(self.protocol)),
                port: port.port,
                target_port: Some(target_port(port, index)),
                node_port,
                app_protocol: port.app_protocol.clone(),
            });
        }
        Ok(ports)
    }

    fn node_port(
        &mut self,
        state: &State,
        name: &str,
        port: &PortText,
        place: Place,
    ) -> Result<u16, CaseError> {
        let (service, port) = match &port.node_port {
            None => (name, port.name.as_str()),
            Some(At { value: NodePortText::Number(number), place }) => {
                return self.literal_node_port(*number, *place);
            }
            Some(At { value: NodePortText::SameAs(other), place }) => {
                let (service, port) = other.split_once('/').unwrap_or((other, ""));
                let Some(owner) = state.services.get(service) else {
                    return Err(no_service(self.source, *place, service, &state.services));
                };
                let names =
                    || owner.value.ports.get().into_iter().flatten().map(|port| port.name.as_str());
                if !names().any(|name| name == port) {
                    let message = format!("{service} has no port `{port}`");
                    return Err(self.wrong(*place, message).suggest(port, names()));
                }
                (service, port)
            }
        };
        self.book.node_port(service, port).map_err(self.lack(place))
    }

    fn literal_node_port(&self, number: u16, place: Place) -> Result<u16, CaseError> {
        if self.alone {
            return Ok(number);
        }
        let message = "a literal node port collides with other cases on the cluster";
        Err(self.wrong(place, message).help("write `needs: { alone: true }`"))
    }

    fn external_ips(
        &mut self,
        state: &State,
        name: &str,
        text: &ServiceText,
        families: &[Family],
    ) -> Result<Vec<String>, CaseError> {
        let Some(At { value: text, place }) = text.external_ips.get() else {
            return Ok(Vec::new());
        };
        let mut addresses = Vec::new();
        match text {
            ExternalIpsText::Count(count) => {
                for index in 0..usize::from(*count) {
                    for family in families {
                        let ip = self.book.external_ip(name, index, *family);
                        addresses.push(ip.map_err(self.lack(*place))?);
                    }
                }
            }
            ExternalIpsText::List(words) => {
                for word in words {
                    addresses.extend(self.named_addresses(state, word, *place, families)?);
                }
            }
        }
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    /// The addresses that a word of a list stands for, in the given families; with `/other` behind
    /// it, in those that are not given.
    fn named_addresses(
        &mut self,
        state: &State,
        word: &str,
        place: Place,
        families: &[Family],
    ) -> Result<Vec<IpAddr>, CaseError> {
        let Some(name) = word.strip_prefix('$') else {
            let address: IpAddr = word.parse().map_err(|_| {
                self.wrong(place, format!("`{word}` is not an address"))
                    .help("write an address, `$node.n1`, `$web`, `$web.clusterIP` or a number")
            })?;
            return Ok(Some(address)
                .filter(|ip| families.contains(&Family::of(*ip)))
                .into_iter()
                .collect());
        };
        let (name, families) = match name.strip_suffix("/other") {
            Some(name) => {
                (name, Family::BOTH.into_iter().filter(|f| !families.contains(f)).collect())
            }
            None => (name, families.to_vec()),
        };
        if name == "dns" {
            let Some(dns) = &self.book.facts.dns else {
                let message = "the cluster of this case has no name server";
                return Err(self.wrong(place, message).help("write `needs: { dns: true }`"));
            };
            return Ok(families.into_iter().filter_map(|family| dns.address(family)).collect());
        }
        let (owner, kind) = match name.split_once('.') {
            Some(("node", node)) => ("node", node),
            Some((service, kind)) => (service, kind),
            None => (name, "externalIP"),
        };
        if owner != "node" && !state.services.contains_key(owner) {
            return Err(no_service(self.source, place, owner, &state.services));
        }
        let mut addresses = Vec::new();
        for family in families {
            let ip = match (owner, kind) {
                ("node", node) => {
                    let (node, number) = further(node);
                    self.book.nth_node_address(node, family, number)
                }
                (service, "externalIP") => self.book.external_ip(service, 0, family),
                (service, "loadBalancer") => self.book.load_balancer_ip(service, 0, family),
                (service, "clusterIP") => self.book.cluster_ip(service, family),
                (_, other) => {
                    let message = format!("`{other}` is no kind of address of a Service");
                    let known = ["clusterIP", "externalIP", "loadBalancer"];
                    return Err(self.wrong(place, message).suggest(other, known));
                }
            };
            addresses.push(ip.map_err(self.lack(place))?);
        }
        Ok(addresses)
    }

    fn source_ranges(
        &mut self,
        state: &State,
        text: &ServiceText,
    ) -> Result<Vec<String>, CaseError> {
        let mut ranges = Vec::new();
        for At { value: word, place } in
            text.load_balancer_source_ranges.get().into_iter().flatten()
        {
            let Some(name) = word.strip_prefix('$') else {
                // Literal ranges may be wrong on purpose: rejecting them is the API server's part.
                ranges.push(word.clone());
                continue;
            };
            let nets = self.range(name).ok_or_else(|| {
                let known = ["outside", "outside2", "pods", "node.n1", "pod.n1"];
                self.wrong(*place, format!("there is no range `${name}`"))
                    .suggest(name, known.into_iter().chain(state.nodes.keys().map(String::as_str)))
            })?;
            let families = self.family.families();
            ranges.extend(
                nets.into_iter()
                    .filter(|net| families.contains(&Family::of(net.addr())))
                    .map(|net| net.to_string()),
            );
        }
        Ok(ranges)
    }

    /// The ranges of the cluster that a `$name` stands for.
    fn range(&self, name: &str) -> Option<Vec<IpNet>> {
        let hosts = |addresses: &[IpAddr]| addresses.iter().copied().map(IpNet::from).collect();
        let facts = &self.book.facts;
        if let Some(node) = name.strip_prefix("node.") {
            return self.book.node(node).map(|(_, node)| hosts(&node.addresses));
        }
        if let Some(node) = name.strip_prefix("pod.") {
            return self.book.node(node).map(|(_, node)| hosts(&node.client.addresses));
        }
        if name == "pods" {
            return Some(facts.pod_cidrs.clone());
        }
        facts.outside.iter().find(|client| client.name == name).map(|client| client.cidrs.clone())
    }

    fn ingress(
        &mut self,
        state: &State,
        name: &str,
        text: &ServiceText,
        service_type: ServiceType,
        families: &[Family],
        place: Place,
    ) -> Result<Vec<LoadBalancerIngress>, CaseError> {
        let settings = text.load_balancer.get();
        if let Some(At { value, place }) = settings
            && (value.ingress > 0 || value.hostname.is_some())
            && service_type != ServiceType::LoadBalancer
        {
            let message = format!("`{name}` is not of type LoadBalancer, so it has no balancer");
            return Err(self.wrong(*place, message).help(
                "the API server clears the balancer's addresses of every other Service; leave \
                 `loadBalancer` out, or write 0",
            ));
        }
        let settings = settings.map(|text| &text.value);
        let count = match settings {
            Some(settings) => settings.ingress,
            None => u8::from(service_type == ServiceType::LoadBalancer),
        };
        let mut owner = name;
        if let Some(At { value: other, place }) = settings.and_then(|s| s.same_as.as_ref()) {
            if !state.services.contains_key(other) {
                return Err(no_service(self.source, *place, other, &state.services));
            }
            owner = other;
        }
        let ip_mode = settings.and_then(|settings| settings.ip_mode);
        let named = settings.map_or(&[][..], |settings| &settings.addresses);
        let mut addresses = Vec::new();
        for word in named {
            addresses.extend(self.named_addresses(state, word, place, families)?);
        }
        let allocated = if named.is_empty() { usize::from(count) } else { 0 };
        for index in 0..allocated {
            for family in families {
                let ip = self.book.load_balancer_ip(owner, index, *family);
                addresses.push(ip.map_err(self.lack(place))?);
            }
        }
        let mut ingress: Vec<LoadBalancerIngress> = addresses
            .into_iter()
            .map(|ip| LoadBalancerIngress { ip: Some(ip), hostname: None, ip_mode })
            .collect();
        if let Some(hostname) = settings.and_then(|settings| settings.hostname.clone()) {
            let named = LoadBalancerIngress { hostname: Some(hostname), ..Default::default() };
            ingress.push(named);
        }
        Ok(ingress)
    }
}

/// A node and the number of one of its addresses: `n1[2]`, and 0 for `n1`.
fn further(word: &str) -> (&str, usize) {
    let Some((node, rest)) = word.split_once('[') else { return (word, 0) };
    rest.strip_suffix(']').and_then(|number| number.parse().ok()).map_or((word, 0), |n| (node, n))
}

/// Number of a port on endpoints that say nothing else.
pub(crate) fn target_port(port: &PortText, index: usize) -> u16 {
    let index = u16::try_from(index).unwrap_or(u16::MAX);
    port.target_port.unwrap_or(FIRST_TARGET_PORT.saturating_add(index))
}

/// The API server fills in the timeout, unless a case writes null to have it left out.
fn affinity_config(text: &ServiceText) -> Option<SessionAffinityConfig> {
    const API_DEFAULT: u32 = 10_800;
    match (&text.session_affinity_config, text.session_affinity.get()) {
        (Patch::Set(config), _) => Some(*config),
        (Patch::Keep, Some(SessionAffinity::ClientIP)) => Some(SessionAffinityConfig {
            client_ip: ClientIpConfig { timeout_seconds: API_DEFAULT },
        }),
        (Patch::Keep, Some(SessionAffinity::None) | None) | (Patch::Remove, _) => None,
    }
}
