//! The parts of the Kubernetes API that Services are made of, with Kubernetes' own field names.
//!
//! These are the fields a case may write and the oracle reads; the embedded API server keeps
//! every other field of an object as it came.
//! Spec: the API types `v1.Service` and `discovery.k8s.io/v1.EndpointSlice`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Family, Protocol};

/// Label of a slice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label with which a Service asks for another proxy than the cluster's.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Label that makes proxies ignore a Service and its slices.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Label of a Node that names its zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// `metadata` as far as Services need it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Object name.
    pub name: String,
    /// Namespace; empty means `default`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Name, namespace, labels.
    pub metadata: Meta,
    /// What the user asks for.
    pub spec: ServiceSpec,
    /// What a load-balancer controller answered.
    #[serde(default)]
    pub status: ServiceStatus,
}

/// `spec.type`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum ServiceType {
    /// Reachable inside the cluster.
    #[default]
    ClusterIP,
    /// And on a port of every node.
    NodePort,
    /// And on addresses of a load balancer.
    LoadBalancer,
    /// A name only; the proxy stays out.
    ExternalName,
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum TrafficPolicy {
    /// Endpoints of the whole cluster.
    #[default]
    Cluster,
    /// Endpoints of the node that handles the packet.
    Local,
}

/// `sessionAffinity`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum SessionAffinity {
    /// Each connection chooses anew.
    #[default]
    None,
    /// Connections of one client address keep to one endpoint.
    ClientIP,
}

/// `sessionAffinityConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionAffinityConfig {
    /// Settings of `ClientIP` affinity.
    #[serde(rename = "clientIP")]
    pub client_ip: ClientIpConfig,
}

/// `sessionAffinityConfig.clientIP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientIpConfig {
    /// Seconds without a new connection after which the pin is forgotten, 1 to 86,400.
    pub timeout_seconds: u32,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Name; empty for the only port of a Service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Transport protocol; in a case file the protocol axis when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Port clients use on cluster IPs, external IPs and load-balancer IPs.
    pub port: u16,
    /// Port of the pods; read by controllers only, never by a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// Port on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
    /// Application protocol; without effect on traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

impl ServicePort {
    /// The transport protocol, TCP when absent.
    #[must_use]
    pub fn transport(&self) -> Protocol {
        self.protocol.unwrap_or_default()
    }
}

/// `spec` of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `type`.
    #[serde(rename = "type", default)]
    pub service_type: ServiceType,
    /// First cluster IP; `None` for a headless Service.
    #[serde(rename = "clusterIP", default, skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    /// All cluster IPs, one per family.
    #[serde(rename = "clusterIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    /// `IPv4`, `IPv6`, in the order of `clusterIPs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_families: Vec<String>,
    /// `SingleStack`, `PreferDualStack` or `RequireDualStack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<String>,
    /// Ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Labels of the pods; read by controllers only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Which endpoints traffic to external addresses may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Which endpoints traffic to cluster IPs may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<TrafficPolicy>,
    /// Whether clients keep to an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
    /// Settings of the affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// Client addresses that may use the load balancer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether a load balancer gets node ports; the API's default is yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Which controller serves the load balancer; without effect on the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    /// Port on which the proxy tells load balancers about local endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<u16>,
    /// Addresses that reach the Service when a packet for them arrives at a node.
    #[serde(rename = "externalIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<String>,
    /// Name for `ExternalName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    /// Whether controllers publish unready endpoints; read by controllers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_not_ready_addresses: Option<bool>,
    /// Preference which controllers turn into hints; never read by a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
}

/// `status` of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// What the load balancer answered.
    #[serde(default)]
    pub load_balancer: LoadBalancerStatus,
}

/// `status.loadBalancer`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerStatus {
    /// Ingress points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One ingress point of a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Name, for load balancers without an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `VIP` (packets arrive with this destination) or `Proxy` (they do not). KEP-1860.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_mode: Option<IpMode>,
}

/// `ipMode` of a load-balancer ingress. KEP-1860.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum IpMode {
    /// Packets reach the node with the load balancer's address as destination.
    #[default]
    #[serde(rename = "VIP")]
    Vip,
    /// The load balancer opens connections of its own; nodes must not capture its address.
    Proxy,
}

impl Service {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        key(&self.metadata)
    }

    /// The cluster IP of one family, if any; indexed by the address's family, not by position.
    #[must_use]
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        self.spec
            .cluster_ips
            .iter()
            .chain(self.spec.cluster_ip.iter())
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
            .find(|ip| Family::of(*ip) == family)
    }

    /// External IPs of one family.
    #[must_use]
    pub fn external_ips(&self, family: Family) -> Vec<IpAddr> {
        self.spec
            .external_ips
            .iter()
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
            .filter(|ip| Family::of(*ip) == family)
            .collect()
    }

    /// Load-balancer addresses of one family whose packets arrive unchanged (`ipMode: VIP`).
    #[must_use]
    pub fn load_balancer_vips(&self, family: Family) -> Vec<IpAddr> {
        self.status
            .load_balancer
            .ingress
            .iter()
            .filter(|i| i.ip_mode.unwrap_or_default() == IpMode::Vip)
            .filter_map(|i| i.ip)
            .filter(|ip| Family::of(*ip) == family)
            .collect()
    }

    /// Its own addresses of one family: the cluster IP, external IPs, and those of a load balancer
    /// whose packets arrive unchanged.
    #[must_use]
    pub fn addresses(&self, family: Family) -> Vec<IpAddr> {
        self.cluster_ip(family)
            .into_iter()
            .chain(self.external_ips(family))
            .chain(self.load_balancer_vips(family))
            .collect()
    }
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name, namespace, labels.
    pub metadata: Meta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Ports of all endpoints of the slice.
    #[serde(default)]
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// `namespace/name` of the Service that the slice's label names, if it has one.
    #[must_use]
    pub fn service_key(&self) -> Option<String> {
        let name = self.metadata.labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty())?;
        Some(key(&Meta { name: name.clone(), ..self.metadata.clone() }))
    }
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name; must equal the Service port's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Transport protocol; must equal the Service port's.
    #[serde(default)]
    pub protocol: Protocol,
    /// Number on the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Addresses; proxies use the first.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// First label of its own name under its Service's, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Node on which the endpoint runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Zone of that node; not read by proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Conditions.
    #[serde(default)]
    pub conditions: Conditions,
    /// Topology hints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<Hints>,
}

/// Conditions of an endpoint; absent means ready, serving, not terminating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// Takes new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Passes its readiness check, whether terminating or not. KEP-1672.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// Is being deleted. KEP-1672.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

impl Conditions {
    /// `ready`, true when absent.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self.ready.unwrap_or(true)
    }

    /// `serving`, true when absent.
    #[must_use]
    pub fn is_serving(self) -> bool {
        self.serving.unwrap_or(true)
    }

    /// `terminating`, false when absent.
    #[must_use]
    pub fn is_terminating(self) -> bool {
        self.terminating.unwrap_or(false)
    }
}

/// Topology hints of an endpoint. KEP-2433, KEP-3015.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hints {
    /// Zones whose clients should use the endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<HintFor>,
    /// Nodes whose clients should use the endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<HintFor>,
}

/// One zone or node of a hint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HintFor {
    /// Its name.
    pub name: String,
}

fn key(meta: &Meta) -> String {
    let namespace = if meta.namespace.is_empty() { "default" } else { &meta.namespace };
    format!("{namespace}/{}", meta.name)
}
