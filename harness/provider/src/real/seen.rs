//! The nodes that a run uses, as the agents on them see them.

use std::collections::BTreeMap;

use ipnet::IpNet;
use touchstone_agent::RemoteServers;
use touchstone_spec::{CLIENT_PORT, ClusterFacts, Family, NodeFacts, Protocol, ServerWish};

use super::agents::Manned;
use super::survey::{FoundNode, look_at};
use crate::{ClusterError, canary};

/// The nodes, as soon as a pod stands on each: some networks give nodes an address with the first.
///
/// Also whether the kernel of any of them limits how many refusals it sends.
pub(super) async fn node_facts(
    used: &[FoundNode],
    manned: &[Manned],
) -> Result<(Vec<NodeFacts>, bool), ClusterError> {
    let mut nodes = Vec::new();
    let mut few = false;
    for (number, node) in (1..).zip(used) {
        let name = format!("n{number}");
        let on = |host: bool| {
            let fits = |m: &&Manned| m.facts.node == name && (m.facts.place == name) == host;
            manned.iter().find(fits)
        };
        let mut addresses = node.internal.clone();
        if let Some(host) = on(true) {
            let (seen, limited) = look_at(node, &host.agent).await?;
            addresses = seen;
            few |= limited;
        }
        nodes.push(NodeFacts {
            name: name.clone(),
            zone: node.zone.clone(),
            addresses,
            pod_cidrs: node.pod_cidrs.clone(),
            client: on(false).map(|manned| manned.facts.clone()).unwrap_or_default(),
            pages: BTreeMap::new(),
        });
    }
    Ok((nodes, few))
}

/// Every client pod answers.
pub(super) async fn serve(
    manned: &[Manned],
    nodes: &[NodeFacts],
) -> Result<Vec<RemoteServers>, ClusterError> {
    let facts = ClusterFacts { nodes: nodes.to_vec(), ..ClusterFacts::default() };
    let wishes = canary::servers(&facts);
    let mut serving = Vec::new();
    for Manned { facts, agent } in manned {
        let own: Vec<_> = wishes.iter().filter(|w| w.place == facts.place).cloned().collect();
        if !own.is_empty() {
            let servers = agent.serve(own).await;
            serving.push(servers.map_err(|why| {
                ClusterError::new(format!("failed to serve in {}", facts.place), why)
            })?);
        }
    }
    Ok(serving)
}

/// The smallest range of each family that holds the pods of all nodes, IPv4 first.
pub(super) fn whole(nodes: &[NodeFacts]) -> Vec<IpNet> {
    let ranges = |family: Family| {
        let all = nodes.iter().flat_map(|node| &node.pod_cidrs);
        all.filter(move |range| Family::of(range.addr()) == family).copied()
    };
    Family::BOTH
        .into_iter()
        .filter_map(|family| {
            let mut whole = ranges(family).next()?;
            while !ranges(family).all(|range| whole.contains(&range)) {
                whole = whole.supernet()?;
            }
            Some(whole)
        })
        .collect()
}

/// Which node's kernel speaks no SCTP, with its words; none where all do.
///
/// Whether there is a module for it that may be loaded, only trying tells.
pub(super) async fn without_sctp(manned: &[Manned]) -> Option<String> {
    for Manned { facts, agent } in manned.iter().filter(|one| one.facts.place != one.facts.node) {
        let Some(address) = facts.addresses.first().copied() else { continue };
        let wish = ServerWish {
            place: facts.place.clone(),
            address,
            port: CLIENT_PORT,
            protocol: Protocol::Sctp,
        };
        // A server that does listen ends here.
        if let Err(why) = agent.serve(vec![wish]).await {
            return Some(format!("{}: {why}", facts.node));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_all_pods() {
        let node = |cidr: &str| NodeFacts {
            pod_cidrs: vec![cidr.parse().expect("a range")],
            ..NodeFacts::default()
        };
        let whole = whole(&[node("10.244.0.0/24"), node("10.244.1.0/24"), node("10.244.3.0/24")]);
        assert_eq!(whole, ["10.244.0.0/22".parse::<IpNet>().expect("a range")]);
    }
}
