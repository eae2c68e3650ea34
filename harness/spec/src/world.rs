//! The complete API state and placement at one moment, as the oracle sees it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::api::{EndpointSlice, SERVICE_NAME_LABEL, Service};
use crate::{Change, ClientFacts, Deployed, Family, NetworkWish, ProxySettings};

/// Complete API state and placement at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct World {
    /// Nodes, in a fixed order.
    pub nodes: Vec<Node>,
    /// Services.
    pub services: Vec<Service>,
    /// EndpointSlices.
    pub slices: Vec<EndpointSlice>,
    /// How the proxies are configured.
    pub proxy: ProxySettings,
    /// What the network around them is like.
    #[serde(default)]
    pub network: NetworkWish,
    /// Outside clients, whose addresses a load balancer chooses among when it chooses a node.
    #[serde(default)]
    pub outside: Vec<ClientFacts>,
    /// The load balancer that has addresses of its own, where there is one.
    #[serde(default)]
    pub balancer: Option<ClientFacts>,
    /// Whether nobody can tell what no node took from what a node dropped.
    #[serde(default)]
    pub unhandled_is_silent: bool,
    /// Whether nodes limit how many refusals they send, so that of many few arrive.
    #[serde(default)]
    pub refusals_are_few: bool,
}

impl World {
    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Makes one change. What is done to proxies changes no world.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::ApplyService(service) => {
                match self.services.iter_mut().find(|old| old.key() == service.key()) {
                    Some(old) => *old = service.clone(),
                    None => self.services.push(service.clone()),
                }
            }
            Change::DeleteService { namespace, name } => self
                .services
                .retain(|s| s.metadata.namespace != *namespace || s.metadata.name != *name),
            Change::ApplySlice(slice) | Change::ApplyRawSlice(slice) => {
                let same = |old: &EndpointSlice| {
                    old.metadata.namespace == slice.metadata.namespace
                        && old.metadata.name == slice.metadata.name
                };
                match self.slices.iter_mut().find(|old| same(old)) {
                    Some(old) => *old = slice.clone(),
                    None => self.slices.push(slice.clone()),
                }
            }
            Change::Deploy(Deployed { namespace, service, slices, labels: _, pods: _ }) => {
                self.slices.retain(|slice| {
                    slice.metadata.namespace != *namespace
                        || slice.metadata.labels.get(SERVICE_NAME_LABEL) != Some(service)
                });
                self.slices.extend(slices.iter().cloned());
            }
            Change::DeleteSlice { namespace, name } => self
                .slices
                .retain(|s| s.metadata.namespace != *namespace || s.metadata.name != *name),
            Change::SetNode { node, says } => {
                if let Some(node) = self.nodes.iter_mut().find(|n| n.name == *node) {
                    node.zone.clone_from(&says.zone);
                }
            }
            Change::Proxy { .. }
            | Change::ProxyRefuses { .. }
            | Change::VirtualServer { .. }
            | Change::ReloadFirewall { .. } => {}
        }
    }

    /// The node that owns an address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| node.addresses.contains(&address))
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    /// Name, equal to `nodeName` in slices.
    pub name: String,
    /// Zone label, if the node has one.
    pub zone: Option<String>,
    /// Every address of the node; the first of each family is its InternalIP.
    pub addresses: Vec<IpAddr>,
}

impl Node {
    /// The InternalIP of a family.
    #[must_use]
    pub fn internal_ip(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::of(*ip) == family)
    }
}
