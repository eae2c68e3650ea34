//! From a claim and its endpoints to the set of allowed outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use touchstone_spec::api::{Service, SessionAffinity, TrafficPolicy};
use touchstone_spec::{
    Allowed, ClientKind, Expectation, Family, Features, Flow, FrontendKind, LocalDetector, Node,
    OutcomeKind, Protocol, Reason, World,
};

use crate::claim::{Claim, ClaimKind, claim, has_node_port};
use crate::endpoints::{Backend, backends, choose, reason};
use crate::node_ports::{Takes, takes};
use crate::past_the_proxy::{direct, is_endpoint, on_loopback};
use crate::path::{detection, entry, is_local_pod, is_own_node, kept_source, node_addresses};
use crate::{balancer, firewall, network};

const POLICY: &str = "v1.Service externalTrafficPolicy";
const DETECT: &str = "KubeProxyConfiguration detectLocalMode";
pub(crate) const PROXY: &str = "v1.Service: virtual IPs and service proxies";

pub(crate) fn answer(world: &World, flow: &Flow, features: &Features) -> Expectation {
    if flow.frontend.is_told() {
        let told = "what a proxy, a kernel or a server says of itself is no part of the API";
        let reasons = vec![reason(told, PROXY)];
        return Expectation { open: true, reasons, ..Expectation::default() };
    }
    if let Some(choices) = balancer::choices(world, flow, features) {
        return balancer::any_of(&choices, |flow| answer(world, flow, features));
    }
    let arriving = network::arriving(world, flow);
    let expectation = handled(world, &arriving, features);
    firewall::pass(world, &arriving, features, expectation)
}

/// The answer of the proxies, to a flow as it arrives where it is handled.
fn handled(world: &World, flow: &Flow, features: &Features) -> Expectation {
    if flow.frontend == FrontendKind::Direct && flow.to.ip().is_loopback() {
        return on_loopback(flow);
    }
    let Some(node) = entry(world, flow, features) else {
        if is_endpoint(world, flow.to) {
            return direct(world, flow);
        }
        return one(Allowed::Unhandled, reason("the packet enters no node", PROXY));
    };
    let claims = claim(world, flow, node, features);
    match claims.as_slice() {
        [] => unclaimed(world, flow, node, features),
        [only] if !only.sure => {
            // What the API does not promise and no feature settles: both are right.
            let mut either = claimed(world, flow, only, node, features);
            let neither = unclaimed(world, flow, node, features);
            either.allowed.extend(neither.allowed);
            either.reasons.extend(neither.reasons);
            Expectation { cover: false, sticky: false, keeps_for: None, ..either }
        }
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

/// A destination that no Service claims.
fn unclaimed(world: &World, flow: &Flow, node: &Node, features: &Features) -> Expectation {
    let ip = flow.to.ip();
    if is_endpoint(world, flow.to) {
        return direct(world, flow);
    }
    if world.owner(ip).is_some() || ip.is_loopback() {
        if let Some(answer) = outside_node_port_addresses(world, flow, node, features) {
            return answer;
        }
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
        .filter(|service| crate::claim::is_proxied(service, features))
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
    if features.has("refuses-unused-external-ports") && has_address(world, ip, features) {
        return one(
            Allowed::Refused,
            reason("no Service port uses this port of the address", "adjudication 0122"),
        );
    }
    one(Allowed::Unhandled, reason("no Service has this address", PROXY))
}

/// Whether an address is an external IP or a load balancer's of a Service with proxying.
fn has_address(world: &World, ip: IpAddr, features: &Features) -> bool {
    let family = Family::of(ip);
    world.services.iter().filter(|service| crate::claim::is_proxied(service, features)).any(
        |service| {
            service.cluster_ip(family).is_some()
                && (service.load_balancer_vips(family).contains(&ip)
                    || service.external_ips(family).contains(&ip))
        },
    )
}

/// A node port on an address that does not accept node ports: nobody listens there.
///
/// A proxy may drop what the policy Local would drop on other addresses: nothing answers in any
/// case.
fn outside_node_port_addresses(
    world: &World,
    flow: &Flow,
    node: &Node,
    features: &Features,
) -> Option<Expectation> {
    let why = match takes(&world.proxy, node, flow.to.ip(), features) {
        Takes::Yes => return None,
        Takes::No(why) | Takes::Maybe(why) => why,
    };
    let proxied =
        world.services.iter().filter(|service| crate::claim::is_proxied(service, features));
    let (service, port) = proxied
        .flat_map(|service| service.spec.ports.iter().map(move |port| (service, port)))
        .find(|(service, port)| {
            has_node_port(service, port, flow.to.port()) && port.transport() == flow.protocol
        })?;
    let mut answer = one(Allowed::Refused, why);
    let local = service.spec.external_traffic_policy == Some(TrafficPolicy::Local);
    let here = choose(&backends(world, service, port, flow.family()), TrafficPolicy::Local, node);
    if local
        && here.any_anywhere
        && here.addresses.is_empty()
        && !features.has("node-port-addresses-limit-drops")
    {
        answer.allowed.insert(Allowed::Dropped);
        answer.reasons.push(reason(
            &format!(
                "no endpoint on {} under the policy Local: it may drop on any address",
                node.name
            ),
            POLICY,
        ));
    }
    Some(answer)
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
    let local_pod = is_local_pod(world, flow, node);
    let all = backends(world, service, port, flow.family());
    let mut reasons = vec![claimed_by(flow, claim)];

    // Which endpoints, and whose address they see.
    let (policy, masquerade) = match claim.kind {
        ClaimKind::ClusterIp | ClaimKind::HealthCheck => {
            let policy = service.spec.internal_traffic_policy.unwrap_or_default();
            let detects = world.proxy.detector != LocalDetector::None;
            reasons.extend(cluster_ip_masquerade(world, local_pod));
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
                TrafficPolicy::Local => {
                    if flow.client.kind == ClientKind::Pod {
                        let by = detection(&world.proxy.detector);
                        reasons.push(reason(
                            &format!(
                                "{} takes this pod for a client from outside ({by})",
                                node.name
                            ),
                            DETECT,
                        ));
                    }
                    (TrafficPolicy::Local, false)
                }
            }
        }
    };
    // Whoever relays has connections of its own to endpoints.
    let masquerade = masquerade || features.has("relays");
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
    if from_outside && !masquerade {
        reasons.push(reason(
            "replies to a client outside need not pass the node that translated the request",
            "v1.Service type ClusterIP",
        ));
        return Expectation { open: true, reasons, ..Expectation::default() };
    }
    let external = claim.kind != ClaimKind::ClusterIp
        && service.spec.external_traffic_policy == Some(TrafficPolicy::Local);
    let mut choice = choose(&all, policy, node);
    if external
        && policy == TrafficPolicy::Cluster
        && features.has("prefers-local-endpoints-under-local")
    {
        let here = choose(&all, TrafficPolicy::Local, node);
        if !here.addresses.is_empty() {
            choice = here;
        }
    }
    reasons.extend(choice.reasons);

    let by_itself = own_node
        && external
        && claim.kind != ClaimKind::NodePort
        && features.has("no-own-traffic-under-local");
    if by_itself {
        reasons.push(reason(
            "the subject promises nothing to nodes that use external addresses under policy Local",
            "adjudication 0122",
        ));
        return Expectation { open: true, reasons, ..Expectation::default() };
    }
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
        let mut allowed = BTreeSet::from([Allowed::Dropped]);
        if features.has("refuses-without-local-endpoints") {
            allowed.insert(Allowed::Refused);
        }
        return Expectation { allowed, reasons, ..Expectation::default() };
    }

    let keeps_pod = claim.kind != ClaimKind::ClusterIp
        && flow.client.kind == ClientKind::Pod
        && features.has("keeps-pods-on-external-addresses");
    let sources = |endpoint: SocketAddr| -> BTreeSet<IpAddr> {
        // A client that is the chosen endpoint itself must not see its own address.
        let hairpin = flow.client.kind == ClientKind::Pod && endpoint.ip() == flow.client.address;
        if masquerade && node.addresses.contains(&endpoint.ip()) {
            // The packet never leaves the node, and masquerade happens where packets leave: the
            // API does not say what an endpoint in the node's own network sees.
            return &kept_source(world, flow) | &node_addresses(node, flow.family());
        }
        if !masquerade && !hairpin {
            return network::source_at(world, flow, endpoint.ip());
        }
        let mut sources = node_addresses(node, flow.family());
        if hairpin && features.has("hairpin-as-the-service") {
            sources.insert(flow.to.ip());
        }
        if keeps_pod && !hairpin {
            sources.extend(network::source_at(world, flow, endpoint.ip()));
        }
        sources
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
    let lost = lost_hairpin(flow, &choice.addresses, &all, features);
    if lost {
        reasons.push(reason(
            "the client may be chosen as its own endpoint, and its slice does not name its node: \
             only a proxy that goes by addresses sends such a packet back",
            "v1.EndpointSlice nodeName; differs between implementations",
        ));
    }
    let allowed = choice
        .addresses
        .iter()
        .map(|endpoint| Allowed::Reached { endpoint: *endpoint, sources: sources(*endpoint) })
        .chain(lost.then_some(Allowed::Dropped))
        .collect();
    let sticky = service.spec.session_affinity == Some(SessionAffinity::ClientIP);
    let keeps_for = service.spec.session_affinity_config.as_ref().filter(|_| sticky);
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
    Expectation {
        allowed,
        cover: !sticky && !lost,
        sticky,
        keeps_for: keeps_for.map(|config| config.client_ip.timeout_seconds),
        open,
        reasons,
    }
}

/// Why traffic to a cluster IP is masqueraded or not, where that is not as in most clusters.
fn cluster_ip_masquerade(world: &World, local_pod: bool) -> Option<Reason> {
    let detector = &world.proxy.detector;
    if world.proxy.masquerade_all {
        return Some(reason(
            "masqueradeAll: everybody's traffic to cluster IPs is masqueraded",
            "KubeProxyConfiguration masqueradeAll",
        ));
    }
    let text = match (detector, local_pod) {
        (LocalDetector::ClusterCidr(_), _) => return None,
        (LocalDetector::None, _) => "traffic to cluster IPs is not masqueraded",
        (_, true) => "the client is a pod of the node",
        (_, false) => "the client is no pod of the node",
    };
    Some(reason(&format!("{text} ({})", detection(detector)), DETECT))
}

/// Whether packets of a pod to itself may be lost, since nothing but its address tells that it
/// runs on the node.
fn lost_hairpin(
    flow: &Flow,
    chosen: &[SocketAddr],
    all: &[Backend<'_>],
    features: &Features,
) -> bool {
    let itself = |address: SocketAddr| {
        flow.client.kind == ClientKind::Pod && address.ip() == flow.client.address
    };
    !features.has("hairpin-without-node-name")
        && all
            .iter()
            .filter(|backend| chosen.contains(&backend.address) && itself(backend.address))
            .any(|backend| backend.node != flow.client.node.as_deref())
}

/// A health-check node port: 200 with the number of ready endpoints on the node, or 503.
///
/// Spec: `v1.Service healthCheckNodePort`; terminating endpoints do not count (KEP-1669).
fn health_check(world: &World, flow: &Flow, claim: &Claim<'_>, node: &Node) -> Expectation {
    if is_endpoint(world, flow.to) {
        // Whoever listens first has the port; the API has no word about it.
        let why = reason("another program of the node listens there", "undefined by the API");
        return if flow.frontend == FrontendKind::HealthCheck {
            Expectation { open: true, reasons: vec![why], ..Expectation::default() }
        } else {
            direct(world, flow)
        };
    }
    let count = ready_on(world, claim.service, node, flow.family());
    one(
        Allowed::Http {
            status: if count > 0 { 200 } else { 503 },
            local_endpoints: count,
            shows: BTreeMap::new(),
        },
        reason(
            &format!("{count} ready endpoints on {}", node.name),
            "v1.Service healthCheckNodePort",
        ),
    )
}

/// How many endpoints of a Service on a node are ready.
pub(crate) fn ready_on(world: &World, service: &Service, node: &Node, of: Family) -> u64 {
    let local: BTreeSet<IpAddr> = Family::BOTH
        .into_iter()
        .filter(|family| service.cluster_ip(*family).is_some())
        .flat_map(|family| {
            let ports = service.spec.ports.iter();
            ports.flat_map(move |port| backends(world, service, port, family))
        })
        .filter(|backend| backend.node == Some(node.name.as_str()))
        .filter(|backend| backend.conditions.is_ready())
        .map(|backend| backend.address.ip())
        .filter(|ip| Family::of(*ip) == of)
        .collect();
    local.len() as u64
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
    if features.has("relays") {
        let (answer, text) = match flow.protocol {
            Protocol::Udp => (Allowed::Dropped, "no usable endpoint anywhere to relay to"),
            Protocol::Tcp | Protocol::Sctp => (
                Allowed::Closed,
                "no usable endpoint anywhere: what the subject accepted, it closes",
            ),
        };
        reasons.push(reason(text, PROXY));
        return Expectation {
            allowed: BTreeSet::from([answer]),
            reasons,
            ..Expectation::default()
        };
    }
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

pub(crate) fn one(allowed: Allowed, why: Reason) -> Expectation {
    debug_assert!(allowed.kind() != OutcomeKind::Reached);
    Expectation { allowed: BTreeSet::from([allowed]), reasons: vec![why], ..Expectation::default() }
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
