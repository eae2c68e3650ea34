//! Pods: namespaces with a routed link to their node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::namespace::{Changing, Isolation, Namespace, Wanted};
use crate::netlink::{Change, MAIN_TABLE, Mac};
use crate::plan::{self, Family, Prefix};
use crate::settings::Role;
use crate::topology::{Node, Offloads, check_mtu};
use crate::wiring::{UPLINK, default_route, end, way_to};

/// Which places for pods a node has given away.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Places taken, from 1.
    taken: BTreeSet<u8>,
    /// Where to look for the next free place: one used long ago is better than one used just
    /// now, of which the proxy may remember connections.
    last: u8,
    /// Addresses beside those of the places.
    extra: BTreeSet<IpAddr>,
    /// Links made so far; no link has the number of an earlier one.
    links: u32,
}

impl Slots {
    fn take(&mut self, node: &str, count: usize) -> Result<Vec<Place>, Error> {
        let wanted = self.taken.len() + count;
        if wanted > plan::MAX_PODS {
            let what = format!("pods on node {node}");
            return Err(Error::Room { what, wanted, room: plan::MAX_PODS });
        }
        let mut places = Vec::with_capacity(count);
        while places.len() < count {
            self.last = if usize::from(self.last) < plan::MAX_PODS { self.last + 1 } else { 1 };
            if self.taken.insert(self.last) {
                self.links += 1;
                places.push(Place { slot: self.last, link: 1000 + self.links });
            }
        }
        Ok(places)
    }

    fn give_back(&mut self, place: Place, extra: &BTreeSet<IpAddr>) {
        self.taken.remove(&place.slot);
        self.extra.retain(|address| !extra.contains(address));
    }
}

/// Where a pod is: its number on the node, and the index of the node's side of its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    slot: u8,
    link: u32,
}

/// A place that is given back unless a pod is made of it.
struct Claim {
    node: Arc<Node>,
    place: Place,
    extra: BTreeSet<IpAddr>,
    /// Ranges that it answers for.
    ranges: Vec<Prefix>,
}

impl Claim {
    fn address(&self, family: Family) -> IpAddr {
        plan::pod_address(family, self.node.number(), self.place.slot)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let first = self.node.families().iter().map(|family| self.address(*family));
        first.chain(self.extra.iter().copied()).collect()
    }

    /// Makes everybody forget the way to the pod.
    ///
    /// The link goes with the pod's namespace, in the kernel's own time: to delete it here would
    /// take 40 ms.
    fn begin_removal(&self) -> Result<Vec<Changing<'_>>, Error> {
        // The fabric first: it would send what the node does not know back to the node.
        let fabric_index = way_to(self.node.number(), self.node.fabric.joined);
        let ranges = self.ranges.iter().copied();
        let in_fabric = ranges.clone().map(|to| Change::DeleteRoute { to, index: fabric_index });
        let hosts = self.addresses().into_iter().map(Prefix::host).chain(ranges);
        let in_node = hosts.map(|to| Change::DeleteRoute { to, index: self.place.link });
        let fabric = self.node.fabric.namespace.begin_change(in_fabric.collect())?;
        let node = self.node.namespace().begin_change(in_node.collect())?;
        Ok(vec![fabric, node])
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.node.lock_slots().give_back(self.place, &self.extra);
    }
}

/// A pod: a namespace with an address of each family and one link, to its node.
///
/// Dropping it makes its node forget the way to it; [`Pod::remove`] also waits until that is done.
/// Sockets that were opened in it should be closed before: they keep its link, on which they can
/// go on to send.
pub struct Pod {
    namespace: Namespace,
    claim: Claim,
    removed: bool,
}

impl Pod {
    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name of its node.
    pub fn node(&self) -> &str {
        self.claim.node.name()
    }

    /// Its number on the node in the address plan, from 1.
    pub fn number(&self) -> u8 {
        self.claim.place.slot
    }

    /// Name of its link on its node; it begins with [`POD_LINK_PREFIX`].
    pub fn link(&self) -> String {
        link_name(self.claim.place)
    }

    /// Its first address of a family, the one it sends from.
    pub fn address(&self, family: Family) -> IpAddr {
        self.claim.address(family)
    }

    /// All its addresses, the first ones first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.claim.addresses()
    }

    /// Gives it one more address of its node's pod range.
    ///
    /// Those whose last number is from 211 to 254 are never given to another pod.
    ///
    /// # Errors
    ///
    /// An address of another range or of another pod, or what the kernel said.
    pub fn add_address(&mut self, address: IpAddr) -> Result<(), Error> {
        let family = Family::of(address);
        let node = Arc::clone(&self.claim.node);
        if !node.pod_range(family).contains(address) {
            return Err(Error::OutsideRange { address, node: node.name().to_owned() });
        }
        {
            let mut slots = node.lock_slots();
            let of_a_place = (1..=plan::MAX_PODS as u8)
                .any(|slot| plan::pod_address(family, node.number(), slot) == address);
            if of_a_place || !slots.extra.insert(address) {
                return Err(Error::Taken { address, node: node.name().to_owned() });
            }
        }
        self.claim.extra.insert(address);
        let near = near_address_changes(node.number(), self.claim.place, address);
        node.namespace().change(near)?;
        self.namespace
            .change(vec![Change::Address { index: UPLINK, prefix: Prefix::host(address) }])
    }

    /// Lets the pod answer for every address of a range, reachable from everywhere.
    ///
    /// The range must overlap neither the address plan nor one given to another pod.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn answer_for(&mut self, range: Prefix) -> Result<(), Error> {
        let family = range.family();
        self.claim.ranges.push(range);
        let node = &self.claim.node;
        self.namespace.change(vec![Change::LocalRoute { to: range }])?;
        let near = near_range_changes(node.number(), self.claim.place, range, self.address(family));
        node.namespace().change(near)?;
        node.fabric.namespace.change(vec![Change::Route {
            to: range,
            via: Some(node.address(family)),
            index: way_to(node.number(), node.fabric.joined),
            source: None,
            table: MAIN_TABLE,
        }])
    }

    /// Changes the MTU of its link, on both sides, in bytes.
    ///
    /// # Errors
    ///
    /// Less than IPv6 needs, or what the kernel said.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        check_mtu(mtu)?;
        self.namespace.change(vec![Change::Mtu { index: UPLINK, mtu }])?;
        let index = self.claim.place.link;
        self.claim.node.namespace().change(vec![Change::Mtu { index, mtu }])
    }

    /// Takes it off its node; when this returns, packets to its addresses go to the sink.
    ///
    /// # Errors
    ///
    /// What the kernel said; the pod is gone nevertheless.
    pub fn remove(mut self) -> Result<(), Error> {
        self.removed = true;
        self.claim.begin_removal()?.into_iter().try_for_each(Changing::finish)
    }
}

impl std::fmt::Debug for Pod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pod")
            .field("node", &self.node())
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if !self.removed && !self.claim.node.fabric.closing.load(Ordering::Relaxed) {
            // Nobody is there to be told; that the node is gone is as good as what was wanted.
            drop(self.claim.begin_removal());
        }
    }
}

/// Adds pods to nodes: all namespaces at a time, then one batch for each node and each pod.
pub(crate) fn add(wanted: &[(Arc<Node>, usize)]) -> Result<Vec<Pod>, Error> {
    let mut claims = Vec::new();
    for (node, count) in wanted {
        let places = node.lock_slots().take(node.name(), *count)?;
        claims.extend(places.into_iter().map(|place| Claim {
            node: Arc::clone(node),
            place,
            extra: BTreeSet::new(),
            ranges: Vec::new(),
        }));
    }
    let namespaces = Namespace::new_many(claims.iter().map(|claim| Wanted {
        name: format!("{}-pod{}", claim.node.name(), claim.place.slot),
        isolation: Isolation::Network,
        role: Role::Host,
        families: claim.node.families(),
    }))?;
    let pods: Vec<Pod> = namespaces
        .into_iter()
        .zip(claims)
        .map(|(namespace, claim)| Pod { namespace, claim, removed: false })
        .collect();

    let mut near: BTreeMap<u8, Near> = BTreeMap::new();
    for pod in &pods {
        let node = &pod.claim.node;
        let near = near.entry(node.number()).or_insert_with(|| Near {
            node: Arc::clone(node),
            changes: Vec::new(),
            links: Vec::new(),
        });
        near_changes(&mut near.changes, pod);
        near.links.push(pod.claim.place.link);
    }
    finish_all(near.values_mut().map(|near| {
        let changes = std::mem::take(&mut near.changes);
        near.node.namespace().begin_change(changes)
    }))?;
    finish_all(pods.iter().map(|pod| pod.namespace.begin_change(far_changes(pod))))?;
    finish_all(near.values_mut().map(|near| {
        let links = std::mem::take(&mut near.links);
        near.node.namespace().begin_carry(links)
    }))?;
    if let Some(Offloads::Off) = pods.first().map(|pod| pod.claim.node.fabric.offloads) {
        finish_all(pods.iter().map(|pod| pod.namespace.begin_no_offloads()))?;
        finish_all(near.values().map(|near| near.node.namespace().begin_no_offloads()))?;
    }
    Ok(pods)
}

/// What a node has to do for its new pods.
struct Near {
    node: Arc<Node>,
    changes: Vec<Change>,
    links: Vec<u32>,
}

/// Begins all before it waits for the first.
fn finish_all<'a>(
    changing: impl Iterator<Item = Result<Changing<'a>, Error>>,
) -> Result<(), Error> {
    let begun: Vec<_> = changing.collect::<Result<_, _>>()?;
    begun.into_iter().try_for_each(Changing::finish)
}

/// What the names of pods' links begin with, on their nodes.
pub const POD_LINK_PREFIX: &str = "pod";

fn link_name(place: Place) -> String {
    format!("{POD_LINK_PREFIX}{}", place.link)
}

/// The node's side of a pod.
fn near_changes(changes: &mut Vec<Change>, pod: &Pod) {
    let (node, place) = (pod.claim.node.number(), pod.claim.place);
    changes.push(Change::Veth {
        near: end(link_name(place), place.link, near_mac(node, place)),
        far: end("eth0", UPLINK, pod_mac(node, place)),
        far_namespace: pod.namespace.network(),
        mtu: None,
    });
    for family in pod.claim.node.families().iter().copied() {
        // The node's own address, as of an unnumbered link: without it, masquerading towards the
        // pod would take any address that a proxy has put on the node (adjudication 0120).
        let prefix = Prefix::host(plan::node_address(family, node));
        changes.push(Change::Address { index: place.link, prefix });
        changes.extend(near_address_changes(node, place, pod.address(family)));
    }
}

fn near_address_changes(node: u8, place: Place, address: IpAddr) -> Vec<Change> {
    vec![
        Change::Neighbour { index: place.link, address, mac: pod_mac(node, place) },
        Change::Route {
            to: Prefix::host(address),
            via: None,
            index: place.link,
            source: Some(plan::node_address(Family::of(address), node)),
            table: MAIN_TABLE,
        },
    ]
}

fn near_range_changes(node: u8, place: Place, range: Prefix, via: IpAddr) -> Vec<Change> {
    vec![Change::Route {
        to: range,
        via: Some(via),
        index: place.link,
        source: Some(plan::node_address(range.family(), node)),
        table: MAIN_TABLE,
    }]
}

fn far_changes(pod: &Pod) -> Vec<Change> {
    let mac = near_mac(pod.claim.node.number(), pod.claim.place);
    let mut changes = vec![Change::Up { index: UPLINK }];
    for family in pod.claim.node.families().iter().copied() {
        let address = pod.address(family);
        let gateway = plan::pod_gateway(family);
        changes.push(Change::Address { index: UPLINK, prefix: Prefix::host(address) });
        changes.push(Change::Neighbour { index: UPLINK, address: gateway, mac });
        changes.push(default_route(family, gateway, Some(address)));
    }
    changes
}

fn pod_mac(node: u8, place: Place) -> Mac {
    let [_, a, b, c] = place.link.to_be_bytes();
    [0x02, 0x50 | 0x80, node, a, b, c]
}

fn near_mac(node: u8, place: Place) -> Mac {
    let [_, a, b, c] = place.link.to_be_bytes();
    [0x02, 0x50, node, a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_as_late_as_possible() {
        let mut slots = Slots::default();
        let first = slots.take("n1", 2).expect("room");
        assert_eq!(first[1], Place { slot: 2, link: 1002 });
        slots.give_back(first[0], &BTreeSet::new());
        let next = slots.take("n1", 199).expect("room");
        assert_eq!(next[0], Place { slot: 3, link: 1003 });
        assert_eq!(next[198], Place { slot: 1, link: 1201 });
    }

    #[test]
    fn a_full_node_says_so() {
        let mut slots = Slots::default();
        slots.take("n1", 150).expect("room");
        let error = slots.take("n1", 51).expect_err("no room");
        assert_eq!(error.to_string(), "no room for 201 pods on node n1, the address plan has 200");
    }
}
