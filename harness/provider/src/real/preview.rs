//! What a cluster has for cases and what it lacks, and what a run would make of it.

use std::collections::BTreeMap;
use std::path::Path;

use touchstone_spec::{CaseAsks, ClusterShape, Family, NetworkWish};

use super::access::{Access, Harm};
use super::agents::PODS_PER_NODE;
use super::keeper::Keeper;
use super::names::{Names, RUN_LABEL};
use super::site::real_names;
use super::survey::{NameServer, survey};
use crate::ClusterError;

/// What a run would make of a cluster.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Namespace of its agents.
    pub home: String,
    /// Label of everything that it makes.
    pub label: String,
    /// How namespaces of cases begin.
    pub of_cases: String,
    /// Real nodes by what cases call them.
    pub nodes: BTreeMap<String, String>,
    /// Blocks of cluster IPs.
    pub blocks: Vec<String>,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Pods of cases on a node at most.
    pub pods_per_node: usize,
    /// What may come to be missing, with the remedy.
    pub remarks: Vec<String>,
    families: Vec<Family>,
    harm: Harm,
    name_server: Option<NameServer>,
}

impl Preview {
    /// Why the cluster can have no such case.
    #[must_use]
    pub fn lacks(&self, asks: &CaseAsks) -> Option<String> {
        let (nodes, families) = (self.nodes.len(), self.families.as_slice());
        let name_server = self.name_server.as_ref();
        lacks(
            asks,
            &Has { nodes, outside: 0, families, harm: self.harm, keeper: None, name_server },
        )
    }
}

/// Looks at a cluster and says what a run would make of it whose cases want that many nodes, and
/// that many cluster IPs of one family; nothing is made.
///
/// # Errors
/// When the cluster cannot be used, with the remedy.
pub async fn preview(
    kubeconfig: &Path,
    harm: Harm,
    run: &str,
    nodes: usize,
    addresses: usize,
) -> Result<Preview, ClusterError> {
    let access = Access::open(kubeconfig, harm).await?;
    let found = survey(&access).await?;
    let names = Names::of(run);
    let families = found.families();
    let blocks = found.blocks(&families, run, 0, addresses)?;
    Ok(Preview {
        home: names.home(),
        label: format!("{}={}", RUN_LABEL, names.tag),
        of_cases: names.of_cases("c1"),
        nodes: real_names(&found, nodes),
        blocks: blocks.iter().map(ToString::to_string).collect(),
        node_ports: found.node_ports(run)?,
        pods_per_node: PODS_PER_NODE,
        remarks: found.short_of_room(&families, addresses),
        families,
        harm,
        name_server: found.name_server,
    })
}

/// What there is for cases.
pub(super) struct Has<'a> {
    pub(super) nodes: usize,
    pub(super) outside: usize,
    pub(super) families: &'a [Family],
    pub(super) harm: Harm,
    pub(super) keeper: Option<&'a dyn Keeper>,
    pub(super) name_server: Option<&'a NameServer>,
}

/// Why a cluster that has this cannot have such a case.
pub(super) fn lacks(asks: &CaseAsks, has: &Has<'_>) -> Option<String> {
    let ClusterShape { zones, outside: _, proxy, network, dns: _ } = &asks.shape;
    let provided = has.keeper.map(Keeper::provides).unwrap_or_default();
    let has_it = |need: &String| need == "dns" || provided.contains(need);
    if let Some(need) = asks.lab.iter().find(|need| !has_it(need)) {
        return Some(does_not_provide(need));
    }
    if let Some(family) = asks.families.iter().find(|family| !has.families.contains(family)) {
        let family = family.api_name();
        return Some(format!("the cluster has no {family} addresses for pods and Services"));
    }
    if zones.len() > has.nodes {
        return Some(format!("{} nodes: it has {} that can be used", zones.len(), has.nodes));
    }
    if asks.outside > has.outside {
        return Some(match has.outside {
            0 => "a client outside of the cluster, which this provider does not have".to_owned(),
            some => format!("{} clients outside of the cluster: there are {some}", asks.outside),
        });
    }
    if asks.pods_per_node > PODS_PER_NODE {
        return Some(format!(
            "{} pods on one node: a run makes {PODS_PER_NODE} at most",
            asks.pods_per_node
        ));
    }
    match has.keeper {
        Some(keeper) => {
            if let Some(lacks) = keeper.lacks(&asks.shape) {
                return Some(lacks);
            }
        }
        None if *proxy != Default::default() => {
            return Some("settings of proxies: whoever runs the cluster sets them".to_owned());
        }
        None if *network != NetworkWish::default() => {
            return Some("what the network is like: whoever runs the cluster sets it".to_owned());
        }
        None => {}
    }
    if let Some(what) = &asks.refused {
        return Some(format!("only the lab keeps {what}"));
    }
    if asks.zones && has.harm == Harm::Spared {
        return Some("it changes the zones of nodes; --harmful allows that".to_owned());
    }
    if asks.shadows && has.harm == Harm::Spared {
        let what = "it claims an address of a node or of the name server";
        return Some(format!("{what}; --harmful allows that"));
    }
    if asks.shape.dns { lacks_names(asks, has.name_server) } else { None }
}

/// What this cluster does not provide, by the names that cases use in `needs: lab`, and why.
fn does_not_provide(need: &str) -> String {
    let why = match need {
        "pages" => {
            ": what a proxy tells of itself, and which virtual servers its node's kernel has"
        }
        "nodes" => ": Node objects that say something else; those of a cluster are its own",
        "restart" => ": proxies that are stopped and started; here somebody else runs them",
        "servers" => {
            ": a server where a client outside stands; clusters that kind starts have some"
        }
        "cordon" => ": nodes that are cordoned; those that kind starts may be",
        "clients" => ": a client outside with many addresses; one is in clusters that kind starts",
        _ => "",
    };
    format!("the cluster does not provide `{need}`{why}")
}

/// Why nobody can ask the cluster's name server, if so.
fn lacks_names(asks: &CaseAsks, server: Option<&NameServer>) -> Option<String> {
    // Without one that can be asked past the proxy there is no control.
    let Some(server) = server.filter(|server| !server.pods.is_empty()) else {
        return Some("a name server: no pod behind a Service kube-dns is ready".to_owned());
    };
    let has = |family: Family| server.service.iter().any(|ip| Family::of(*ip) == family);
    let family = asks.families.iter().find(|family| !has(**family))?.api_name();
    Some(format!("the cluster's name server has no {family} address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(shape: ClusterShape) -> CaseAsks {
        CaseAsks { shape, families: vec![Family::V4], ..CaseAsks::default() }
    }

    fn inside(nodes: usize) -> ClusterShape {
        ClusterShape { zones: vec![None; nodes], outside: 0, ..ClusterShape::default() }
    }

    fn has(harm: Harm) -> Has<'static> {
        let families = &[Family::V4];
        Has { nodes: 2, outside: 0, families, harm, keeper: None, name_server: None }
    }

    fn said(asks: &CaseAsks) -> Option<String> {
        lacks(asks, &has(Harm::Spared))
    }

    #[test]
    fn what_a_cluster_lacks_is_named() {
        assert_eq!(said(&asks(inside(2))), None);
        let check = |asks: CaseAsks, word: &str| {
            assert!(said(&asks).is_some_and(|said| said.contains(word)), "{word}");
        };
        check(asks(inside(3)), "3 nodes");
        check(CaseAsks { outside: 1, ..asks(inside(1)) }, "outside");
        check(CaseAsks { families: vec![Family::V6], ..asks(inside(1)) }, "IPv6");
        check(CaseAsks { lab: ["restart".to_owned()].into(), ..asks(inside(1)) }, "`restart`");
        check(CaseAsks { lab: ["pages".to_owned()].into(), ..asks(inside(1)) }, "virtual servers");
        check(CaseAsks { zones: true, ..asks(inside(1)) }, "--harmful");
        check(CaseAsks { shadows: true, ..asks(inside(1)) }, "--harmful");
        check(CaseAsks { pods_per_node: 51, ..asks(inside(1)) }, "51 pods");
        let refused = Some("an endpoint without an address".to_owned());
        check(CaseAsks { refused, ..asks(inside(1)) }, "without an address");
        let zones = CaseAsks { zones: true, ..asks(inside(1)) };
        assert_eq!(lacks(&zones, &has(Harm::Allowed)), None);
    }

    #[test]
    fn a_name_server_that_nobody_can_ask_is_named() {
        let names = CaseAsks {
            shape: ClusterShape { dns: true, ..inside(1) },
            families: Family::BOTH.to_vec(),
            ..CaseAsks::default()
        };
        let said = |server: &NameServer| {
            let (families, name_server) = (&Family::BOTH, Some(server));
            lacks(&names, &Has { families, name_server, ..has(Harm::Spared) })
        };
        let mut server = NameServer { service: vec![[10, 96, 0, 10].into()], pods: vec![] };
        assert!(said(&server).is_some_and(|said| said.contains("no pod behind")));
        server.pods.push(("coredns-1".to_owned(), vec![[10, 244, 0, 2].into()]));
        assert!(said(&server).is_some_and(|said| said.contains("no IPv6 address")));
        server.service.push("fd00:10:96::a".parse().expect("an address"));
        assert_eq!(said(&server), None);
    }
}
