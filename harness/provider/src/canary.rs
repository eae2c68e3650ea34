//! The canary: a Service that answers from every node in every family once a proxy is there; what
//! every client pod does for it, and the check of the network past it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use touchstone_spec::api::{Conditions, Endpoint};
use touchstone_spec::{
    CLIENT_PORT, Change, Client, ClientKind, ClusterFacts, Family, Flow, FrontendKind, NodeFacts,
    Observation, Outcome, PlainPort, PlainService, PodFacts, Protocol, ServerWish,
};

use crate::{Broken, Cluster};

/// Host number of its cluster IPs in the Service ranges.
const HOST: u32 = 7;
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long one look waits.
const LOOK_WAIT: Duration = Duration::from_millis(300);
/// How long one control attempt may take.
const CONTROL_WAIT: Duration = Duration::from_secs(3);

/// Every client pod answers on [`CLIENT_PORT`].
pub(crate) fn servers(facts: &ClusterFacts) -> Vec<ServerWish> {
    facts
        .nodes
        .iter()
        .flat_map(|node| {
            node.client.addresses.iter().map(|address| ServerWish {
                place: node.client.place.clone(),
                address: *address,
                port: CLIENT_PORT,
                protocol: Protocol::Tcp,
            })
        })
        .collect()
}

/// Its cluster IP.
fn address(facts: &ClusterFacts, family: Family) -> Option<IpAddr> {
    let range = facts.service_cidrs.iter().find(|r| Family::of(r.addr()) == family)?;
    Some(match range.network() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) + HOST).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) + u128::from(HOST)).into()),
    })
}

/// The Service and its slices.
pub(crate) fn objects(facts: &ClusterFacts, namespace: &str, families: &[Family]) -> Vec<Change> {
    PlainService {
        namespace,
        name: "canary",
        ips: families.iter().filter_map(|family| address(facts, *family)).collect(),
        ports: &[PlainPort {
            name: "",
            protocol: Protocol::Tcp,
            port: CLIENT_PORT,
            target_port: CLIENT_PORT,
        }],
    }
    .changes(|family| {
        let client = |node: &NodeFacts| {
            Some(Endpoint {
                addresses: vec![node.client.address(family)?.to_string()],
                node_name: Some(node.name.clone()),
                // As controllers write them: not every proxy takes what is not said for ready, and
                // whether it does is for a case to show.
                conditions: Conditions {
                    ready: Some(true),
                    serving: Some(true),
                    terminating: Some(false),
                },
                ..Endpoint::default()
            })
        };
        facts.nodes.iter().filter_map(client).collect()
    })
}

/// Flows that must reach it: from every client pod in every family.
pub(crate) fn flows(facts: &ClusterFacts, families: &[Family]) -> Vec<Flow> {
    let mut flows = Vec::new();
    for family in families {
        for node in &facts.nodes {
            let (Some(ip), Some(address)) = (address(facts, *family), node.client.address(*family))
            else {
                continue;
            };
            flows.push(Flow {
                client: Client {
                    kind: ClientKind::Pod,
                    place: node.client.place.clone(),
                    node: Some(node.name.clone()),
                    address,
                },
                via: None,
                to: SocketAddr::new(ip, CLIENT_PORT),
                protocol: Protocol::Tcp,
                frontend: FrontendKind::ClusterIp,
                question: None,
                size: 0,
                source_port: None,
                http: None,
                text: format!("the canary Service from {} over {family}", node.name),
            });
        }
    }
    flows
}

/// Sends flows until each was answered rightly once; `proxy` says whose fault it is when one that
/// could be sent is not within `limit`.
pub(crate) async fn answered(
    cluster: &dyn Cluster,
    flows: &[Flow],
    is_right: fn(&Observation) -> bool,
    limit: Duration,
    proxy: bool,
) -> Result<(), Broken> {
    let began = Instant::now();
    let mut waiting = flows.to_vec();
    let mut tick = tokio::time::interval(INTERVAL);
    while !waiting.is_empty() {
        tick.tick().await;
        let looks = waiting.iter().map(|flow| cluster.probe(flow, LOOK_WAIT));
        let seen = futures::future::join_all(looks).await;
        let late: Vec<(Flow, Observation)> =
            waiting.into_iter().zip(seen).filter(|(_, saw)| !is_right(saw)).collect();
        if let Some(broken) = cluster.broken() {
            return Err(broken);
        }
        if began.elapsed() > limit
            && let Some(broken) = given_up(&late, limit, proxy)
        {
            return Err(broken);
        }
        waiting = late.into_iter().map(|(flow, _)| flow).collect();
    }
    Ok(())
}

/// Whether an endpoint answered.
pub(crate) fn is_reached(saw: &Observation) -> bool {
    matches!(saw, Observation::Saw(Outcome::Reached { .. }))
}

/// Which of the flows is not answered rightly in time, and whose fault that is.
fn given_up(late: &[(Flow, Observation)], limit: Duration, proxy: bool) -> Option<Broken> {
    let (first, saw) = late.first()?;
    let why = format!(
        "{} does not answer within {} s (last seen: {})",
        first.text,
        limit.as_secs(),
        said(saw)
    );
    // What could not be asked says nothing about who did not answer.
    let asked = !late.iter().any(|(_, saw)| matches!(saw, Observation::ProbeBroke(_)));
    Some(Broken { why, proxy: proxy && asked })
}

fn said(saw: &Observation) -> String {
    match saw {
        Observation::Saw(outcome) => outcome.to_string(),
        Observation::ProbeBroke(why) => why.clone(),
    }
}

/// Checks the cluster's own network past any proxy: every client pod reaches every other.
///
/// # Errors
/// The first that does not, and what was seen.
pub(crate) async fn control(cluster: &dyn Cluster) -> Result<(), String> {
    for from in &cluster.facts().nodes {
        for to in &cluster.facts().nodes {
            for address in &to.client.addresses {
                let Some(flow) = direct(&from.client, *address) else { continue };
                match cluster.probe(&flow, CONTROL_WAIT).await {
                    Observation::Saw(Outcome::Reached { resent: 0, .. }) => {}
                    other @ (Observation::Saw(_) | Observation::ProbeBroke(_)) => {
                        return Err(format!("{}: {}", flow.text, said(&other)));
                    }
                }
            }
        }
    }
    Ok(())
}

/// From a pod straight to where a client pod answers.
pub(crate) fn direct(from: &PodFacts, to: IpAddr) -> Option<Flow> {
    Some(Flow {
        client: Client {
            kind: ClientKind::Pod,
            place: from.place.clone(),
            node: Some(from.node.clone()),
            address: from.address(Family::of(to))?,
        },
        via: None,
        to: SocketAddr::new(to, CLIENT_PORT),
        protocol: Protocol::Tcp,
        frontend: FrontendKind::Direct,
        question: None,
        size: 0,
        source_port: None,
        http: None,
        text: format!("{} → {to}", from.place),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_asked_is_nobodys_fault() {
        let facts = ClusterFacts::planned(&Default::default());
        let flows = flows(&facts, &Family::BOTH);
        let silent = || Observation::Saw(Outcome::Dropped);
        let unasked = || Observation::ProbeBroke("the agent is gone".to_owned());
        let of_the_proxy = |saw: [Observation; 2], proxy: bool| {
            let late: Vec<_> = flows.iter().cloned().zip(saw).collect();
            given_up(&late, Duration::from_secs(30), proxy).map(|broken| broken.proxy)
        };
        assert_eq!(of_the_proxy([silent(), silent()], true), Some(true));
        assert_eq!(of_the_proxy([silent(), silent()], false), Some(false));
        assert_eq!(of_the_proxy([silent(), unasked()], true), Some(false));
        assert_eq!(of_the_proxy([unasked(), silent()], true), Some(false));
        assert!(given_up(&[], Duration::from_secs(30), true).is_none());
    }
}
