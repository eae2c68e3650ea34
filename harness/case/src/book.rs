//! The cluster that a variant is compiled for, and the addresses that are handed out in it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use touchstone_spec::{ClusterFacts, Family, NodeFacts, Page, PodFacts};

use crate::Variant;

/// First address handed out of a Service range: the low ones belong to the cluster itself.
const FIRST_CLUSTER_IP: u128 = 16;
/// Number of the first planned pod of a node that belongs to a case.
const FIRST_POD: u16 = 11;
/// Ports of endpoints that are no pods: beside node ports and ephemeral ports.
const HOST_PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Why the book has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// A range is used up.
    #[error("the cluster has no {what} left")]
    Exhausted {
        /// Cluster IP, node port, ….
        what: &'static str,
    },
    /// The cluster has no range of that family.
    #[error("the cluster has no range of {family} {what}s")]
    NoRange {
        /// Cluster IP, ….
        what: &'static str,
        /// Family.
        family: Family,
    },
    /// A proxy has no such page.
    #[error("the proxy of {node} serves no {page} page that its subject names")]
    NoPage {
        /// Node.
        node: String,
        /// Page.
        page: Page,
    },
    /// The address of a page cannot be read.
    #[error("the {page} page of {node} has the address `{url}`; write http://IP:PORT/PATH")]
    PageAddress {
        /// Node.
        node: String,
        /// Page.
        page: Page,
        /// Address.
        url: String,
    },
    /// Nobody made the pod.
    #[error("the book has no pod for endpoint {key}")]
    NoPod {
        /// `web/a`.
        key: String,
    },
    /// A place lacks an address.
    #[error("{place} has no {family} address")]
    NoAddress {
        /// Pod, node or client.
        place: String,
        /// Family.
        family: Family,
    },
}

/// Hands out addresses and ports of one cluster; clones share what was handed out.
///
/// Invariant: what one book has, no other one has. Cluster IPs and ports return with
/// [`Book::release`], and then wait until all others have had their turn; all other addresses are
/// handed out once in a run.
#[derive(Debug, Clone)]
pub struct Allocator(Arc<Mutex<Pools>>);

#[derive(Debug)]
struct Pools {
    cluster_ips: AddressPool,
    load_balancer_ips: AddressPool,
    external_ips: AddressPool,
    node_ports: VecDeque<u16>,
    host_ports: VecDeque<u16>,
    books: u32,
}

#[derive(Debug)]
struct AddressPool {
    what: &'static str,
    ranges: BTreeMap<Family, (IpNet, u128)>,
    /// Addresses that nobody has any more, the longest unused first.
    returned: BTreeMap<Family, VecDeque<IpAddr>>,
}

impl AddressPool {
    fn new(what: &'static str, ranges: &[IpNet], first: u128) -> AddressPool {
        let ranges =
            ranges.iter().rev().map(|net| (Family::of(net.addr()), (*net, first))).collect();
        AddressPool { what, ranges, returned: BTreeMap::new() }
    }

    fn take(&mut self, family: Family) -> Result<IpAddr, BookError> {
        let what = self.what;
        let Some((net, next)) = self.ranges.get_mut(&family) else {
            return Err(BookError::NoRange { what, family });
        };
        if let Some(address) = nth(net, *next) {
            *next += 1;
            return Ok(address);
        }
        let returned = self.returned.get_mut(&family).and_then(VecDeque::pop_front);
        returned.ok_or(BookError::Exhausted { what })
    }

    fn give_back(&mut self, address: IpAddr) {
        self.returned.entry(Family::of(address)).or_default().push_back(address);
    }
}

fn nth(net: &IpNet, n: u128) -> Option<IpAddr> {
    let address = match net.network() {
        IpAddr::V4(base) => {
            IpAddr::V4(Ipv4Addr::from(u32::from(base).checked_add(u32::try_from(n).ok()?)?))
        }
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).checked_add(n)?)),
    };
    (net.contains(&address) && address != net.broadcast()).then_some(address)
}

impl Allocator {
    /// An allocator for a cluster.
    #[must_use]
    pub fn new(facts: &ClusterFacts) -> Allocator {
        Allocator(Arc::new(Mutex::new(Pools {
            cluster_ips: AddressPool::new("cluster IP", &facts.service_cidrs, FIRST_CLUSTER_IP),
            load_balancer_ips: AddressPool::new(
                "load-balancer address",
                &facts.load_balancer_cidrs,
                1,
            ),
            external_ips: AddressPool::new("external IP", &facts.external_ip_cidrs, 1),
            node_ports: (facts.node_ports.0..=facts.node_ports.1).collect(),
            host_ports: HOST_PORTS.collect(),
            books: 0,
        })))
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        // The pools are consistent between any two statements, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the names of the namespaces of a case's variants end.
#[must_use]
pub fn namespace_end(case: &str) -> String {
    format!("-{}", case.replace('/', "-"))
}

/// A cluster's facts, the pods made for one variant, and what was allocated for it.
#[derive(Debug)]
pub struct Book {
    /// The cluster.
    pub facts: ClusterFacts,
    /// Pods by endpoint: `web/a`.
    pub pods: BTreeMap<String, PodFacts>,
    allocator: Allocator,
    number: u32,
    services: BTreeMap<String, Holdings>,
    unallocated: BTreeMap<Family, IpAddr>,
    host_ports: BTreeMap<(String, String), u16>,
}

/// What one Service was given; it keeps all of it, even while it is deleted.
#[derive(Debug, Default)]
struct Holdings {
    cluster_ips: BTreeMap<Family, IpAddr>,
    external_ips: BTreeMap<(usize, Family), IpAddr>,
    load_balancer_ips: BTreeMap<(usize, Family), IpAddr>,
    node_ports: BTreeMap<String, u16>,
    health_check_node_port: Option<u16>,
}

impl Book {
    /// A book for one variant.
    #[must_use]
    pub fn new(
        facts: ClusterFacts,
        pods: BTreeMap<String, PodFacts>,
        allocator: &Allocator,
    ) -> Book {
        let number = {
            let mut pools = allocator.pools();
            pools.books += 1;
            pools.books
        };
        Book {
            facts,
            pods,
            allocator: allocator.clone(),
            number,
            services: BTreeMap::new(),
            unallocated: BTreeMap::new(),
            host_ports: BTreeMap::new(),
        }
    }

    /// Gives cluster IPs and ports back. To be called when nothing of the variant is left in the cluster.
    pub fn release(self) {
        let mut pools = self.allocator.pools();
        pools.host_ports.extend(self.host_ports.values());
        for address in self.unallocated.values() {
            pools.cluster_ips.give_back(*address);
        }
        for holdings in self.services.values() {
            for address in holdings.cluster_ips.values() {
                pools.cluster_ips.give_back(*address);
            }
            pools.node_ports.extend(holdings.node_ports.values());
            pools.node_ports.extend(holdings.health_check_node_port);
        }
    }

    /// The namespace of a variant: unique in a run, a valid DNS label.
    pub(crate) fn namespace(&self, variant: &Variant) -> String {
        let end = namespace_end(variant.case().id().as_str());
        let begin = &self.facts.namespaces;
        let name: String = format!("{begin}t{}{end}", self.number).chars().take(63).collect();
        name.trim_end_matches('-').to_owned()
    }

    pub(crate) fn node(&self, name: &str) -> Option<(usize, &NodeFacts)> {
        self.facts.nodes.iter().enumerate().find(|(_, node)| node.name == name)
    }

    pub(crate) fn node_address(&self, name: &str, family: Family) -> Result<IpAddr, BookError> {
        self.nth_node_address(name, family, 0)
    }

    /// A node's InternalIP of a family, number 0, or one of its further addresses.
    pub(crate) fn nth_node_address(
        &self,
        name: &str,
        family: Family,
        number: usize,
    ) -> Result<IpAddr, BookError> {
        let place = match number {
            0 => name.to_owned(),
            _ => format!("{name}[{number}]"),
        };
        self.node(name)
            .and_then(|(_, node)| {
                node.addresses.iter().copied().filter(|ip| Family::of(*ip) == family).nth(number)
            })
            .ok_or(BookError::NoAddress { place, family })
    }

    /// The first address of an outside client in a family.
    pub(crate) fn outside_address(&self, name: &str, family: Family) -> Result<IpAddr, BookError> {
        let client = self.facts.outside.iter().find(|client| client.name == name);
        client
            .and_then(|client| client.address(0, family))
            .ok_or_else(|| BookError::NoAddress { place: name.to_owned(), family })
    }

    pub(crate) fn pod(&self, key: &str) -> Result<&PodFacts, BookError> {
        self.pods.get(key).ok_or_else(|| BookError::NoPod { key: key.to_owned() })
    }

    pub(crate) fn pod_address(&self, key: &str, family: Family) -> Result<IpAddr, BookError> {
        let no_address = || BookError::NoAddress { place: key.to_owned(), family };
        self.pod(key)?.address(family).ok_or_else(no_address)
    }

    /// The cluster IP of a Service in a family: the same for every call.
    ///
    /// # Errors
    /// When the cluster has none left.
    pub fn cluster_ip(&mut self, service: &str, family: Family) -> Result<IpAddr, BookError> {
        let held = &mut self.services.entry(service.to_owned()).or_default().cluster_ips;
        keep(held, family, || self.allocator.pools().cluster_ips.take(family))
    }

    pub(crate) fn unallocated(&mut self, family: Family) -> Result<IpAddr, BookError> {
        keep(&mut self.unallocated, family, || self.allocator.pools().cluster_ips.take(family))
    }

    pub(crate) fn external_ip(
        &mut self,
        service: &str,
        index: usize,
        family: Family,
    ) -> Result<IpAddr, BookError> {
        let held = &mut self.services.entry(service.to_owned()).or_default().external_ips;
        keep(held, (index, family), || self.allocator.pools().external_ips.take(family))
    }

    pub(crate) fn load_balancer_ip(
        &mut self,
        service: &str,
        index: usize,
        family: Family,
    ) -> Result<IpAddr, BookError> {
        let held = &mut self.services.entry(service.to_owned()).or_default().load_balancer_ips;
        keep(held, (index, family), || self.allocator.pools().load_balancer_ips.take(family))
    }

    pub(crate) fn node_port(&mut self, service: &str, port: &str) -> Result<u16, BookError> {
        let held = &mut self.services.entry(service.to_owned()).or_default().node_ports;
        keep(held, port.to_owned(), || take_port(&self.allocator))
    }

    pub(crate) fn health_check_node_port(&mut self, service: &str) -> Result<u16, BookError> {
        let held = &mut self.services.entry(service.to_owned()).or_default().health_check_node_port;
        match held {
            Some(port) => Ok(*port),
            None => Ok(*held.insert(take_port(&self.allocator)?)),
        }
    }

    pub(crate) fn host_port(&mut self, endpoint: &str, port: &str) -> Result<u16, BookError> {
        keep(&mut self.host_ports, (endpoint.to_owned(), port.to_owned()), || {
            let port = self.allocator.pools().host_ports.pop_front();
            port.ok_or(BookError::Exhausted { what: "port for endpoints that are no pods" })
        })
    }
}

fn take_port(allocator: &Allocator) -> Result<u16, BookError> {
    allocator.pools().node_ports.pop_front().ok_or(BookError::Exhausted { what: "node port" })
}

/// What is held under a key, or what is taken now and held from then on.
fn keep<K: Ord, V: Copy>(
    held: &mut BTreeMap<K, V>,
    key: K,
    take: impl FnOnce() -> Result<V, BookError>,
) -> Result<V, BookError> {
    if let Some(value) = held.get(&key) {
        return Ok(*value);
    }
    let value = take()?;
    held.insert(key, value);
    Ok(value)
}

/// A book of an imaginary cluster with the nodes and pods that a variant wants, by the address
/// plan of [`ClusterFacts::planned`]: pods follow the client pod of their node.
#[must_use]
pub fn planned_book(variant: &Variant) -> Book {
    let facts = ClusterFacts::planned(&variant.shape());
    let mut next: BTreeMap<String, u16> = BTreeMap::new();
    let pods = variant
        .pods()
        .into_iter()
        .map(|wish| {
            let index = facts.nodes.iter().position(|node| node.name == wish.node);
            let node = index.and_then(|index| u16::try_from(index + 1).ok()).unwrap_or(0);
            let number = next.entry(wish.node.clone()).or_insert(FIRST_POD);
            let pod = PodFacts::planned(&wish.node, node, *number).within(&facts.network);
            *number += 1;
            (wish.key, pod)
        })
        .collect();
    let allocator = Allocator::new(&facts);
    Book::new(facts, pods, &allocator)
}
