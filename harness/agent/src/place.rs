//! What the place is like in which the agent stands.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::protocol::Place;

/// Where the kernel says how many milliseconds lie between two ICMP errors to one address.
const LIMITS: [&str; 2] =
    ["/proc/sys/net/ipv4/icmp_ratelimit", "/proc/sys/net/ipv6/icmp/ratelimit"];

/// Looks at the process's own network namespace.
pub(crate) fn place() -> Place {
    let limited = |path: &&str| std::fs::read_to_string(path).is_ok_and(|text| is_limited(&text));
    Place { addresses: addresses(), refusals_are_few: LIMITS.iter().any(limited) }
}

fn is_limited(text: &str) -> bool {
    text.trim().parse::<i64>().is_ok_and(|millis| millis > 0)
}

fn addresses() -> Vec<(String, IpAddr)> {
    // A place whose addresses cannot be listed shows none; whoever needs them says so.
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (None, Some(v6)) => IpAddr::V6(v6.ip()),
                (None, None) => return None,
            };
            Some((interface.interface_name, ip))
        })
        .filter(|(_, ip)| !ip.is_loopback() && !is_of_one_link(*ip))
        .collect()
}

/// Whether only neighbours on its link ever see an address. Of IPv4 that is not so: some networks
/// give nodes link-local addresses towards their pods, and rules choose them as source.
fn is_of_one_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_above_zero() {
        assert!(is_limited("1000\n"));
        assert!(!is_limited("0\n"));
        assert!(!is_limited("none"));
    }
}
