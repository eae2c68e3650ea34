//! Which part of the Service ranges a run hands cluster IPs out of: one that is nobody's.
//!
//! Cases and markers have cluster IPs of their own, so that a run knows each before the API server
//! does; they come from one part in a row. A run that needs few takes a small part, and one for
//! which no part is large enough takes the largest that there is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use touchstone_spec::Family;

use super::survey::{Found, chance};
use crate::ClusterError;

/// Addresses of the largest part that a run takes, as a power of two.
const MOST: u8 = 12;
/// The same of the smallest one in which a case has room.
const LEAST: u8 = 5;
/// Addresses of a part that no case gets: those before the first one, the canary's among them, and
/// the last one.
const NOT_FOR_CASES: usize = 17;
/// Parts of the largest size that are looked at, of ranges that have more.
const PARTS: usize = 4096;

/// What helps where Services leave no room.
const MORE_ROOM: &str = "add a range that has no Services yet, of which a run then takes a part (a \
    ServiceCIDR object, from Kubernetes 1.33 on), delete Services that nobody needs, or run on a \
    cluster that has none: `--provider kind`";

impl Found {
    /// The part of the Service ranges of each family that the `number`th cluster of a run takes:
    /// without an address in use, with room for that many cluster IPs where there is such a part,
    /// and another one for each run as far as chance can do that.
    pub(super) fn blocks(
        &self,
        families: &[Family],
        run: &str,
        number: usize,
        wanted: usize,
    ) -> Result<Vec<IpNet>, ClusterError> {
        let block = |family: &Family| {
            let parts = self.free_parts(*family);
            let at = chance(run).wrapping_add(number);
            choose(&parts, size_for(wanted), at).ok_or_else(|| self.no_room(*family))
        };
        families.iter().map(block).collect()
    }

    /// Where cases may come to want more cluster IPs than there is room for, with the remedy.
    pub(super) fn short_of_room(&self, families: &[Family], wanted: usize) -> Vec<String> {
        let short = |family: &Family| {
            let largest = self.free_parts(*family).iter().map(size).max()?;
            (largest < size_for(wanted)).then(|| {
                format!(
                    "of the Service range {} at most {} addresses in a row are free for cases, \
                     which want {wanted} one after the other: those that find none at their time are \
                     errors; run fewer side by side with --jobs, or {MORE_ROOM}",
                    self.named(*family),
                    (1_usize << largest) - NOT_FOR_CASES
                )
            })
        };
        families.iter().filter_map(short).collect()
    }

    fn ranges_of(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        self.service_cidrs.iter().filter(move |range| Family::of(range.addr()) == family)
    }

    fn named(&self, family: Family) -> String {
        self.ranges_of(family).map(ToString::to_string).collect::<Vec<_>>().join(" and ")
    }

    /// The largest parts without an address in use.
    fn free_parts(&self, family: Family) -> Vec<IpNet> {
        let mut parts = Vec::new();
        for range in self.ranges_of(family) {
            let prefix = range.prefix_len().max(range.max_prefix_len() - MOST);
            for part in range.subnets(prefix).into_iter().flatten().take(PARTS) {
                keep_free(part, &self.addresses_in_use, &mut parts);
            }
        }
        parts
    }

    fn no_room(&self, family: Family) -> ClusterError {
        let of_ranges = |ip: &&IpAddr| self.ranges_of(family).any(|range| range.contains(*ip));
        let taken: Vec<&IpAddr> = self.addresses_in_use.iter().filter(of_ranges).collect();
        let least = 1_u32 << LEAST;
        let taken = match taken.as_slice() {
            [] => format!("it is smaller than the {least} addresses that cases take at least"),
            [first, .., last] => format!(
                "{} of its addresses are in use, from {first} to {last}, with no {least} free ones \
                 in a row between them",
                taken.len()
            ),
            [only] => {
                format!("{only} is in use, with no {least} free addresses in a row beside it")
            }
        };
        ClusterError::new(
            format!("no part of the Service range {} is free", self.named(family)),
            format!("{taken}; {MORE_ROOM}"),
        )
    }
}

/// Number of the addresses of a part, as a power of two.
fn size(part: &IpNet) -> u8 {
    part.max_prefix_len() - part.prefix_len()
}

/// The size of a part in which cases have that many addresses, as far as there are such parts.
fn size_for(wanted: usize) -> u8 {
    let all = wanted.saturating_add(NOT_FOR_CASES);
    (LEAST..MOST).find(|size| all <= 1 << size).unwrap_or(MOST)
}

/// Adds the part, or those of its halves and quarters in which no address is taken.
fn keep_free(part: IpNet, taken: &BTreeSet<IpAddr>, parts: &mut Vec<IpNet>) {
    if size(&part) < LEAST {
        return;
    }
    if taken.range(part.network()..=part.broadcast()).next().is_none() {
        parts.push(part);
        return;
    }
    for half in part.subnets(part.prefix_len() + 1).into_iter().flatten() {
        keep_free(half, taken, parts);
    }
}

/// The part of that size, or else of the largest size that there is, whose turn it is.
fn choose(parts: &[IpNet], wanted: u8, at: usize) -> Option<IpNet> {
    let wanted = parts.iter().map(size).max()?.min(wanted);
    let fitting = || parts.iter().filter(|part| size(part) >= wanted);
    let within = |part: &IpNet| 1_usize << (size(part) - wanted);
    let mut left = at % fitting().map(within).sum::<usize>().max(1);
    for part in fitting() {
        if left < within(part) {
            return part.subnets(part.max_prefix_len() - wanted).ok()?.nth(left);
        }
        left -= within(part);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any part has room for.
    const MANY: usize = 1 << MOST;

    fn found(ranges: &[&str], addresses: &[String]) -> Found {
        Found {
            version: "v1.37.2".to_owned(),
            nodes: vec![],
            unfit: vec![],
            service_cidrs: ranges.iter().map(|r| r.parse().expect("a range")).collect(),
            addresses_in_use: addresses.iter().map(|ip| ip.parse().expect("an IP")).collect(),
            ports_in_use: BTreeSet::new(),
            name_server: None,
        }
    }

    fn texts(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    /// The parts that the first clusters of a run take, none of which has an address in use.
    #[track_caller]
    fn blocks(found: &Found, families: &[Family], wanted: usize) -> Vec<Vec<IpNet>> {
        let block = |number| {
            let blocks = found.blocks(families, "run", number, wanted).expect("blocks");
            for block in &blocks {
                assert!(found.addresses_in_use.iter().all(|ip| !block.contains(ip)), "{block}");
                assert!(found.service_cidrs.iter().any(|range| range.contains(block)), "{block}");
            }
            blocks
        };
        (0..15).map(block).collect()
    }

    #[track_caller]
    fn prefix(found: &Found, wanted: usize) -> u8 {
        let all = blocks(found, &[Family::V4], wanted);
        let first = all[0][0].prefix_len();
        assert!(all.iter().all(|blocks| blocks.len() == 1 && blocks[0].prefix_len() == first));
        first
    }

    #[test]
    fn blocks_have_no_address_in_use() {
        let found = found(
            &["10.96.0.0/16", "fd00:10:96::/112"],
            &texts(&["10.96.0.1", "10.96.0.10", "fd00:10:96::1"]),
        );
        let mut seen = BTreeSet::new();
        for blocks in blocks(&found, &Family::BOTH, MANY) {
            assert_eq!(blocks.len(), 2);
            for (block, prefix) in blocks.iter().zip([20, 116]) {
                assert_eq!(block.prefix_len(), prefix);
            }
            seen.insert(blocks[0]);
        }
        assert_eq!(seen.len(), 15, "each is another one");
        assert_eq!(blocks(&found, &[Family::V6], MANY)[0].len(), 1, "nobody asks for IPv4");
    }

    #[test]
    fn few_addresses_need_a_small_part() {
        let found = found(&["10.96.0.0/16"], &texts(&["10.96.0.1"]));
        for (wanted, prefix) in [(0, 27), (15, 27), (16, 26), (239, 24), (240, 23), (MANY, 20)] {
            assert_eq!(blocks(&found, &[Family::V4], wanted)[0][0].prefix_len(), prefix);
            assert_eq!(found.short_of_room(&[Family::V4], wanted), [""; 0], "{wanted}");
        }
    }

    #[test]
    fn small_ranges_with_a_few_services_do() {
        let few = ["10.96.0.1", "10.96.0.10", "10.96.0.77"];
        // All is free but the half with the Services.
        assert_eq!(prefix(&found(&["10.96.0.0/20"], &texts(&few)), MANY), 21);
        let small = found(&["10.96.0.0/24"], &texts(&few));
        assert_eq!(prefix(&small, MANY), 25);
        assert_eq!(prefix(&small, 10), 27);
        let remarks = small.short_of_room(&[Family::V4], 300);
        let [remark] = remarks.as_slice() else { panic!("{remarks:?}") };
        for word in ["10.96.0.0/24", "at most 111 addresses", "want 300", "ServiceCIDR"] {
            assert!(remark.contains(word), "no {word} in {remark}");
        }
    }

    #[test]
    fn a_busy_range_does() {
        // A Service at every 97th address, as in no cluster that is worse off.
        let busy: Vec<String> =
            (1..65_535).step_by(97).map(|n| format!("10.96.{}.{}", n / 256, n % 256)).collect();
        let busy = found(&["10.96.0.0/16"], &busy);
        assert_eq!(prefix(&busy, MANY), 26);
        assert_eq!(prefix(&busy, 12), 27);
    }

    #[test]
    fn another_range_has_room() {
        let full: Vec<String> = (0..256).step_by(8).map(|n| format!("10.96.0.{n}")).collect();
        let found = found(&["10.96.0.0/24", "10.97.0.0/24"], &full);
        assert_eq!(prefix(&found, MANY), 24);
    }

    #[test]
    fn ranges_without_room() {
        let said = |range: &str, addresses: &[String]| {
            let found = found(&[range], addresses);
            found.blocks(&[Family::V4], "run", 0, 1).expect_err("none is free").to_string()
        };
        let full: Vec<String> = (1..256).step_by(16).map(|n| format!("10.96.0.{n}")).collect();
        let error = said("10.96.0.0/24", &full);
        for word in [
            "the Service range 10.96.0.0/24 is free",
            "16 of its addresses are in use, from 10.96.0.1 to 10.96.0.241",
            "ServiceCIDR",
            "--provider kind",
        ] {
            assert!(error.contains(word), "no {word} in {error}");
        }
        assert!(said("10.96.0.0/27", &texts(&["10.96.0.1"])).contains("10.96.0.1 is in use"));
        assert!(said("10.96.0.0/28", &[]).contains("smaller than the 32 addresses"));
    }
}
