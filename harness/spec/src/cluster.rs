//! What a case asks of a cluster, and what a cluster says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ApiService, DnsFacts, Family, NetworkWish, Page, ProxySettings, ProxyWish};

/// What a case asks of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ClusterShape {
    /// Zone of each node, in order; nodes are named n1, n2, ….
    pub zones: Vec<Option<String>>,
    /// Number of outside clients, named outside, outside2, ….
    pub outside: usize,
    /// How the proxies are configured.
    #[serde(default)]
    pub proxy: ProxyWish,
    /// What the network around them is like.
    #[serde(default)]
    pub network: NetworkWish,
    /// Whether the cluster has a name server.
    #[serde(default)]
    pub dns: bool,
}

impl Default for ClusterShape {
    /// Three nodes in two zones (z1, z1, z2) and two outside clients.
    fn default() -> Self {
        let zone = |name: &str| Some(name.to_owned());
        ClusterShape {
            zones: vec![zone("z1"), zone("z1"), zone("z2")],
            outside: 2,
            proxy: ProxyWish::default(),
            network: NetworkWish::default(),
            dns: false,
        }
    }
}

impl ClusterShape {
    /// Whether a case of this shape can run on a cluster of another by using its first nodes and
    /// outside clients only.
    #[must_use]
    pub fn fits_into(&self, other: &ClusterShape) -> bool {
        other.zones.starts_with(&self.zones)
            && self.outside <= other.outside
            && self.proxy == other.proxy
            && self.network == other.network
            && self.dns == other.dns
    }

    /// Whether it asks for no settings of proxies or network.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.proxy == ProxyWish::default() && self.network == NetworkWish::default()
    }

    /// Names of the nodes, in order.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.zones.len()).map(|i| format!("n{i}")).collect()
    }

    /// Names of the outside clients, in order.
    #[must_use]
    pub fn outside_names(&self) -> Vec<String> {
        (1..=self.outside)
            .map(|k| if k == 1 { "outside".to_owned() } else { format!("outside{k}") })
            .collect()
    }
}

/// TCP port on which every client pod answers as an identity server: for canaries, markers and
/// controls.
pub const CLIENT_PORT: u16 = 7007;

/// What a running cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// Nodes.
    pub nodes: Vec<NodeFacts>,
    /// Outside clients.
    pub outside: Vec<ClientFacts>,
    /// How the proxies are configured.
    pub proxy: ProxySettings,
    /// Ranges that hold every pod, one per family.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges from which cluster IPs are taken, one per family.
    pub service_cidrs: Vec<IpNet>,
    /// Ranges of load-balancer addresses that the provider carries, one per family.
    pub load_balancer_cidrs: Vec<IpNet>,
    /// Ranges of external IPs that the provider carries, one per family.
    pub external_ip_cidrs: Vec<IpNet>,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Its name server, if it has one.
    pub dns: Option<DnsFacts>,
    /// How programs find its API servers, where that is known.
    #[serde(default)]
    pub api: Option<ApiService>,
    /// What the network around the proxies is like.
    #[serde(default)]
    pub network: NetworkWish,
    /// The load balancer that has addresses of its own, where there is one.
    #[serde(default)]
    pub balancer: Option<ClientFacts>,
    /// A host on the nodes' own segment, where one joins them: it asks who has a Service's address.
    #[serde(default)]
    pub neighbour: Option<ClientFacts>,
    /// What the proxies call the way in which they forward, where they have a name for it.
    #[serde(default)]
    pub mode: Option<String>,
    /// How the names of the namespaces of its cases begin.
    #[serde(default)]
    pub namespaces: String,
    /// Whether nobody can tell what no node took from what a node dropped.
    #[serde(default)]
    pub unhandled_is_silent: bool,
    /// Whether nodes limit how many refusals they send, so that of many few arrive.
    #[serde(default)]
    pub refusals_are_few: bool,
}

/// What helps where [`ClusterFacts::refusals_are_few`].
pub const FEW_REFUSALS: &str = "their kernels limit ICMP errors, which is no proxy's doing; `sysctl -w \
    net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0` on each node lifts the limit";

/// What one variant of a case asks of whoever supplies its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CaseAsks {
    /// Nodes, outside clients and settings.
    pub shape: ClusterShape,
    /// Families of its flows.
    pub families: Vec<Family>,
    /// Clients outside of the cluster without which it makes no sense: it names them.
    pub outside: usize,
    /// Pods of its own that it wants on one node at most.
    pub pods_per_node: usize,
    /// What it needs a lab for, by the names that cases use in `needs: lab`.
    pub lab: BTreeSet<String>,
    /// Whether the zones of its nodes make a difference.
    pub zones: bool,
    /// Whether a Service of it claims an address that others rely on: of a node, or of the name
    /// server.
    pub shadows: bool,
    /// Whether the cluster's own controllers must run its pods and write its slices.
    pub controllers: bool,
    /// What of its slices no real cluster keeps as the case writes it; none where all are kept.
    pub refused: Option<String>,
}

impl ClusterFacts {
    /// The facts as a case of that shape sees them: its nodes and outside clients only.
    #[must_use]
    pub fn seen_by(&self, shape: &ClusterShape) -> ClusterFacts {
        let mut facts = self.clone();
        facts.nodes.truncate(shape.zones.len());
        facts.outside.truncate(shape.outside);
        facts
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Zone label.
    pub zone: Option<String>,
    /// Every address; the first of each family is its InternalIP.
    pub addresses: Vec<IpAddr>,
    /// The pod ranges of its Node object, one per family.
    pub pod_cidrs: Vec<IpNet>,
    /// The client pod that stands on it for all cases.
    pub client: PodFacts,
    /// Where its proxy serves pages about itself, as the node itself reaches them.
    #[serde(default)]
    pub pages: BTreeMap<Page, String>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PodFacts {
    /// The provider's name for the place.
    pub place: String,
    /// Node it stands on.
    pub node: String,
    /// Its addresses, one per family, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

impl PodFacts {
    /// The pod's address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::of(*ip) == family)
    }
}

/// An outside client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClientFacts {
    /// Name: outside, outside2, ….
    pub name: String,
    /// For each node in order, the addresses (one per family) from which packets enter by it.
    pub addresses: Vec<Vec<IpAddr>>,
    /// Ranges that hold its addresses, one per family.
    pub cidrs: Vec<IpNet>,
    /// For each node in order, ranges (one per family) of which it has every address too, and from
    /// which packets enter by that node: a crowd of clients. None where it is one client only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crowds: Vec<Vec<IpNet>>,
}

impl ClientFacts {
    /// The address from which packets to Service addresses enter by the node at `index`.
    #[must_use]
    pub fn address(&self, index: usize, family: Family) -> Option<IpAddr> {
        self.addresses.get(index)?.iter().copied().find(|ip| Family::of(*ip) == family)
    }

    /// Client `number`, from 1, of the crowd that enters by the node at `index`.
    #[must_use]
    pub fn one_of_crowd(&self, index: usize, family: Family, number: u8) -> Option<IpAddr> {
        let mut ranges = self.crowds.get(index)?.iter();
        let range = ranges.find(|range| Family::of(range.addr()) == family)?;
        Some(match range.network() {
            IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::from(number)).into()),
            IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(number)).into()),
        })
    }
}
