//! The address plan: which address is whose.
//!
//! | what | IPv4 | IPv6 |
//! | --- | --- | --- |
//! | node i on its link | `172.18.i.2` | `fd00:172:18:i::2` |
//! | its further address k | `172.18.i.(100+k)` | `fd00:172:18:i::(100+k)` |
//! | fabric on that link | `172.18.i.1` | `fd00:172:18:i::1` |
//! | a neighbour of the nodes, as a node's number 254 | `172.18.254.2` | `fd00:172:18:254::2` |
//! | pods of node i | `10.244.i.0/24` | `fd00:10:244:i::/64` |
//! | pod j of node i | `10.244.i.(10+j)` | `fd00:10:244:i::(10+j)` |
//! | outside client k | `198.51.100.(16k)/28` | `2001:db8:64:k::/64` |
//! | its address number i | `198.51.100.(16k+i)` | `2001:db8:64:k::i` |
//! | fabric on that link | `198.51.100.(16k+14)` | `2001:db8:64:k::ffff` |
//! | a crowd behind outside client 1, number i | `100.64.i.0/24` | `2001:db8:65:i::/64` |
//!
//! Numbers start at 1.
//! In IPv6 addresses they are written as in decimal: pod 2 of node 12 is
//! `fd00:10:244:12::12`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The families of a network with only one of them, or with both.
    pub(crate) fn all_or(only: Option<Family>) -> &'static [Family] {
        match only {
            None => &Family::BOTH,
            Some(Family::V4) => &[Family::V4],
            Some(Family::V6) => &[Family::V6],
        }
    }

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Length of a whole address in bits.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first address.
    pub address: IpAddr,
    /// How many leading bits all addresses share.
    pub length: u8,
}

impl Prefix {
    /// The range of this length that begins at `address`.
    pub const fn new(address: IpAddr, length: u8) -> Self {
        Self { address, length }
    }

    /// The range with one address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: Family::of(address).bits() }
    }

    /// All addresses of a family.
    pub fn any(family: Family) -> Self {
        match family {
            Family::V4 => Self::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Family::V6 => Self::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let length = u32::from(self.length);
        match (self.address, address) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let shift = 32_u32.saturating_sub(length);
                let cut = |a: Ipv4Addr| a.to_bits().checked_shr(shift).unwrap_or(0);
                cut(mine) == cut(other)
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let shift = 128_u32.saturating_sub(length);
                let cut = |a: Ipv6Addr| a.to_bits().checked_shr(shift).unwrap_or(0);
                cut(mine) == cut(other)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// How many nodes a topology can have: an outside client needs an address for each.
pub const MAX_NODES: usize = 13;

/// How many outside clients a topology can have.
pub const MAX_OUTSIDE: usize = 15;

/// How many pods a node can have at a time.
pub const MAX_PODS: usize = 200;

/// How many further addresses of each family a node can have.
pub const MAX_FURTHER: u8 = 100;

/// Number in the place of a node's of the host that is a neighbour of the nodes on one segment.
pub const NEIGHBOUR: u8 = 254;

/// Gateway of every pod, IPv4; no interface has this address.
pub const POD_GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Gateway of every pod, IPv6; no interface has this address.
pub const POD_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Range of cluster IPs of a family.
pub fn cluster_ips(family: Family) -> Prefix {
    match family {
        Family::V4 => v4(10, 96, 0, 0, 16),
        Family::V6 => v6([0xfd00, 0x10, 0x96, 0], 0, 112),
    }
}

/// Range of load balancer addresses of a family.
pub fn load_balancer_ips(family: Family) -> Prefix {
    match family {
        Family::V4 => v4(198, 18, 0, 0, 16),
        Family::V6 => v6([0x2001, 0xdb8, 0x18, 0], 0, 64),
    }
}

/// Range of external IPs of a family.
pub fn external_ips(family: Family) -> Prefix {
    match family {
        Family::V4 => v4(198, 19, 0, 0, 16),
        Family::V6 => v6([0x2001, 0xdb8, 0x19, 0], 0, 64),
    }
}

/// Every range in which Services have addresses.
pub fn service_ranges() -> [Prefix; 6] {
    let [four, six] = Family::BOTH;
    [
        cluster_ips(four),
        load_balancer_ips(four),
        external_ips(four),
        cluster_ips(six),
        load_balancer_ips(six),
        external_ips(six),
    ]
}

/// Range of every pod of every node.
pub fn all_pods(family: Family) -> Prefix {
    match family {
        Family::V4 => v4(10, 244, 0, 0, 16),
        Family::V6 => v6([0xfd00, 0x10, 0x244, 0], 0, 48),
    }
}

/// Address of node `node`: its InternalIP.
pub fn node_address(family: Family, node: u8) -> IpAddr {
    match family {
        Family::V4 => v4(172, 18, node, 2, 32).address,
        Family::V6 => v6([0xfd00, 0x172, 0x18, as_written(node)], 2, 128).address,
    }
}

/// Further address `number`, from 1 to [`MAX_FURTHER`], of node `node`.
pub fn further_address(family: Family, node: u8, number: u8) -> IpAddr {
    let last = number.saturating_add(100);
    match family {
        Family::V4 => v4(172, 18, node, last, 32).address,
        Family::V6 => v6([0xfd00, 0x172, 0x18, as_written(node)], as_written(last), 128).address,
    }
}

/// Range of all nodes' addresses.
pub fn all_nodes(family: Family) -> Prefix {
    match family {
        Family::V4 => v4(172, 18, 0, 0, 16),
        Family::V6 => v6([0xfd00, 0x172, 0x18, 0], 0, 48),
    }
}

/// Address of the fabric on the link of node `node`.
pub fn node_gateway(family: Family, node: u8) -> IpAddr {
    match family {
        Family::V4 => v4(172, 18, node, 1, 32).address,
        Family::V6 => v6([0xfd00, 0x172, 0x18, as_written(node)], 1, 128).address,
    }
}

/// Length of the range of a node's link.
pub fn node_link_length(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// Pod CIDR of node `node`.
pub fn pod_range(family: Family, node: u8) -> Prefix {
    match family {
        Family::V4 => v4(10, 244, node, 0, 24),
        Family::V6 => v6([0xfd00, 0x10, 0x244, as_written(node)], 0, 64),
    }
}

/// Address of pod `pod`, at most [`MAX_PODS`], of node `node`.
pub fn pod_address(family: Family, node: u8, pod: u8) -> IpAddr {
    let last = pod.saturating_add(10);
    match family {
        Family::V4 => v4(10, 244, node, last, 32).address,
        Family::V6 => v6([0xfd00, 0x10, 0x244, as_written(node)], as_written(last), 128).address,
    }
}

/// Gateway of every pod.
pub fn pod_gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(POD_GATEWAY_V4),
        Family::V6 => IpAddr::V6(POD_GATEWAY_V6),
    }
}

/// Range of outside client `client`.
pub fn outside_range(family: Family, client: u8) -> Prefix {
    match family {
        Family::V4 => v4(198, 51, 100, sixteenth(client), 28),
        Family::V6 => v6([0x2001, 0xdb8, 0x64, as_written(client)], 0, 64),
    }
}

/// Address of outside client `client` whose packets to Services enter through node `node`.
pub fn outside_address(family: Family, client: u8, node: u8) -> IpAddr {
    match family {
        Family::V4 => v4(198, 51, 100, sixteenth(client).saturating_add(node), 32).address,
        Family::V6 => v6([0x2001, 0xdb8, 0x64, as_written(client)], as_written(node), 128).address,
    }
}

/// Address of the fabric on the link of outside client `client`.
pub fn outside_gateway(family: Family, client: u8) -> IpAddr {
    match family {
        Family::V4 => v4(198, 51, 100, sixteenth(client).saturating_add(14), 32).address,
        Family::V6 => v6([0x2001, 0xdb8, 0x64, as_written(client)], 0xffff, 128).address,
    }
}

/// Further addresses of outside client 1 from which packets to Services enter through node `node`:
/// all of them are its own, as if many clients stood there.
pub fn crowd_range(family: Family, node: u8) -> Prefix {
    match family {
        Family::V4 => v4(100, 64, node, 0, 24),
        Family::V6 => v6([0x2001, 0xdb8, 0x65, as_written(node)], 0, 64),
    }
}

fn sixteenth(client: u8) -> u8 {
    client.saturating_mul(16)
}

/// The number whose hexadecimal digits are the decimal digits of `number`.
fn as_written(number: u8) -> u16 {
    let number = u16::from(number);
    (number / 100) << 8 | (number / 10 % 10) << 4 | (number % 10)
}

fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Prefix {
    Prefix::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length)
}

fn v6([a, b, c, d]: [u16; 4], last: u16, length: u8) -> Prefix {
    Prefix::new(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, last)), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(four: impl fmt::Display, six: impl fmt::Display, expected: &str) {
        assert_eq!(format!("{four} {six}"), expected);
    }

    #[test]
    fn addresses_are_as_planned() {
        let [f, s] = Family::BOTH;
        check(node_address(f, 2), node_address(s, 2), "172.18.2.2 fd00:172:18:2::2");
        check(
            further_address(f, 2, 1),
            further_address(s, 2, 1),
            "172.18.2.101 fd00:172:18:2::101",
        );
        check(node_gateway(f, 13), node_gateway(s, 13), "172.18.13.1 fd00:172:18:13::1");
        check(pod_range(f, 12), pod_range(s, 12), "10.244.12.0/24 fd00:10:244:12::/64");
        check(pod_address(f, 1, 1), pod_address(s, 1, 1), "10.244.1.11 fd00:10:244:1::11");
        check(pod_address(f, 1, 200), pod_address(s, 1, 200), "10.244.1.210 fd00:10:244:1::210");
        check(outside_range(f, 3), outside_range(s, 3), "198.51.100.48/28 2001:db8:64:3::/64");
        check(
            outside_address(f, 15, 13),
            outside_address(s, 15, 13),
            "198.51.100.253 2001:db8:64:15::13",
        );
        check(outside_gateway(f, 15), outside_gateway(s, 1), "198.51.100.254 2001:db8:64:1::ffff");
    }

    #[test]
    fn a_range_contains_its_addresses_only() {
        let [f, s] = Family::BOTH;
        assert!(pod_range(f, 1).contains(pod_address(f, 1, 7)));
        assert!(!pod_range(f, 1).contains(pod_address(f, 2, 7)));
        assert!(pod_range(s, 1).contains(pod_address(s, 1, 7)));
        assert!(!pod_range(s, 1).contains(pod_address(f, 1, 7)));
        assert!(all_pods(s).contains(pod_address(s, 13, 7)));
        assert!(Prefix::any(f).contains(pod_address(f, 1, 7)));
        assert!(Prefix::any(s).contains(pod_address(s, 1, 7)));
        assert!(!Prefix::host(pod_address(s, 1, 7)).contains(pod_address(s, 1, 8)));
    }

    #[test]
    fn no_two_ranges_overlap() {
        for family in Family::BOTH {
            let mut ranges: Vec<Prefix> =
                service_ranges().into_iter().filter(|range| range.family() == family).collect();
            ranges.push(all_pods(family));
            for i in 1..=MAX_NODES as u8 {
                ranges.push(Prefix::new(node_gateway(family, i), node_link_length(family)));
                ranges.push(crowd_range(family, i));
            }
            for k in 1..=MAX_OUTSIDE as u8 {
                ranges.push(outside_range(family, k));
            }
            for (number, one) in ranges.iter().enumerate() {
                for other in &ranges[number + 1..] {
                    let overlap = one.contains(other.address) || other.contains(one.address);
                    assert!(!overlap, "{one} and {other}");
                }
            }
        }
    }
}
