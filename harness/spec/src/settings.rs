//! What a case asks of the proxies' configuration and of the network around them.
//!
//! Cases that ask for different settings never share a cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a case wants the proxies of its cluster configured. What it leaves out is the proxy's own
/// default, except that every cluster names its pod ranges to the proxy.
///
/// The words are those of `KubeProxyConfiguration`; a subject says in its file how they are set,
/// by declaring the feature that belongs to each.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyWish {
    /// Which node addresses accept node ports: ranges, or the word `primary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port_addresses: Option<Vec<String>>,
    /// How the proxy tells pods from other clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_local: Option<DetectLocal>,
    /// Whether all traffic to cluster IPs is masqueraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masquerade_all: Option<bool>,
    /// Whether node ports answer on loopback addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub localhost_node_ports: Option<bool>,
    /// Longest time between two syncs, such as `5s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_period: Option<String>,
    /// Shortest time between two syncs, such as `100ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_sync_period: Option<String>,
    /// How virtual servers of the kernel choose, such as `lc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// Whether nodes keep the addresses of Services to themselves on their links.
    #[serde(rename = "strictARP", skip_serializing_if = "Option::is_none")]
    pub strict_arp: Option<bool>,
    /// After how long the kernel forgets a silent UDP flow of a virtual server, such as `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_timeout: Option<String>,
    /// The same for a silent TCP connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_timeout: Option<String>,
    /// The same for a TCP connection that one side has closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_fin_timeout: Option<String>,
    /// Addresses at which virtual servers of others are left alone: ranges, or the word
    /// `$externalIPs` for all that Services may have as external IPs.
    #[serde(rename = "excludeCIDRs", skip_serializing_if = "Option::is_none")]
    pub exclude_cidrs: Option<Vec<String>>,
}

/// How a proxy tells pods of its node from other clients (`detectLocalMode`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum DetectLocal {
    /// By the ranges of all pods.
    #[serde(rename = "ClusterCIDR")]
    ClusterCidr,
    /// By the pod ranges of the own Node object.
    #[serde(rename = "NodeCIDR")]
    NodeCidr,
    /// By the bridge through which packets arrive.
    BridgeInterface,
    /// By the beginning of the name of the link through which packets arrive.
    InterfaceNamePrefix,
    /// Not at all.
    None,
}

/// What the network around the proxies is like. What a case leaves out is as in the plain lab.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetworkWish {
    /// The only family that nodes and pods have; both when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<crate::Family>,
    /// Whether packets of pods to nodes get the address of the pod's node, as many CNI plug-ins
    /// do; kept when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_to_nodes: Option<PodsToNodes>,
    /// How nodes are joined; routed when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_joined: Option<NodesJoined>,
    /// Addresses that each node has besides its InternalIP, per family; none when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more_node_addresses: Option<u8>,
    /// MTU of the links between nodes, in bytes; 1500 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether segmentation and checksums are left to the links; true when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offloads: Option<bool>,
    /// How load balancers bring packets to nodes; statically when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancers: Option<LoadBalancers>,
    /// What others have in the nodes' firewall; nothing when left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub firewall: Vec<Firewall>,
    /// Which kernel interface `iptables` uses on the nodes; the machine's own when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables: Option<IptablesBackend>,
}

/// What becomes of the source of packets from pods to nodes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PodsToNodes {
    /// It stays the pod's.
    Kept,
    /// It becomes the address of the pod's node.
    Masqueraded,
}

/// How nodes are joined.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NodesJoined {
    /// Each by a link of its own to a router.
    Routed,
    /// By one segment, on which they ask for each other's link addresses.
    OneSegment,
}

/// How a load balancer brings packets to nodes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalancers {
    /// With its address as destination, by the node that a flow names.
    Static,
    /// With its address as destination, by a node whose health-check node port answers 200.
    HealthChecked,
    /// To the node port, under an address of its own.
    NodePort,
}

/// What others have in the nodes' firewall.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Firewall {
    /// Forwarding is dropped unless somebody accepts it, by iptables' FORWARD policy.
    ForwardDrop,
    /// Input is dropped unless it is an answer, comes by the loopback, or is for a cluster IP.
    InputDrop,
    /// A second masquerade behind the proxy's, for packets that leave the cluster's pod ranges.
    SecondPostrouting,
    /// A stand-in for a NetworkPolicy: packets forwarded to pods must have a pod's source and a
    /// pod's destination and port, else they are dropped.
    Policy,
}

/// Which kernel interface `iptables` uses.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum IptablesBackend {
    /// The old tables.
    Legacy,
    /// nf_tables.
    Nft,
}
