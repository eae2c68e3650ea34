//! Which addresses of a node accept node ports.

use std::net::{IpAddr, Ipv4Addr};

use touchstone_spec::{Family, Features, Node, NodePortAddresses, ProxySettings, Reason};

use crate::endpoints::reason;

const ADDRESSES: &str = "KubeProxyConfiguration nodePortAddresses";
const LOOPBACK: &str = "KubeProxyConfiguration iptables.localhostNodePorts";

/// Whether an address accepts node ports, with the reason where that is not plain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Takes {
    /// It does.
    Yes,
    /// It does not.
    No(Reason),
    /// Nothing says so, and the subject's features do not either.
    Maybe(Reason),
}

/// Whether `ip` accepts node ports on `node`.
///
/// Spec: the API promises node ports on the addresses in the Node object; `nodePortAddresses`
/// limits them or adds further ones, each family by itself. Loopback addresses are no node's
/// address: only a proxy that says so serves there.
pub(crate) fn takes(
    settings: &ProxySettings,
    node: &Node,
    ip: IpAddr,
    features: &Features,
) -> Takes {
    if ip.is_loopback() {
        return on_loopback(settings, ip, features);
    }
    if !node.addresses.contains(&ip) {
        return Takes::No(reason(&format!("{ip} is no address of {}", node.name), ADDRESSES));
    }
    let internal = node.internal_ip(Family::of(ip)) == Some(ip);
    match &settings.node_port_addresses {
        NodePortAddresses::Default | NodePortAddresses::Primary if internal => Takes::Yes,
        NodePortAddresses::Default if features.has("node-ports-on-all-addresses") => Takes::Yes,
        NodePortAddresses::Default if !features.has("node-ports-on-primary-addresses") => {
            Takes::Maybe(reason(
                &format!("{ip} is a further address of {}: proxies differ", node.name),
                ADDRESSES,
            ))
        }
        NodePortAddresses::Default | NodePortAddresses::Primary => Takes::No(reason(
            &format!("{ip} is not the address of {} in its Node object", node.name),
            ADDRESSES,
        )),
        NodePortAddresses::Ranges(_) => match excluded(settings, ip) {
            Some(why) => Takes::No(why),
            None => Takes::Yes,
        },
    }
}

fn on_loopback(settings: &ProxySettings, ip: IpAddr, features: &Features) -> Takes {
    if settings.localhost_node_ports == Some(false) {
        return Takes::No(reason("localhostNodePorts is false", LOOPBACK));
    }
    if let Some(why) = excluded(settings, ip) {
        return Takes::No(why);
    }
    let (leaves, serves) = match Family::of(ip) {
        Family::V4 => {
            (features.has("no-localhost-node-ports"), features.has("localhost-node-ports"))
        }
        Family::V6 => (features.has("no-ipv6-localhost-node-ports"), false),
    };
    match (leaves, serves) {
        (true, _) => Takes::No(reason(
            &format!("the proxy leaves node ports on {ip} alone"),
            "v1.ServicePort nodePort: on each node's addresses",
        )),
        (false, true) if is_selected(settings, ip) => Takes::Yes,
        (false, true) => Takes::Maybe(reason(
            &format!("nodePortAddresses select addresses of links, and {ip} is on none"),
            ADDRESSES,
        )),
        (false, false) => Takes::Maybe(reason(
            &format!("{ip} is no address of a node: some proxies serve node ports there"),
            "v1.ServicePort nodePort: on each node's addresses",
        )),
    }
}

/// Whether a loopback address is surely among those that the setting selects: with all addresses,
/// or as the one that the loopback has.
fn is_selected(settings: &ProxySettings, ip: IpAddr) -> bool {
    match &settings.node_port_addresses {
        NodePortAddresses::Default => true,
        NodePortAddresses::Primary => false,
        NodePortAddresses::Ranges(ranges) => {
            let mut same = ranges.iter().filter(|r| Family::of(r.addr()) == Family::of(ip));
            ip == IpAddr::V4(Ipv4Addr::LOCALHOST)
                || same.clone().next().is_none()
                || same.any(|range| range.prefix_len() == 0)
        }
    }
}

/// Why the setting keeps node ports from an address, if it does. A family without any range is
/// not limited.
fn excluded(settings: &ProxySettings, ip: IpAddr) -> Option<Reason> {
    let outside = match &settings.node_port_addresses {
        NodePortAddresses::Default => false,
        NodePortAddresses::Primary => true,
        NodePortAddresses::Ranges(ranges) => {
            let family = Family::of(ip);
            let mut same = ranges.iter().filter(|range| Family::of(range.addr()) == family);
            same.clone().next().is_some() && !same.any(|range| range.contains(&ip))
        }
    };
    outside.then(|| {
        reason(
            &format!("nodePortAddresses leave out {ip}: node ports are not served there"),
            ADDRESSES,
        )
    })
}
