//! What others than the proxy have in the nodes' firewall: a CNI plug-in, an administrator, a
//! network policy.
//!
//! Each owner has a table or chains of its own and touches nobody else's. Loading an owner's rules
//! takes its old ones away in the same transaction, so that loading again is what a reload is.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use touchstone_netlab::{Family, Node, Topology, plan};
use touchstone_spec::{Firewall, NetworkWish, PodsToNodes};

use super::backend;
use crate::ClusterError;

/// One owner's rules: the program that loads them, and what it reads.
struct Rules {
    program: String,
    args: &'static [&'static str],
    text: String,
}

/// Loads the rules of everybody who has some in this network, on every node.
///
/// # Errors
/// Names the node and what the program said.
pub(super) fn load(topology: &Arc<Topology>, wish: &NetworkWish) -> Result<(), ClusterError> {
    topology.nodes().try_for_each(|node| load_on(node, wish))
}

/// Loads them on one node, perhaps again.
///
/// # Errors
/// Names the node and what the program said.
pub(super) fn load_on(node: &Node, wish: &NetworkWish) -> Result<(), ClusterError> {
    for rules in rules(node, wish) {
        let failed = |why: &dyn std::fmt::Display| {
            let act = format!("failed to load rules of others on {}", node.name());
            ClusterError::new(act, why)
        };
        node.namespace()
            .run(move || run(&rules))
            .map_err(|error| failed(&error))?
            .map_err(|why| failed(&why))?;
    }
    Ok(())
}

/// Runs on the node's own thread.
fn run(rules: &Rules) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", rules.program);
    let mut child = Command::new(&rules.program)
        .args(rules.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut input) = child.stdin.take() {
        // What it did not read, it complains about itself.
        let _ = input.write_all(rules.text.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(&format_args!("{}: {}", output.status, said.trim())))
}

fn rules(node: &Node, wish: &NetworkWish) -> Vec<Rules> {
    let nft = |text| Rules { program: "nft".to_owned(), args: &["-f", "-"], text };
    let mut all = Vec::new();
    if wish.pods_to_nodes == Some(PodsToNodes::Masqueraded) {
        all.push(nft(cni(node)));
    }
    for owner in &wish.firewall {
        match owner {
            Firewall::SecondPostrouting => all.push(nft(second_postrouting(node))),
            Firewall::Policy => all.push(nft(policy(node))),
            Firewall::ForwardDrop | Firewall::InputDrop => {
                for family in node.families() {
                    let program = match family {
                        Family::V4 => "iptables-restore",
                        Family::V6 => "ip6tables-restore",
                    };
                    let text = match owner {
                        Firewall::ForwardDrop => forward_drop(*family),
                        Firewall::InputDrop | Firewall::SecondPostrouting | Firewall::Policy => {
                            input_drop(*family)
                        }
                    };
                    all.push(Rules {
                        program: backend::program(wish, program),
                        args: &["--noflush", "-w"],
                        text,
                    });
                }
            }
        }
    }
    all
}

/// A table that replaces the one of its name.
fn table(name: &str, chain: &str) -> String {
    format!("add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n{chain}}}\n")
}

/// The words of nft for addresses of a family.
fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Range of all nodes' addresses.
fn all_nodes(family: Family) -> &'static str {
    match family {
        Family::V4 => "172.18.0.0/16",
        Family::V6 => "fd00:172:18::/48",
    }
}

/// The CNI plug-in's masquerade: a pod's packet to another node gets the address of its own.
fn cni(node: &Node) -> String {
    let mut chain = "chain postrouting {\ntype nat hook postrouting priority srcnat;\n".to_owned();
    for family in node.families().iter().copied() {
        let (ip, pods, nodes) = (ip(family), node.pod_range(family), all_nodes(family));
        chain.push_str(&format!(
            "oifname \"eth0\" {ip} saddr {pods} {ip} daddr {nodes} masquerade\n"
        ));
    }
    chain.push_str("}\n");
    table("lab-cni", &chain)
}

/// A masquerade behind the proxy's, for what pods send out of the pod ranges. Service addresses
/// are spared: there, nobody but the proxy may change anything.
fn second_postrouting(node: &Node) -> String {
    let mut chain =
        "chain postrouting {\ntype nat hook postrouting priority srcnat + 10;\n".to_owned();
    for family in node.families().iter().copied() {
        let (ip, pods) = (ip(family), node.pod_range(family));
        let spared = spared(family);
        chain.push_str(&format!(
            "oifname \"eth0\" {ip} saddr {pods} {ip} daddr != {{ {}, {spared} }} masquerade\n",
            plan::all_pods(family)
        ));
    }
    chain.push_str("}\n");
    table("lab-masquerade", &chain)
}

/// Ranges of Services, as a list of nft.
fn spared(family: Family) -> String {
    let ranges = plan::service_ranges().into_iter().filter(|range| range.family() == family);
    ranges.map(|range| range.to_string()).collect::<Vec<_>>().join(", ")
}

/// A network policy that admits pods only. It looks behind the proxy's own filter, so that what
/// the proxy refuses stays refused.
fn policy(node: &Node) -> String {
    let mut chain = "chain forward {\ntype filter hook forward priority filter + 10;\n\
                     ct state established,related accept\n"
        .to_owned();
    for family in node.families().iter().copied() {
        let (ip, pods) = (ip(family), plan::all_pods(family));
        chain.push_str(&format!("{ip} saddr != {pods} {ip} daddr {pods} counter drop\n"));
        // An endpoint's address must stand in the packet by now.
        chain.push_str(&format!("{ip} daddr {{ {} }} counter drop\n", spared(family)));
    }
    chain.push_str("}\n");
    table("lab-policy", &chain)
}

/// `iptables -P FORWARD DROP`, with the rules of a CNI plug-in that accept what comes from pods
/// and nodes.
fn forward_drop(family: Family) -> String {
    format!(
        "*filter\n:FORWARD DROP [0:0]\n:LAB-FORWARD - [0:0]\n\
         -A FORWARD -j LAB-FORWARD\n\
         -A LAB-FORWARD -s {} -j ACCEPT\n-A LAB-FORWARD -s {} -j ACCEPT\nCOMMIT\n",
        plan::all_pods(family),
        all_nodes(family)
    )
}

/// `iptables -P INPUT DROP`, with what a node needs to live.
fn input_drop(family: Family) -> String {
    let icmp = match family {
        Family::V4 => "icmp",
        Family::V6 => "ipv6-icmp",
    };
    format!(
        "*filter\n:INPUT DROP [0:0]\n:LAB-INPUT - [0:0]\n\
         -A INPUT -j LAB-INPUT\n\
         -A LAB-INPUT -i lo -j ACCEPT\n-A LAB-INPUT -p {icmp} -j ACCEPT\n\
         -A LAB-INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"
    )
}
