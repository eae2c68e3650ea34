//! A case file as it is written: the types that YAML is read into.
//!
//! Nothing is looked up here; names, grammar and meaning are checked when a case is compiled.

mod change;
mod listed;
mod parts;
mod shows;
mod slice;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use touchstone_spec::api::{ServiceType, SessionAffinity, SessionAffinityConfig, TrafficPolicy};
use touchstone_spec::{Family, Level, NetworkWish, Protocol, ProxyWish};

use crate::{At, Spread};

pub use change::{
    ChangeText, EndpointChange, FirewallChange, NodeChange, NodeText, ProxyChange, ServiceChange,
    SlicesChange, VirtualServerChange,
};
pub use listed::{ListedText, Listing};
pub use parts::{LoadBalancerText, Patch, Words, Yes};
pub use shows::{Grows, ShowsText};
pub use slice::{
    ConditionsText, HintText, HintsText, SliceChange, SliceEndpointText, SlicePortText, SliceText,
    SlicesBy,
};

/// A case file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// One sentence: what is true of a proxy that passes.
    pub about: At<String>,
    /// Ids of the behaviours that the case covers; at least one.
    pub covers: Vec<At<String>>,
    /// How binding the case is.
    pub level: Level,
    /// What the case needs of a cluster and of a subject.
    #[serde(default, skip_serializing_if = "is_default")]
    pub needs: NeedsText,
    /// Named sets of cases that this one belongs to, besides `all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profile: Vec<At<String>>,
    /// What the case is repeated for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub axes: AxesText,
    /// The world of the first step.
    pub world: WorldText,
    /// Points of change and what must hold after each.
    pub steps: Vec<At<StepText>>,
}

/// `needs`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeedsText {
    /// Number of nodes, in zones z1, z1, z2, z2, z3, …; 3 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<At<usize>>,
    /// Zone of each node, null for none; instead of `nodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<At<Vec<Option<String>>>>,
    /// Number of outside clients; 2 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<At<usize>>,
    /// How the proxies are configured; their own defaults when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<At<ProxyWish>>,
    /// What the network around them is like; as in the plain lab when left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: NetworkWish,
    /// Whether the cluster needs a name server.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns: bool,
    /// Features beyond those that follow from what the case uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<At<String>>,
    /// What only the lab can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lab: Vec<At<String>>,
    /// Whether the case needs a cluster of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub alone: bool,
}

/// `axes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AxesText {
    /// Address families.
    pub family: Vec<FamilyAxis>,
    /// Transport protocols of ports that name none.
    pub protocol: Vec<ProtocolAxis>,
}

impl Default for AxesText {
    fn default() -> Self {
        AxesText { family: vec![FamilyAxis::V4, FamilyAxis::V6], protocol: vec![ProtocolAxis::Tcp] }
    }
}

/// A value of the family axis.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum FamilyAxis {
    /// IPv4 Services.
    V4,
    /// IPv6 Services.
    V6,
    /// Services with both families at once.
    Dual,
}

impl FamilyAxis {
    /// The families it stands for.
    #[must_use]
    pub fn families(self) -> &'static [Family] {
        match self {
            FamilyAxis::V4 => &[Family::V4],
            FamilyAxis::V6 => &[Family::V6],
            FamilyAxis::Dual => &Family::BOTH,
        }
    }
}

impl fmt::Display for FamilyAxis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FamilyAxis::V4 => "v4",
            FamilyAxis::V6 => "v6",
            FamilyAxis::Dual => "dual",
        })
    }
}

/// A value of the protocol axis.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolAxis {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl ProtocolAxis {
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            ProtocolAxis::Tcp => Protocol::Tcp,
            ProtocolAxis::Udp => Protocol::Udp,
            ProtocolAxis::Sctp => Protocol::Sctp,
        }
    }
}

/// `world`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorldText {
    /// Services by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, At<ServiceText>>,
    /// Endpoints by Service and name. A Service without an entry has no slices at all, one with
    /// an empty entry has an empty slice.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, At<EndpointsText>>,
    /// Who writes the slices of these endpoints.
    #[serde(rename = "slicesBy", default, skip_serializing_if = "is_default")]
    pub slices_by: SlicesBy,
    /// Slices written out, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slices: BTreeMap<String, At<SliceText>>,
}

/// Endpoints of one Service by name.
pub type EndpointsText = BTreeMap<String, At<EndpointText>>;

/// A Service as authors write it: Kubernetes' own field names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceText {
    /// `ClusterIP` when left out.
    #[serde(rename = "type", skip_serializing_if = "Patch::is_keep")]
    pub service_type: Patch<ServiceType>,
    /// Ports.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub ports: Patch<Vec<PortText>>,
    /// `None` for a headless Service, `$web` for the address of the Service `web`; allocated when
    /// left out.
    #[serde(rename = "clusterIP", skip_serializing_if = "Patch::is_keep")]
    pub cluster_ip: Patch<At<String>>,
    /// `IPv4`, `IPv6`, `$other` for the family that the variant is not about; by the family axis
    /// when left out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub ip_families: Patch<Vec<At<String>>>,
    /// By the family axis when left out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub ip_family_policy: Patch<String>,
    /// A number of addresses per family to allocate, or addresses.
    #[serde(rename = "externalIPs", skip_serializing_if = "Patch::is_keep")]
    pub external_ips: Patch<At<ExternalIpsText>>,
    /// Addresses that the load balancer answers; one for type `LoadBalancer` when left out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub load_balancer: Patch<At<LoadBalancerText>>,
    /// Ranges; `$outside`, `$node.n1`, `$pod.n1` and `$pods` stand for the cluster's own.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub load_balancer_source_ranges: Patch<Vec<At<String>>>,
    /// Labels.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub labels: Patch<BTreeMap<String, String>>,
    /// Annotations.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub annotations: Patch<BTreeMap<String, String>>,
    /// Selector; read by controllers only.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub selector: Patch<BTreeMap<String, String>>,
    /// Which endpoints traffic to external addresses may use.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub external_traffic_policy: Patch<TrafficPolicy>,
    /// Which endpoints traffic to cluster IPs may use.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub internal_traffic_policy: Patch<TrafficPolicy>,
    /// Whether clients keep to an endpoint.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub session_affinity: Patch<SessionAffinity>,
    /// Settings of the affinity; the API's default of 10,800 seconds when left out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub session_affinity_config: Patch<SessionAffinityConfig>,
    /// Whether a load balancer gets node ports.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub allocate_load_balancer_node_ports: Patch<bool>,
    /// Where load balancers ask for its health, with policy `Local`; allocated when left out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub health_check_node_port: Patch<At<u16>>,
    /// Which controller serves the load balancer.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub load_balancer_class: Patch<String>,
    /// Name for `ExternalName`; `$ns` stands for the case's namespace.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub external_name: Patch<String>,
    /// Whether controllers publish unready endpoints.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub publish_not_ready_addresses: Patch<bool>,
    /// Preference that controllers turn into hints.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub traffic_distribution: Patch<String>,
}

impl ServiceText {
    /// Applies a later text over this one, field by field.
    pub(crate) fn merge(&mut self, later: &ServiceText) {
        let ServiceText {
            service_type,
            ports,
            cluster_ip,
            ip_families,
            ip_family_policy,
            external_ips,
            load_balancer,
            load_balancer_source_ranges,
            labels,
            annotations,
            selector,
            external_traffic_policy,
            internal_traffic_policy,
            session_affinity,
            session_affinity_config,
            allocate_load_balancer_node_ports,
            health_check_node_port,
            load_balancer_class,
            external_name,
            publish_not_ready_addresses,
            traffic_distribution,
        } = later;
        self.service_type.merge(service_type);
        self.ports.merge(ports);
        self.cluster_ip.merge(cluster_ip);
        self.ip_families.merge(ip_families);
        self.ip_family_policy.merge(ip_family_policy);
        self.external_ips.merge(external_ips);
        self.load_balancer.merge(load_balancer);
        self.load_balancer_source_ranges.merge(load_balancer_source_ranges);
        self.labels.merge(labels);
        self.annotations.merge(annotations);
        self.selector.merge(selector);
        self.external_traffic_policy.merge(external_traffic_policy);
        self.internal_traffic_policy.merge(internal_traffic_policy);
        self.session_affinity.merge(session_affinity);
        self.session_affinity_config.merge(session_affinity_config);
        self.allocate_load_balancer_node_ports.merge(allocate_load_balancer_node_ports);
        self.health_check_node_port.merge(health_check_node_port);
        self.load_balancer_class.merge(load_balancer_class);
        self.external_name.merge(external_name);
        self.publish_not_ready_addresses.merge(publish_not_ready_addresses);
        self.traffic_distribution.merge(traffic_distribution);
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortText {
    /// Name; may be left out for the only port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `TCP`, `UDP`, `SCTP`; the protocol axis when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Number on cluster IPs, external IPs and load-balancer addresses.
    pub port: u16,
    /// Number on endpoints; 8000 plus the index of the port when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// A number (the case then needs a cluster of its own) or `web/p` for the number of another
    /// Service's port; allocated when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<At<NodePortText>>,
    /// Application protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// `nodePort`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a port number, or SERVICE/PORTNAME for the number of that port")]
pub enum NodePortText {
    /// This number.
    Number(u16),
    /// The number of `SERVICE/PORTNAME`.
    SameAs(String),
}

/// `externalIPs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number of addresses per family, or a list of addresses")]
pub enum ExternalIpsText {
    /// So many addresses per family.
    Count(u8),
    /// These: an address, `$node.n1` or `$web` for those of another Service.
    List(Vec<String>),
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EndpointText {
    /// Node on which it runs.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub node: Patch<At<String>>,
    /// Outside client that serves, instead of a node: a server that is no part of the cluster.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub outside: Patch<At<String>>,
    /// `serving` and not `terminating` when left out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub ready: Patch<bool>,
    /// `ready` when left out, or true when that is left out too.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub serving: Patch<bool>,
    /// False when left out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub terminating: Patch<bool>,
    /// Zones in its hints.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub for_zones: Patch<Vec<String>>,
    /// Nodes in its hints.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub for_nodes: Patch<Vec<At<String>>>,
    /// Which slice of its Service holds it; one slice for all when left out, none but those of
    /// `world.slices` when null.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub slice: Patch<String>,
    /// Numbers of ports, by name, where they differ from the target ports; null for a port that
    /// the endpoint lacks.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub ports: Patch<BTreeMap<String, Option<u16>>>,
    /// Whether it runs in the node's own network.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub host_network: Patch<bool>,
    /// `nodeName` in the slice where it is not `node`; null leaves it out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub node_name: Patch<String>,
    /// Conditions that the slice leaves out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub omit: Patch<Vec<ConditionName>>,
    /// Another endpoint whose address it has: `c`, or `web2/c` of another Service.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub address: Patch<At<String>>,
    /// First label of its name under its Service's; one that the name server invents when left
    /// out.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub hostname: Patch<String>,
}

impl EndpointText {
    /// Applies a later text over this one, field by field.
    pub(crate) fn merge(&mut self, later: &EndpointText) {
        let EndpointText {
            node,
            outside,
            ready,
            serving,
            terminating,
            for_zones,
            for_nodes,
            slice,
            ports,
            host_network,
            node_name,
            omit,
            address,
            hostname,
        } = later;
        self.node.merge(node);
        self.outside.merge(outside);
        self.ready.merge(ready);
        self.serving.merge(serving);
        self.terminating.merge(terminating);
        self.for_zones.merge(for_zones);
        self.for_nodes.merge(for_nodes);
        self.slice.merge(slice);
        self.ports.merge(ports);
        self.host_network.merge(host_network);
        self.node_name.merge(node_name);
        self.omit.merge(omit);
        self.address.merge(address);
        self.hostname.merge(hostname);
    }
}

/// A condition of an endpoint.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ConditionName {
    /// `ready`.
    Ready,
    /// `serving`.
    Serving,
    /// `terminating`.
    Terminating,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepText {
    /// Changes; none in the first step, which creates the world.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub change: Vec<At<ChangeText>>,
    /// Traffic that runs through the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<At<TrafficText>>,
    /// Limit of settling; 30s when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<At<String>>,
    /// How long agreement must be kept; 300ms when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<At<String>>,
    /// Whether the model adds its flows; true when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<bool>,
    /// Whether a marker follows the changes; true when left out. A proxy that must find damage by
    /// itself is not to be woken up by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<bool>,
    /// Rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<At<RowText>>,
}

/// A row: flows and the answer they must meet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowText {
    /// Vantages.
    pub from: Words,
    /// Targets.
    #[serde(default, skip_serializing_if = "is_default")]
    pub to: Words,
    /// Questions to the name server, instead of `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<Words>,
    /// By which transports; `udp` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Words>,
    /// Exactly this is the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Words>,
    /// Bytes sent and echoed, `64kB`; over UDP more than fits into a packet is fragmented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<At<String>>,
    /// Path that is asked of a health check or a page; their usual one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<At<String>>,
    /// Exactly these endpoints answer; of sticky rows any of them, for each client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaches: Option<Words>,
    /// What the answer of a health check or a page shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shows: Option<At<ShowsText>>,
    /// What the node's table of virtual servers has for the target; false: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<At<Listing>>,
    /// Exactly these kinds of outcome are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<Words>,
    /// As whom the endpoint sees the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<At<String>>,
    /// As how many clients, each with an address of its own, `outside` connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<At<u8>>,
    /// Whether connections of one client keep to one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<bool>,
    /// That each client has the endpoint that it had at the end of the step before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keeps: bool,
    /// After which pause, `20s`, clients are chosen for anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgets: Option<At<String>>,
    /// How connections spread over the endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// The only family the row is about; in dual-stack cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Why, where it is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Traffic during a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficText {
    /// Vantages.
    pub from: Words,
    /// Targets.
    pub to: Words,
    /// `200/s`; left out with `idle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<At<String>>,
    /// Silence between two messages of a kept connection, `2s`; instead of `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<At<String>>,
    /// Attempts that may be lost; none when left out.
    #[serde(default)]
    pub budget: u32,
    /// `connection` for one connection, or UDP source port, through the whole change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeepText>,
    /// The port from which every flow of a client is sent, each to an address of its own; any free
    /// ones when left out.
    #[serde(default, rename = "sourcePort", skip_serializing_if = "Option::is_none")]
    pub source_port: Option<At<u16>>,
}

/// What traffic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeepText {
    /// One connection.
    Connection,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
