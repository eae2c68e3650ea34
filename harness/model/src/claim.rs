//! Which Service, if any, claims an address and port.

use std::net::IpAddr;

use touchstone_spec::api::{
    HEADLESS_LABEL, PROXY_NAME_LABEL, Service, ServicePort, ServiceType, TrafficPolicy,
};
use touchstone_spec::{Features, Flow, Node, Protocol, World};

use crate::node_ports::{Takes, takes};

/// A Service port that claims the destination of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'w> {
    /// The Service.
    pub service: &'w Service,
    /// Its port; none for a health-check node port.
    pub port: Option<&'w ServicePort>,
    /// By which kind of address.
    pub kind: ClaimKind,
    /// Whether every proxy with the subject's features serves it there, or some only.
    pub sure: bool,
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
    let takes = takes(&world.proxy, node, flow.to.ip(), features);
    let mut claims = Vec::new();
    for service in world.services.iter().filter(|service| is_proxied(service, features)) {
        let Some(cluster_ip) = service.cluster_ip(flow.family()) else {
            continue;
        };
        for port in service.spec.ports.iter().filter(|port| port.transport() == flow.protocol) {
            if let Some(kind) = kind_of(flow, &takes, service, cluster_ip, port) {
                let sure = !is_labelled_headless(service)
                    && (kind != ClaimKind::NodePort || takes == Takes::Yes);
                claims.push(Claim { service, port: Some(port), kind, sure });
            }
        }
        if flow.protocol == Protocol::Tcp
            && health_check_port(service) == Some(flow.to.port())
            && node.addresses.contains(&flow.to.ip())
        {
            let sure = !is_labelled_headless(service) && takes == Takes::Yes;
            let limited = features.has("node-port-addresses-limit-health-checks");
            if !(limited && matches!(takes, Takes::No(_))) {
                claims.push(Claim { service, port: None, kind: ClaimKind::HealthCheck, sure });
            }
        }
    }
    claims
}

/// Whether the cluster's proxy serves a Service at all.
///
/// Spec: headless and ExternalName Services have no proxying; the label `service-proxy-name`
/// takes a Service away from the cluster's proxy. The label `headless` on a Service that has a
/// cluster IP means nothing to the API, and some proxies leave such a Service alone (adjudication
/// 0041).
pub(crate) fn is_proxied(service: &Service, features: &Features) -> bool {
    service.spec.service_type != ServiceType::ExternalName
        && service.spec.cluster_ip.as_deref() != Some("None")
        && !service.metadata.labels.contains_key(PROXY_NAME_LABEL)
        && !(is_labelled_headless(service) && features.has("headless-label-hides-services"))
}

fn is_labelled_headless(service: &Service) -> bool {
    service.metadata.labels.contains_key(HEADLESS_LABEL)
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
    flow: &Flow,
    takes: &Takes,
    service: &Service,
    cluster_ip: IpAddr,
    port: &ServicePort,
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
    let here = has_node_port(service, port, flow.to.port()) && !matches!(takes, Takes::No(_));
    here.then_some(ClaimKind::NodePort)
}

/// Whether a Service port has that number as its node port.
pub(crate) fn has_node_port(service: &Service, port: &ServicePort, number: u16) -> bool {
    let has_node_ports = match service.spec.service_type {
        ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ClusterIP | ServiceType::ExternalName => false,
    };
    has_node_ports && port.node_port == Some(number)
}
