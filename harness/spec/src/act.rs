//! What a runner asks of a cluster: pods, servers, changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::api::{EndpointSlice, Service};
use crate::{NodeFacts, Protocol, ProxyWish};

/// A pod that a case wants for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodWish {
    /// What the case calls it: `web/a`.
    pub key: String,
    /// Node on which it must stand.
    pub node: String,
    /// Number of addresses per family.
    pub addresses: usize,
    /// Whether a controller of the cluster runs it when a change says so. Until then its addresses
    /// are only reserved.
    pub deployed: bool,
}

/// The pods of one Service that the cluster's own controllers run and list as its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// Namespace.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Labels of the pods.
    pub labels: BTreeMap<String, String>,
    /// The pods that shall run, by the provider's name for the place, each with whether it is
    /// ready. Of the pods of one node all go or none.
    pub pods: BTreeMap<String, bool>,
    /// What the slices of the Service say once its controllers are done.
    pub slices: Vec<EndpointSlice>,
}

/// One change of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "changes are few and short-lived")]
pub enum Change {
    /// Create or replace a Service, status included.
    ApplyService(Service),
    /// Delete a Service.
    DeleteService {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Create or replace an EndpointSlice.
    ApplySlice(EndpointSlice),
    /// The same as it is, past the API server's defaulting and validation.
    ApplyRawSlice(EndpointSlice),
    /// Have controllers run pods and list them as endpoints of a Service.
    Deploy(Deployed),
    /// Delete an EndpointSlice.
    DeleteSlice {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Have a Node object say something else of its node.
    SetNode {
        /// Node.
        node: String,
        /// All that can be changed of what it says.
        says: NodeSays,
    },
    /// Do something to the proxy of a node.
    Proxy {
        /// Node.
        node: String,
        /// What.
        action: ProxyAction,
    },
    /// The proxy of a node is stopped and started with other settings, with which it must end by
    /// itself; then it is started again with its own.
    ProxyRefuses {
        /// Node.
        node: String,
        /// The other settings; whatever else it was told stays away.
        wish: Box<ProxyWish>,
    },
    /// Somebody else makes or removes a virtual server in the kernel of a node.
    VirtualServer {
        /// Node.
        node: String,
        /// Address and port.
        at: SocketAddr,
        /// Transport protocol.
        protocol: Protocol,
        /// What.
        action: VirtualServerAction,
    },
    /// Whoever owns the other rules of a node's firewall takes them away and loads them again.
    ReloadFirewall {
        /// Node.
        node: String,
    },
}

/// What can be done to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyAction {
    /// Stop it and start it again at once.
    Restart,
    /// Stop it; its rules stay.
    Stop,
    /// Start it again.
    Start,
}

impl Change {
    /// What gives a node the zone of these facts.
    #[must_use]
    pub fn zone_of(node: &NodeFacts) -> Change {
        Change::SetNode { node: node.name.clone(), says: NodeSays::zone(node.zone.clone()) }
    }
}

/// What a Node object says of its node, as far as cases change it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeSays {
    /// Zone; none removes the label.
    pub zone: Option<String>,
    /// Other labels; none removes one.
    pub labels: BTreeMap<String, Option<String>>,
    /// Whether it is cordoned (`spec.unschedulable`).
    pub unschedulable: bool,
    /// Keys of its taints, which keep new pods away (effect `NoSchedule`).
    pub taints: Vec<String>,
    /// Whether its condition `Ready` is false.
    pub unready: bool,
}

impl NodeSays {
    /// Of a node of which nothing is to be said but its zone.
    #[must_use]
    pub fn zone(zone: Option<String>) -> NodeSays {
        NodeSays { zone, ..NodeSays::default() }
    }
}

/// What somebody else than the proxy can do about a virtual server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VirtualServerAction {
    /// Make it, without real servers.
    Add,
    /// Remove it with its real servers.
    Remove,
}

/// An identity server that must listen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerWish {
    /// Where: a pod, node or outside client as the provider names it.
    pub place: String,
    /// Address; for UDP a concrete one.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}
