//! Which Service, if any, claims an address and port.

use std::net::IpAddr;

use touchstone_spec::api::{
    HEADLESS_LABEL, PROXY_NAME_LABEL, Service, ServicePort, ServiceType, TrafficPolicy,
};
use touchstone_spec::{Family, Features, Flow, Node, NodePortAddresses, Protocol, World};

/// A Service port that claims the destination of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'w> {
    /// The Service.
    pub service: &'w Service,
    /// Its port; none for a health-check node port.
    pub port: Option<&'w ServicePort>,
    /// By which kind of address.
    pub kind: ClaimKind,
}

/// By which kind of address a Service claims a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimKind {
    /// Its cluster IP.
    ClusterIp,
    /// One of its external IPs.
    ExternalIp,
    /// An address of its load balancer.
    LoadBalancer,
    /// Its node port.
    NodePort,
    /// Its health-check node port.
    HealthCheck,
}

/// Every claim on the destination of a flow at `node`; more than one is a conflict that the API
/// leaves undefined.
#[must_use]
pub fn claim<'w>(
    world: &'w World,
    flow: &Flow,
    node: &Node,
    features: &Features,
) -> Vec<Claim<'w>> {
    let mut claims = Vec::new();
    for service in world.services.iter().filter(|service| is_proxied(service)) {
        let Some(cluster_ip) = service.cluster_ip(flow.family()) else {
            continue;
        };
        for port in service.spec.ports.iter().filter(|port| port.transport() == flow.protocol) {
            if let Some(kind) = kind_of(world, flow, node, service, cluster_ip, port, features) {
                claims.push(Claim { service, port: Some(port), kind });
            }
        }
        if flow.protocol == Protocol::Tcp
            && health_check_port(service) == Some(flow.to.port())
            && node.addresses.contains(&flow.to.ip())
        {
            claims.push(Claim { service, port: None, kind: ClaimKind::HealthCheck });
        }
    }
    claims
}

/// Whether the cluster's proxy serves a Service at all.
///
/// Spec: headless and ExternalName Services have no proxying; the labels
/// `service-proxy-name` and `headless` take a Service away from the cluster's proxy.
pub(crate) fn is_proxied(service: &Service) -> bool {
    let labels = &service.metadata.labels;
    service.spec.service_type != ServiceType::ExternalName
        && service.spec.cluster_ip.as_deref() != Some("None")
        && !labels.contains_key(PROXY_NAME_LABEL)
        && !labels.contains_key(HEADLESS_LABEL)
}

/// The health-check node port of a Service, if it has one.
///
/// Spec: exists exactly for type LoadBalancer with `externalTrafficPolicy: Local`.
pub(crate) fn health_check_port(service: &Service) -> Option<u16> {
    let wanted = service.spec.service_type == ServiceType::LoadBalancer
        && service.spec.external_traffic_policy == Some(TrafficPolicy::Local);
    service.spec.health_check_node_port.filter(|port| wanted && *port != 0)
}

fn kind_of(
    world: &World,
    flow: &Flow,
    node: &Node,
    service: &Service,
    cluster_ip: IpAddr,
    port: &ServicePort,
    features: &Features,
) -> Option<ClaimKind> {
    let ip = flow.to.ip();
    let family = flow.family();
    if port.port == flow.to.port() {
        if cluster_ip == ip {
            return Some(ClaimKind::ClusterIp);
        }
        if service.load_balancer_vips(family).contains(&ip) {
            return Some(ClaimKind::LoadBalancer);
        }
        if service.external_ips(family).contains(&ip) {
            return Some(ClaimKind::ExternalIp);
        }
    }
    let has_node_ports = match service.spec.service_type {
        ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ClusterIP | ServiceType::ExternalName => false,
    };
    let here = has_node_ports
        && port.node_port == Some(flow.to.port())
        && takes_node_ports(world, node, ip, features);
    here.then_some(ClaimKind::NodePort)
}

/// Whether a node's address accepts node ports.
///
/// Which addresses do by default is the proxy's choice: the InternalIPs, or all of them.
fn takes_node_ports(world: &World, node: &Node, ip: IpAddr, features: &Features) -> bool {
    match &world.proxy.node_port_addresses {
        NodePortAddresses::Default if features.has("node-ports-on-all-addresses") => {
            node.addresses.contains(&ip)
        }
        NodePortAddresses::Default => node.internal_ip(Family::of(ip)) == Some(ip),
        NodePortAddresses::Ranges(ranges) => {
            let same_family: Vec<_> =
                ranges.iter().filter(|r| Family::of(r.addr()) == Family::of(ip)).collect();
            node.addresses.contains(&ip)
                && (same_family.is_empty() || same_family.iter().any(|r| r.contains(&ip)))
        }
    }
}
