//! Which of a node's sets of addresses have an entry for an address and port.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use touchstone_spec::Protocol;

/// The most characters that the kernel lets a set's name have.
const LONGEST: usize = 31;

/// Names of the sets with an entry for an address and port, or for the port alone, in what
/// `ipset save` says.
///
/// The sets of the second family go by the names of the first one's: KUBE-6-CLUSTER-IP counts as
/// KUBE-CLUSTER-IP, also where the longer name was cut off.
pub(super) fn with(saved: &str, protocol: Protocol, to: SocketAddr) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let created = saved.lines().filter_map(|line| line.strip_prefix("create ")?.split(' ').next());
    let names: BTreeSet<&str> = created.collect();
    let mut of_ports = BTreeSet::new();
    for line in saved.lines() {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["create", name, "bitmap:port", ..] => drop(of_ports.insert(*name)),
            ["add", name, entry, ..] => {
                let same = match of_ports.contains(name) {
                    true => is_port(name, entry, protocol, to),
                    false => is_of(entry, protocol, to),
                };
                if same {
                    found.insert(first_family(name, &names));
                }
            }
            _ => {}
        }
    }
    found
}

/// The name that a set has in the first family.
fn first_family(name: &str, names: &BTreeSet<&str>) -> String {
    let Some(rest) = name.strip_prefix("KUBE-6-") else { return name.to_owned() };
    let own = format!("KUBE-{rest}");
    let whole = names.iter().find(|other| name.len() == LONGEST && other.starts_with(&own));
    whole.map_or(own.clone(), |whole| (*whole).to_owned())
}

/// Whether `30080` of a set such as KUBE-NODE-PORT-TCP is the port; of which protocol it is, only
/// the set's name says.
fn is_port(name: &str, entry: &str, protocol: Protocol, to: SocketAddr) -> bool {
    let word = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    name.split('-').any(|part| part == word) && entry.parse() == Ok(to.port())
}

/// Whether an entry such as `10.96.0.17,tcp:80`, with whatever follows, begins with the address and
/// port.
fn is_of(entry: &str, protocol: Protocol, to: SocketAddr) -> bool {
    let word = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    let mut parts = entry.split(',');
    let address = parts.next().and_then(|part| part.parse::<IpAddr>().ok());
    let port = parts.next().and_then(|part| part.split_once(':'));
    address == Some(to.ip())
        && port.is_some_and(|(kind, number)| kind == word && number.parse() == Ok(to.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536 bucketsize 12
add KUBE-CLUSTER-IP 10.96.0.17,tcp:80
add KUBE-CLUSTER-IP 10.96.0.1,tcp:443
create KUBE-LOAD-BALANCER-SOURCE-CIDR hash:ip,port,net family inet hashsize 1024 maxelem 65536
add KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.1,tcp:80,192.0.2.0/24
create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 1024 maxelem 65536
add KUBE-LOOP-BACK 10.244.1.11,tcp:8000,10.244.1.11
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 30080
create KUBE-NODE-PORT-SCTP-HASH hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-NODE-PORT-SCTP-HASH 172.18.1.2,sctp:30080
create KUBE-6-CLUSTER-IP hash:ip,port family inet6 hashsize 1024 maxelem 65536
add KUBE-6-CLUSTER-IP fd00:10:96::11,udp:53
create KUBE-6-LOAD-BALANCER-SOURCE-CID hash:ip,port,net family inet6 hashsize 1024 maxelem 65536
add KUBE-6-LOAD-BALANCER-SOURCE-CID 2001:db8::1,tcp:80,2001:db8:64::/64
";

    fn check(protocol: Protocol, to: &str, expected: &str) {
        let found = with(SAVED, protocol, to.parse().expect("an address and a port"));
        assert_eq!(found.into_iter().collect::<Vec<_>>().join(" "), expected, "{to}");
    }

    #[test]
    fn entries_of_every_kind_of_set() {
        check(Protocol::Tcp, "10.96.0.17:80", "KUBE-CLUSTER-IP");
        check(Protocol::Udp, "10.96.0.17:80", "");
        check(Protocol::Tcp, "10.96.0.17:443", "");
        check(Protocol::Tcp, "203.0.113.1:80", "KUBE-LOAD-BALANCER-SOURCE-CIDR");
        check(Protocol::Tcp, "10.244.1.11:8000", "KUBE-LOOP-BACK");
        check(Protocol::Tcp, "172.18.1.2:30080", "KUBE-NODE-PORT-TCP");
        check(Protocol::Udp, "172.18.1.2:30080", "");
        check(Protocol::Sctp, "172.18.1.2:30080", "KUBE-NODE-PORT-SCTP-HASH");
        check(Protocol::Udp, "[fd00:10:96::11]:53", "KUBE-CLUSTER-IP");
        check(Protocol::Tcp, "[2001:db8::1]:80", "KUBE-LOAD-BALANCER-SOURCE-CIDR");
    }
}
