//! What others than the proxy have in the nodes' firewall: a CNI plug-in, an administrator, a
//! network policy.
//!
//! Each owner has a table or chains of its own and touches nobody else's. Loading an owner's rules
//! takes its old ones away in the same transaction, so that loading again is what a reload is.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use touchstone_netlab::{Family, Node, Topology, plan};
use touchstone_spec::{Firewall, NetworkWish};

use super::backend;
use crate::ClusterError;
use crate::owners::{self, Ranges};

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
    let families: Vec<Ranges> =
        node.families().iter().map(|family| ranges(node, *family)).collect();
    let nft = |text| Rules { program: "nft".to_owned(), args: &["-f", "-"], text };
    let mut all: Vec<Rules> = owners::tables(wish, &families).into_iter().map(nft).collect();
    for owner in &wish.firewall {
        let text: fn(Family) -> String = match owner {
            Firewall::ForwardDrop => forward_drop,
            Firewall::InputDrop => input_drop,
            Firewall::SecondPostrouting | Firewall::Policy => continue,
        };
        for family in node.families() {
            let program = match family {
                Family::V4 => "iptables-restore",
                Family::V6 => "ip6tables-restore",
            };
            all.push(Rules {
                program: backend::program(wish, program),
                args: &["--noflush", "-w"],
                text: text(*family),
            });
        }
    }
    all
}

/// The addresses of a family as the lab's plan has them.
fn ranges(node: &Node, family: Family) -> Ranges {
    let services = plan::service_ranges().into_iter().filter(|range| range.family() == family);
    Ranges {
        word: match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        },
        own_pods: node.pod_range(family).to_string(),
        pods: plan::all_pods(family).to_string(),
        nodes: all_nodes(family).to_owned(),
        services: services.map(|range| range.to_string()).collect::<Vec<_>>().join(", "),
    }
}

/// Range of all nodes' addresses.
fn all_nodes(family: Family) -> &'static str {
    match family {
        Family::V4 => "172.18.0.0/16",
        Family::V6 => "fd00:172:18::/48",
    }
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

/// `iptables -P INPUT DROP`, with what a node needs to live, and what is for cluster IPs: a proxy
/// that takes such packets in depends on whoever closes this chain.
fn input_drop(family: Family) -> String {
    let icmp = match family {
        Family::V4 => "icmp",
        Family::V6 => "ipv6-icmp",
    };
    let cluster_ips = plan::cluster_ips(family);
    format!(
        "*filter\n:INPUT DROP [0:0]\n:LAB-INPUT - [0:0]\n\
         -A INPUT -j LAB-INPUT\n\
         -A LAB-INPUT -i lo -j ACCEPT\n-A LAB-INPUT -p {icmp} -j ACCEPT\n\
         -A LAB-INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A LAB-INPUT -d {cluster_ips} -j ACCEPT\nCOMMIT\n"
    )
}
