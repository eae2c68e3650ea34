//! From a claim and its endpoints to the set of allowed outcomes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use touchstone_spec::api::{SessionAffinity, TrafficPolicy};
use touchstone_spec::{
    Allowed, ClientKind, Expectation, Family, Features, Flow, Node, OutcomeKind, Reason, World,
};

use crate::claim::{Claim, ClaimKind, claim};
use crate::endpoints::{backends, choose, reason};
use crate::path::{entry, is_local_pod, is_own_node, kept_source, node_addresses};

const POLICY: &str = "v1.Service externalTrafficPolicy";
const PROXY: &str = "v1.Service: virtual IPs and service proxies";

pub(crate) fn answer(world: &World, flow: &Flow, features: &Features) -> Expectation {
    let Some(node) = entry(world, flow) else {
        if is_endpoint(world, flow.to) {
            return direct(world, flow);
        }
        return one(Allowed::Unhandled, reason("the packet enters no node", PROXY));
    };
    let claims = claim(world, flow, node);
    match claims.as_slice() {
        [] => unclaimed(world, flow, node, features),
        [only] => match (only.kind, only.port) {
            (ClaimKind::HealthCheck, _) | (_, None) => health_check(world, flow, only, node),
            (
                ClaimKind::ClusterIp
                | ClaimKind::NodePort
                | ClaimKind::ExternalIp
                | ClaimKind::LoadBalancer,
                Some(_),
            ) => claimed(world, flow, only, node, features),
        },
        several => {
            // Two Services want the same address and port: the API does not say who wins, so an
            // answer of any of them is allowed, and nothing is required of a particular one.
            let mut all = Expectation::default();
            for claim in several {
                let each = claimed(world, flow, claim, node, features);
                all.allowed.extend(each.allowed);
                all.reasons.extend(each.reasons);
            }
            all.reasons.push(reason(
                &format!("{} Services claim {}: any of them may win", several.len(), flow.to),
                "undefined by the API",
            ));
            all
        }
    }
}

/// An endpoint itself, past the proxy.
fn direct(world: &World, flow: &Flow) -> Expectation {
    Expectation {
        allowed: BTreeSet::from([Allowed::Reached {
            endpoint: flow.to,
            sources: kept_source(world, flow),
        }]),
        reasons: vec![reason("traffic past the proxy keeps its addresses", PROXY)],
        ..Expectation::default()
    }
}

/// A destination that no Service claims.
fn unclaimed(world: &World, flow: &Flow, node: &Node, features: &Features) -> Expectation {
    let ip = flow.to.ip();
    if is_endpoint(world, flow.to) {
        return direct(world, flow);
    }
    if world.owner(ip).is_some() || ip.is_loopback() {
        return one(
            Allowed::Refused,
            reason(
                &format!("no Service uses this port of {}, and nothing listens on it", node.name),
                PROXY,
            ),
        );
    }
    let owned = world
        .services
        .iter()
        .filter(|service| crate::claim::is_proxied(service))
        .any(|service| service.cluster_ip(flow.family()) == Some(ip));
    if owned {
        return narrowed(
            features,
            "rejects-unused-ports",
            Allowed::Refused,
            reason("no Service port uses this port of the cluster IP", "KEP-3866"),
        );
    }
    if world.proxy.service_cidrs.iter().any(|range| range.contains(&ip)) {
        return narrowed(
            features,
            "drops-unallocated-cluster-ips",
            Allowed::Dropped,
            reason("no Service has this address of the Service range", "KEP-3866"),
        );
    }
    one(Allowed::Unhandled, reason("no Service has this address", PROXY))
}

/// A destination that one Service port claims.
fn claimed(
    world: &World,
    flow: &Flow,
    claim: &Claim<'_>,
    node: &Node,
    features: &Features,
) -> Expectation {
    let Some(port) = claim.port else {
        return health_check(world, flow, claim, node);
    };
    let service = claim.service;
    let own_node = is_own_node(flow, node);
    let local_pod = is_local_pod(world, flow);
    let all = backends(world, service, port, flow.family());
    let mut reasons = vec![claimed_by(flow, claim)];

    // Which endpoints, and whose address they see.
    let (policy, masquerade) = match claim.kind {
        ClaimKind::ClusterIp | ClaimKind::HealthCheck => {
            let policy = service.spec.internal_traffic_policy.unwrap_or_default();
            let detects = world.proxy.detector != touchstone_spec::LocalDetector::None;
            (policy, world.proxy.masquerade_all || (detects && !local_pod))
        }
        ClaimKind::NodePort | ClaimKind::ExternalIp | ClaimKind::LoadBalancer => {
            match service.spec.external_traffic_policy.unwrap_or_default() {
                TrafficPolicy::Cluster => (TrafficPolicy::Cluster, true),
                TrafficPolicy::Local if own_node => {
                    reasons.push(reason(
                        "a node's own traffic to external addresses may use every endpoint",
                        POLICY,
                    ));
                    (TrafficPolicy::Cluster, true)
                }
                TrafficPolicy::Local if local_pod => {
                    reasons.push(reason(
                        "a pod's traffic to external addresses may use every endpoint, with its address kept",
                        POLICY,
                    ));
                    (TrafficPolicy::Cluster, false)
                }
                TrafficPolicy::Local => (TrafficPolicy::Local, false),
            }
        }
    };
    let from_outside =
        claim.kind == ClaimKind::ClusterIp && flow.client.kind == ClientKind::Outside;
    if from_outside && !features.has("cluster-ips-from-outside") {
        reasons.push(reason(
            "cluster IPs are for clients inside the cluster; what happens to packets from outside \
             is left to the proxy",
            "v1.Service type ClusterIP",
        ));
        return Expectation { open: true, reasons, ..Expectation::default() };
    }
    let choice = choose(&all, policy, node);
    reasons.extend(choice.reasons);

    if claim.kind == ClaimKind::LoadBalancer && !in_source_ranges(flow, claim, node, own_node) {
        return denied(choice.any_anywhere, own_node, reasons, features);
    }
    if !choice.any_anywhere {
        return nobody(claim, own_node, flow, node, reasons, features);
    }
    if choice.addresses.is_empty() {
        reasons.push(reason(
            &format!("there are endpoints, but none on {}: packets are dropped", node.name),
            "v1.Service internalTrafficPolicy / externalTrafficPolicy",
        ));
        return Expectation {
            allowed: BTreeSet::from([Allowed::Dropped]),
            reasons,
            ..Expectation::default()
        };
    }

    let sources = |endpoint: SocketAddr| -> BTreeSet<IpAddr> {
        // A client that is the chosen endpoint itself must not see its own address.
        let hairpin = flow.client.kind == ClientKind::Pod && endpoint.ip() == flow.client.address;
        if masquerade && node.addresses.contains(&endpoint.ip()) {
            // The packet never leaves the node, and masquerade happens where packets leave: the
            // API does not say what an endpoint in the node's own network sees.
            return &kept_source(world, flow) | &node_addresses(node, flow.family());
        }
        if masquerade || hairpin {
            node_addresses(node, flow.family())
        } else {
            kept_source(world, flow)
        }
    };
    reasons.push(if masquerade {
        reason(&format!("the endpoint sees an address of {}", node.name), PROXY)
    } else {
        reason("the endpoint sees the client's address", PROXY)
    });
    if choice.addresses.iter().any(|a| a.ip() == flow.client.address) {
        reasons.push(reason(
            &format!("a client that is chosen as its own endpoint is seen as {}", node.name),
            PROXY,
        ));
    }
    let allowed = choice
        .addresses
        .iter()
        .map(|endpoint| Allowed::Reached { endpoint: *endpoint, sources: sources(*endpoint) })
        .collect();
    let sticky = service.spec.session_affinity == Some(SessionAffinity::ClientIP);
    if sticky {
        reasons.push(reason(
            "sessionAffinity ClientIP: one client address keeps to one endpoint",
            "v1.Service sessionAffinity",
        ));
    }
    let foreign_pod = flow.client.kind == ClientKind::Pod
        && flow.client.node.as_deref() != Some(node.name.as_str());
    let open = foreign_pod
        && policy == TrafficPolicy::Cluster
        && service.spec.external_traffic_policy == Some(TrafficPolicy::Local)
        && claim.kind != ClaimKind::ClusterIp;
    if open {
        reasons.push(reason(
            "a pod of another node whose packets arrive unmasqueraded: implementations differ on \
             whether it is internal or external, and replies may take another way",
            "not settled by the API",
        ));
    }
    Expectation { allowed, cover: !sticky, sticky, open, reasons }
}

/// A health-check node port: 200 with the number of ready endpoints on the node, or 503.
///
/// Spec: `v1.Service healthCheckNodePort`; terminating endpoints do not count (KEP-1669).
fn health_check(world: &World, flow: &Flow, claim: &Claim<'_>, node: &Node) -> Expectation {
    let local: BTreeSet<IpAddr> = Family::BOTH
        .into_iter()
        .filter(|family| claim.service.cluster_ip(*family).is_some())
        .flat_map(|family| {
            claim
                .service
                .spec
                .ports
                .iter()
                .flat_map(move |port| backends(world, claim.service, port, family))
        })
        .filter(|backend| backend.node == Some(node.name.as_str()))
        .filter(|backend| backend.conditions.is_ready())
        .map(|backend| backend.address.ip())
        .filter(|ip| Family::of(*ip) == flow.family())
        .collect();
    let count = local.len() as u64;
    one(
        Allowed::Http { status: if count > 0 { 200 } else { 503 }, local_endpoints: count },
        reason(
            &format!("{count} ready endpoints on {}", node.name),
            "v1.Service healthCheckNodePort",
        ),
    )
}

/// Whether a client may use the load balancer.
///
/// Spec: `v1.Service loadBalancerSourceRanges`. With ranges of only the other family nothing is
/// filtered. A node may always reach a load balancer when its own address is in the ranges.
fn in_source_ranges(flow: &Flow, claim: &Claim<'_>, node: &Node, own_node: bool) -> bool {
    let ranges: Vec<ipnet::IpNet> = claim
        .service
        .spec
        .load_balancer_source_ranges
        .iter()
        .filter_map(|range| range.trim().parse::<ipnet::IpNet>().ok())
        .filter(|range| Family::of(range.addr()) == flow.family())
        .collect();
    if ranges.is_empty() {
        return true;
    }
    let inside = |ip: IpAddr| ranges.iter().any(|range| range.contains(&ip));
    if own_node {
        return node.internal_ip(flow.family()).is_some_and(inside);
    }
    inside(flow.client.address)
}

/// A client outside the source ranges.
fn denied(
    any_endpoint: bool,
    own_node: bool,
    mut reasons: Vec<Reason>,
    features: &Features,
) -> Expectation {
    reasons.push(reason(
        "the client's address is outside loadBalancerSourceRanges",
        "v1.Service loadBalancerSourceRanges",
    ));
    let mut allowed = BTreeSet::from([Allowed::Dropped]);
    if !any_endpoint && !features.has("source-ranges-without-endpoints") {
        // Without endpoints there is nothing to protect: refusing is as good.
        allowed.insert(Allowed::Refused);
        if own_node {
            allowed.insert(Allowed::Unhandled);
        }
    }
    Expectation { allowed, reasons, ..Expectation::default() }
}

/// A Service port without any usable endpoint.
fn nobody(
    claim: &Claim<'_>,
    own_node: bool,
    flow: &Flow,
    node: &Node,
    mut reasons: Vec<Reason>,
    features: &Features,
) -> Expectation {
    reasons.push(reason("no usable endpoint anywhere: the connection is refused", PROXY));
    let mut allowed = BTreeSet::from([Allowed::Refused]);
    let beyond = matches!(claim.kind, ClaimKind::ExternalIp | ClaimKind::LoadBalancer);
    if own_node && beyond && !features.has("rejects-external-from-node") {
        reasons.push(reason(
            &format!(
                "packets of {} itself to {} may also leave towards the real owner of the address",
                node.name,
                flow.to.ip()
            ),
            "not settled by the API",
        ));
        allowed.insert(Allowed::Unhandled);
    }
    Expectation { allowed, reasons, ..Expectation::default() }
}

/// `Unhandled` is what the API leaves; a subject that declares `feature` answers `better`.
fn narrowed(features: &Features, feature: &str, better: Allowed, why: Reason) -> Expectation {
    let mut allowed = BTreeSet::from([better]);
    if !features.has(feature) {
        allowed.insert(Allowed::Unhandled);
    }
    Expectation { allowed, reasons: vec![why], ..Expectation::default() }
}

fn one(allowed: Allowed, why: Reason) -> Expectation {
    debug_assert!(allowed.kind() != OutcomeKind::Reached);
    Expectation { allowed: BTreeSet::from([allowed]), reasons: vec![why], ..Expectation::default() }
}

pub(crate) fn is_endpoint(world: &World, to: SocketAddr) -> bool {
    world.slices.iter().any(|slice| {
        slice.ports.iter().any(|port| port.port == Some(to.port()))
            && slice.endpoints.iter().any(|endpoint| {
                endpoint.addresses.iter().any(|a| a.parse::<IpAddr>().ok() == Some(to.ip()))
            })
    })
}

fn claimed_by(flow: &Flow, claim: &Claim<'_>) -> Reason {
    let kind = match claim.kind {
        ClaimKind::ClusterIp => "cluster IP",
        ClaimKind::ExternalIp => "external IP",
        ClaimKind::LoadBalancer => "load-balancer address",
        ClaimKind::NodePort => "node port",
        ClaimKind::HealthCheck => "health-check node port",
    };
    reason(&format!("{} is a {kind} of {}", flow.to, claim.service.key()), PROXY)
}
