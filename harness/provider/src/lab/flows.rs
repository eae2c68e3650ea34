//! The flows that a node's kernel translates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// The UDP flows to any of these addresses whose packets go to somewhere else; none where they
/// cannot be listed. Must run on the node's own thread.
pub(super) fn udp(addresses: &BTreeSet<IpAddr>) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let output = Command::new("conntrack")
            .args(["-L", "-p", "udp", "-f", family])
            .stdin(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout);
        found.extend(text.lines().filter(|line| is_translated(line, addresses)).map(str::to_owned));
    }
    Some(found)
}

/// Whether a line speaks of packets to one of these addresses that go to another.
///
/// The first `dst=` is what the client used, the second `src=` is who answers it.
fn is_translated(line: &str, addresses: &BTreeSet<IpAddr>) -> bool {
    let values = |key: &str| {
        let addresses: Vec<IpAddr> = line
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.parse().ok())
            .collect();
        addresses
    };
    match (values("dst=").first(), values("src=").get(1)) {
        (Some(used), Some(answering)) => addresses.contains(used) && used != answering,
        (Some(_) | None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_to_endpoints_are_told_from_others() {
        let gone = BTreeSet::from(["10.96.0.9".parse().unwrap()]);
        let check = |line: &str, want: bool| assert_eq!(is_translated(line, &gone), want, "{line}");
        check(
            "udp 17 25 src=10.244.1.2 dst=10.96.0.9 sport=4 dport=80 src=10.244.2.3 \
             dst=10.244.1.2 sport=8000 dport=4 mark=0 use=1",
            true,
        );
        check(
            "udp 17 25 src=10.244.1.2 dst=10.96.0.9 sport=4 dport=80 [UNREPLIED] src=10.96.0.9 \
             dst=10.244.1.2 sport=80 dport=4 mark=0 use=1",
            false,
        );
        check("udp 17 25 src=10.244.1.2 dst=10.96.0.8 sport=4 dport=80 src=10.244.2.3", false);
        check("nonsense", false);
    }
}
