//! What a cluster has for cases and what it lacks, and what a run would make of it.

use std::collections::BTreeMap;
use std::path::Path;

use touchstone_spec::{CaseAsks, ClusterShape, Family, NetworkWish};

use super::access::{Access, Harm};
use super::agents::PODS_PER_NODE;
use super::keeper::Keeper;
use super::names::{Names, RUN_LABEL};
use super::site::real_names;
use super::survey::survey;
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
    families: Vec<Family>,
    harm: Harm,
}

impl Preview {
    /// Why the cluster can have no such case.
    #[must_use]
    pub fn lacks(&self, asks: &CaseAsks) -> Option<String> {
        let (nodes, families) = (self.nodes.len(), self.families.as_slice());
        lacks(asks, &Has { nodes, outside: 0, families, harm: self.harm, keeper: None })
    }
}

/// Looks at a cluster and says what a run would make of it; nothing is made.
///
/// # Errors
/// When the cluster cannot be used, with the remedy.
pub async fn preview(
    kubeconfig: &Path,
    harm: Harm,
    run: &str,
    nodes: usize,
) -> Result<Preview, ClusterError> {
    let access = Access::open(kubeconfig, harm).await?;
    let found = survey(&access).await?;
    let names = Names::of(run);
    let blocks = found.blocks(run, 0)?;
    Ok(Preview {
        home: names.home(),
        label: format!("{}={}", RUN_LABEL, names.tag),
        of_cases: names.of_cases("c1"),
        nodes: real_names(&found, nodes),
        blocks: blocks.iter().map(ToString::to_string).collect(),
        node_ports: found.node_ports(run)?,
        pods_per_node: PODS_PER_NODE,
        families: found.families(),
        harm,
    })
}

/// What there is for cases.
pub(super) struct Has<'a> {
    pub(super) nodes: usize,
    pub(super) outside: usize,
    pub(super) families: &'a [Family],
    pub(super) harm: Harm,
    pub(super) keeper: Option<&'a dyn Keeper>,
}

/// Why a cluster that has this cannot have such a case.
pub(super) fn lacks(asks: &CaseAsks, has: &Has<'_>) -> Option<String> {
    let ClusterShape { zones, outside: _, proxy, network, dns: _ } = &asks.shape;
    let provided = has.keeper.map(Keeper::provides).unwrap_or_default();
    let has_it = |need: &String| need == "dns" || provided.contains(need);
    if let Some(need) = asks.lab.iter().find(|need| !has_it(need)) {
        return Some(format!("only the lab provides `{need}`"));
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
    None
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
        Has { nodes: 2, outside: 0, families: &[Family::V4], harm, keeper: None }
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
        check(CaseAsks { zones: true, ..asks(inside(1)) }, "--harmful");
        check(CaseAsks { pods_per_node: 51, ..asks(inside(1)) }, "51 pods");
        let refused = Some("an endpoint without an address".to_owned());
        check(CaseAsks { refused, ..asks(inside(1)) }, "without an address");
        let zones = CaseAsks { zones: true, ..asks(inside(1)) };
        assert_eq!(lacks(&zones, &has(Harm::Allowed)), None);
    }
}
