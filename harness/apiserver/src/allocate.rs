//! Allocation of cluster addresses and node ports.
//!
//! Allocation goes forward: what was just released is not given out again before its range
//! wraps, so that a stale rule for the old owner cannot be mistaken for one of the new.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::Value;

use crate::fields;
use crate::store::Key;

/// An address family as Services and slices write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// `IPv4` or `IPv6`.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Family> {
        [Family::V4, Family::V6].into_iter().find(|family| family.as_str() == name)
    }

    pub(crate) fn other(self) -> Family {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

/// Why an address or port asked for cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Taken,
    OutOfRange,
}

/// What a Service holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Held {
    /// Reads it from the Service; what cannot be read is not held.
    pub(crate) fn of(service: &Value) -> Held {
        let mut addresses = fields::texts(service, "spec.clusterIPs");
        addresses.push(fields::text(service, "spec.clusterIP").to_owned());
        let mut ports: Vec<i64> = fields::list(service, "spec.ports")
            .iter()
            .map(|port| fields::number(port, "nodePort"))
            .collect();
        ports.push(fields::number(service, "spec.healthCheckNodePort"));
        Held {
            addresses: addresses.iter().filter_map(|text| text.parse().ok()).collect(),
            ports: ports
                .into_iter()
                .filter_map(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0)
                .collect(),
        }
    }
}

#[derive(Debug)]
struct Range {
    cidr: IpNet,
    /// Offset of the next address to try.
    next: u128,
}

impl Range {
    fn base(&self) -> u128 {
        match self.cidr.network() {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        }
    }

    /// Offsets that may be given out: not the network's own address, not the first, which
    /// belongs to the API's own Service, and not the IPv4 broadcast address.
    fn offsets(&self) -> (u128, u128) {
        let bits = self.cidr.max_prefix_len() - self.cidr.prefix_len();
        let size = 1_u128 << bits.min(32);
        let end = if bits > 0 && self.cidr.addr().is_ipv4() { size - 1 } else { size };
        (2, end)
    }

    fn address(&self, offset: u128) -> IpAddr {
        let number = self.base() + offset;
        match self.cidr {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

/// Which Service holds which address and port, and what comes next.
#[derive(Debug)]
pub(crate) struct Allocator {
    ranges: Vec<Range>,
    ports: RangeInclusive<u16>,
    next_port: u16,
    addresses: BTreeMap<IpAddr, Key>,
    taken: BTreeMap<u16, Key>,
}

impl Allocator {
    pub(crate) fn new(cidrs: &[IpNet], ports: RangeInclusive<u16>) -> Allocator {
        Allocator {
            ranges: cidrs.iter().map(|cidr| Range { cidr: cidr.trunc(), next: 2 }).collect(),
            next_port: *ports.start(),
            ports,
            addresses: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// The families that Services can have, the default one first.
    pub(crate) fn families(&self) -> Vec<Family> {
        self.ranges.iter().map(|range| Family::of(range.cidr.addr())).collect()
    }

    pub(crate) fn port_range(&self) -> String {
        format!("{}-{}", self.ports.start(), self.ports.end())
    }

    pub(crate) fn address_range(&self, family: Family) -> Option<String> {
        let range = self.ranges.iter().find(|range| Family::of(range.cidr.addr()) == family)?;
        Some(range.cidr.to_string())
    }

    /// Whether `owner` may hold this address.
    pub(crate) fn may_hold(&self, owner: &Key, address: IpAddr) -> Result<(), Refusal> {
        if !self.ranges.iter().any(|range| range.cidr.contains(&address)) {
            return Err(Refusal::OutOfRange);
        }
        match self.addresses.get(&address) {
            Some(holder) if holder != owner => Err(Refusal::Taken),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether `owner` may hold this port.
    pub(crate) fn may_hold_port(&self, owner: &Key, port: u16) -> Result<(), Refusal> {
        if !self.ports.contains(&port) {
            return Err(Refusal::OutOfRange);
        }
        match self.taken.get(&port) {
            Some(holder) if holder != owner => Err(Refusal::Taken),
            Some(_) | None => Ok(()),
        }
    }

    /// The next free address of a family; `None` when the range is full.
    pub(crate) fn next_address(&mut self, family: Family) -> Option<IpAddr> {
        let taken = &self.addresses;
        let ranges = &mut self.ranges;
        let range = ranges.iter_mut().find(|range| Family::of(range.cidr.addr()) == family)?;
        let (first, end) = range.offsets();
        let mut offset = range.next;
        for _ in first..end {
            let here = if (first..end).contains(&offset) { offset } else { first };
            offset = here + 1;
            let address = range.address(here);
            if !taken.contains_key(&address) {
                range.next = offset;
                return Some(address);
            }
        }
        None
    }

    /// The next free node port that is not among `also`; `None` when the range is full.
    pub(crate) fn next_node_port(&mut self, also: &[u16]) -> Option<u16> {
        let mut port = self.next_port;
        for _ in self.ports.clone() {
            let here = if self.ports.contains(&port) { port } else { *self.ports.start() };
            port = here.wrapping_add(1);
            if !self.taken.contains_key(&here) && !also.contains(&here) {
                self.next_port = port;
                return Some(here);
            }
        }
        None
    }

    /// Records that `owner` gave up what it held before and holds this now.
    pub(crate) fn settle(&mut self, owner: &Key, before: &Held, now: &Held) {
        for address in &before.addresses {
            if self.addresses.get(address) == Some(owner) {
                self.addresses.remove(address);
            }
        }
        for port in &before.ports {
            if self.taken.get(port) == Some(owner) {
                self.taken.remove(port);
            }
        }
        for address in &now.addresses {
            self.addresses.entry(*address).or_insert_with(|| owner.clone());
        }
        for port in &now.ports {
            self.taken.entry(*port).or_insert_with(|| owner.clone());
        }
    }
}
