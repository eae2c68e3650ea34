//! Rules that others than the proxy have in a node's firewall, as text for `nft`: a CNI plug-in, an
//! administrator, a network policy.
//!
//! Each owner has a table of its own and touches nobody else's. Loading an owner's rules takes its
//! old ones away in the same transaction, so that loading again is what a reload is.

use touchstone_spec::{Firewall, NetworkWish, PodsToNodes};

/// Names of the owners' tables, of the family `inet`.
const CNI: &str = "lab-cni";
const MASQUERADE: &str = "lab-masquerade";
const POLICY: &str = "lab-policy";

/// The addresses of one family, as a node sees them.
#[derive(Debug, Clone)]
pub(crate) struct Ranges {
    /// The word of nft for the family: `ip`, `ip6`.
    pub(crate) word: &'static str,
    /// The node's own pods.
    pub(crate) own_pods: String,
    /// All pods.
    pub(crate) pods: String,
    /// All nodes, as a range or a list of nft.
    pub(crate) nodes: String,
    /// Services, as a list of nft without its braces.
    pub(crate) services: String,
}

/// The tables that a network asks for. What `iptables` loads is no table of its own and not here.
pub(crate) fn tables(wish: &NetworkWish, families: &[Ranges]) -> Vec<String> {
    let mut tables = Vec::new();
    if wish.pods_to_nodes == Some(PodsToNodes::Masqueraded) {
        tables.push(cni(families));
    }
    for owner in &wish.firewall {
        match owner {
            Firewall::SecondPostrouting => tables.push(second_postrouting(families)),
            Firewall::Policy => tables.push(policy(families)),
            Firewall::ForwardDrop | Firewall::InputDrop => {}
        }
    }
    tables
}

/// What takes all owners' tables away, whether they are there or not.
pub(crate) fn none() -> String {
    [CNI, MASQUERADE, POLICY]
        .map(|name| format!("add table inet {name}\ndelete table inet {name}\n"))
        .concat()
}

/// A table that replaces the one of its name.
fn table(name: &str, chain: &str) -> String {
    format!("add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n{chain}}}\n")
}

/// The CNI plug-in's masquerade: a pod's packet to another node gets the address of its own.
fn cni(families: &[Ranges]) -> String {
    let mut chain = "chain postrouting {\ntype nat hook postrouting priority srcnat;\n".to_owned();
    for Ranges { word: ip, own_pods, nodes, .. } in families {
        chain.push_str(&format!(
            "oifname \"eth0\" {ip} saddr {own_pods} {ip} daddr {{ {nodes} }} masquerade\n"
        ));
    }
    chain.push_str("}\n");
    table(CNI, &chain)
}

/// A masquerade behind the proxy's, for what pods send out of the pod ranges. Service addresses
/// are spared: there, nobody but the proxy may change anything.
fn second_postrouting(families: &[Ranges]) -> String {
    let mut chain =
        "chain postrouting {\ntype nat hook postrouting priority srcnat + 10;\n".to_owned();
    for Ranges { word: ip, own_pods, pods, services, .. } in families {
        chain.push_str(&format!(
            "oifname \"eth0\" {ip} saddr {own_pods} {ip} daddr != {{ {pods}, {services} }} \
             masquerade\n"
        ));
    }
    chain.push_str("}\n");
    table(MASQUERADE, &chain)
}

/// A network policy that admits pods only. It looks behind the proxy's own filter, so that what
/// the proxy refuses stays refused.
fn policy(families: &[Ranges]) -> String {
    let mut chain = "chain forward {\ntype filter hook forward priority filter + 10;\n\
                     ct state established,related accept\n"
        .to_owned();
    for Ranges { word: ip, pods, services, .. } in families {
        chain.push_str(&format!("{ip} saddr != {pods} {ip} daddr {pods} counter drop\n"));
        // An endpoint's address must stand in the packet by now.
        chain.push_str(&format!("{ip} daddr {{ {services} }} counter drop\n"));
    }
    chain.push_str("}\n");
    table(POLICY, &chain)
}
