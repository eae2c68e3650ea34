//! Kernel settings of a namespace, without which a lab measures itself.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

/// What a namespace is there for; decides its kernel settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Forwards and has a proxy.
    Node,
    /// Forwards between nodes and outside clients.
    Fabric,
    /// Opens and accepts connections: a pod or an outside client.
    Host,
    /// A host on the nodes' own segment, which may try to reach their loopback addresses.
    Neighbour,
    /// Takes everything and answers nothing.
    Sink,
}

/// A setting that this kernel does not have or does not let us change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unset {
    /// The setting, as for sysctl(8).
    pub setting: String,
    /// The value wanted.
    pub value: String,
    /// What the kernel said.
    pub why: String,
}

impl fmt::Display for Unset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.setting, self.value, self.why)
    }
}

/// Whether a lab without the setting is worth having.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Essential,
    Wanted,
}

use Weight::{Essential, Wanted};

type Setting = (&'static str, &'static str, Weight);

// A namespace takes its IPv4 settings from the host's initial one, so that what must be 0 is
// written too.
const EVERYWHERE: &[Setting] = &[
    ("net.ipv4.conf.all.rp_filter", "0", Essential),
    ("net.ipv4.conf.default.rp_filter", "0", Essential),
    ("net.ipv4.conf.all.accept_redirects", "0", Wanted),
    ("net.ipv4.conf.default.accept_redirects", "0", Wanted),
    // Both are needed: a limit of 0 alone still loses messages to the global limit.
    ("net.ipv4.icmp_ratelimit", "0", Wanted),
    ("net.ipv4.icmp_ratemask", "0", Wanted),
    ("net.ipv6.icmp.ratelimit", "0", Wanted),
    ("net.ipv6.icmp.ratemask", "", Wanted),
    ("net.ipv6.conf.all.accept_dad", "0", Wanted),
    ("net.ipv6.conf.default.accept_dad", "0", Wanted),
    ("net.ipv6.conf.default.dad_transmits", "0", Wanted),
    ("net.ipv6.conf.all.accept_ra", "0", Wanted),
    ("net.ipv6.conf.default.accept_ra", "0", Wanted),
    ("net.ipv6.conf.default.accept_redirects", "0", Wanted),
];

const FORWARDING: &[Setting] = &[
    ("net.ipv4.ip_forward", "1", Essential),
    ("net.ipv6.conf.all.forwarding", "1", Essential),
    ("net.ipv4.conf.all.send_redirects", "0", Wanted),
    ("net.ipv4.conf.default.send_redirects", "0", Wanted),
];

const NOT_FORWARDING: &[Setting] =
    &[("net.ipv4.ip_forward", "0", Essential), ("net.ipv6.conf.all.forwarding", "0", Essential)];

const CONNTRACK: &[Setting] = &[
    ("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "2", Wanted),
    ("net.netfilter.nf_conntrack_tcp_timeout_close", "2", Wanted),
    ("net.netfilter.nf_conntrack_tcp_timeout_fin_wait", "5", Wanted),
    ("net.netfilter.nf_conntrack_tcp_timeout_last_ack", "5", Wanted),
];

const LISTENING: &[Setting] = &[("net.core.somaxconn", "4096", Wanted)];

// Many clients, and none on a port on which a server may have to listen. Not on nodes: there a
// client's port could be a node port.
const CLIENT_PORTS: &[Setting] = &[("net.ipv4.ip_local_port_range", "10240 65535", Wanted)];

// A client with a whole range of addresses has none of them on an interface.
const ANY_SOURCE: &[Setting] = &[("net.ipv6.ip_nonlocal_bind", "1", Wanted)];

// Otherwise what answers from a loopback address of another host would never be seen.
const LOOPBACK_OF_OTHERS: &[Setting] = &[("net.ipv4.conf.all.route_localnet", "1", Essential)];

const SILENT: &[Setting] = &[
    ("net.ipv6.conf.all.disable_ipv6", "1", Wanted),
    ("net.ipv6.conf.default.disable_ipv6", "1", Wanted),
];

fn settings(role: Role) -> Vec<Setting> {
    let groups: &[&[Setting]] = match role {
        Role::Node => &[EVERYWHERE, FORWARDING, CONNTRACK, LISTENING],
        Role::Fabric => &[EVERYWHERE, FORWARDING],
        Role::Host => &[EVERYWHERE, NOT_FORWARDING, LISTENING, CLIENT_PORTS, ANY_SOURCE],
        Role::Neighbour => {
            &[EVERYWHERE, NOT_FORWARDING, LISTENING, CLIENT_PORTS, ANY_SOURCE, LOOPBACK_OF_OTHERS]
        }
        Role::Sink => &[EVERYWHERE, NOT_FORWARDING, SILENT],
    };
    groups.concat()
}

/// A setting that had to be made and could not.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) setting: String,
    pub(crate) value: String,
    pub(crate) source: io::Error,
}

/// Makes every setting of `role` in the namespace of this thread.
///
/// Must come before the links: they take their settings from the namespace's defaults.
pub(crate) fn apply(role: Role) -> Result<Vec<Unset>, Refused> {
    let mut unset = Vec::new();
    for (setting, value, weight) in settings(role) {
        match (write(setting, value), weight) {
            (Ok(()), _) => {}
            (Err(source), Essential) => {
                return Err(Refused { setting: setting.into(), value: value.into(), source });
            }
            (Err(source), Wanted) => unset.push(Unset {
                setting: setting.into(),
                value: value.into(),
                why: source.to_string(),
            }),
        }
    }
    Ok(unset)
}

/// Leaves the namespace of this thread, and its links to come, without IPv6.
pub(crate) fn no_ipv6() -> io::Result<()> {
    SILENT.iter().try_for_each(|(setting, value, _)| write(setting, value))
}

/// Writes one setting in the namespace of this thread.
pub(crate) fn write(setting: &str, value: &str) -> io::Result<()> {
    // The line end makes an empty value a write of one byte; writing none changes nothing.
    fs::write(path(setting), format!("{value}\n"))
}

/// Reads one setting in the namespace of this thread.
pub(crate) fn read(setting: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(setting))?.trim().to_owned())
}

fn path(setting: &str) -> PathBuf {
    // As in sysctl(8): dots part the folders, and a slash stands for a dot in an interface name.
    let parts = setting.split('.').map(|part| part.replace('/', "."));
    PathBuf::from("/proc/sys").join(parts.collect::<PathBuf>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_setting_has_its_path() {
        assert_eq!(path("net.ipv4.ip_forward"), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(
            path("net.ipv4.conf.eth0/5.rp_filter"),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/rp_filter")
        );
    }

    #[test]
    fn no_role_sets_anything_twice() {
        for role in [Role::Node, Role::Fabric, Role::Host, Role::Sink] {
            let all = settings(role);
            let names: BTreeMap<_, _> = all.iter().map(|(name, value, _)| (name, value)).collect();
            assert_eq!(names.len(), all.len(), "{role:?}");
        }
    }
}
