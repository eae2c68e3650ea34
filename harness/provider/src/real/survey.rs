//! What a cluster is, as far as cases must know: nodes, ranges, and what of them is in use.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use http::Method;
use ipnet::IpNet;
use serde_json::{Value, json};
use touchstone_agent::Agent;
use touchstone_spec::Family;
use touchstone_spec::api::ZONE_LABEL;

use super::access::Access;
use super::trouble;
use crate::ClusterError;

/// Interfaces whose addresses are no node's own: Services' and name caches'.
const NOT_THE_NODES: [&str; 2] = ["kube-ipvs0", "nodelocaldns"];
/// Node ports that one run hands out at most.
const PORTS: u16 = 600;
/// Node ports of a cluster whose API server was told nothing else.
const NODE_PORTS: (u16, u16) = (30_000, 32_767);
/// The low node ports are left to those who choose theirs by hand (KEP-3668).
const CHOSEN_BY_HAND: u16 = 86;

/// A node that can carry agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundNode {
    pub(super) name: String,
    pub(super) zone: Option<String>,
    pub(super) internal: Vec<IpAddr>,
    pub(super) pod_cidrs: Vec<IpNet>,
}

/// The cluster's name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameServer {
    /// Cluster IPs of its Service.
    pub(super) service: Vec<IpAddr>,
    /// Names and addresses of its pods.
    pub(super) pods: Vec<(String, Vec<IpAddr>)>,
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) version: String,
    /// Nodes that are ready, those first that anybody's pods may stand on.
    pub(super) nodes: Vec<FoundNode>,
    /// Nodes that cannot be used, with the reason.
    pub(super) unfit: Vec<String>,
    pub(super) service_cidrs: Vec<IpNet>,
    pub(super) addresses_in_use: BTreeSet<IpAddr>,
    pub(super) ports_in_use: BTreeSet<u16>,
    pub(super) name_server: Option<NameServer>,
}

/// Looks at a cluster.
pub(super) async fn survey(access: &Access) -> Result<Found, ClusterError> {
    let (version, nodes, ranges, services) = tokio::try_join!(
        access.version(),
        access.list("/api/v1/nodes", ""),
        service_cidrs(access),
        access.list("/api/v1/services", ""),
    )?;
    let mut fit: Vec<(bool, FoundNode)> = Vec::new();
    let mut unfit = Vec::new();
    for node in &nodes {
        match why_unfit(node) {
            Some(why) => unfit.push(format!("{}: {why}", text(&node["metadata"]["name"]))),
            None => fit.push((has_taints(node), found_node(node))),
        }
    }
    fit.sort_by(|(a_taints, a), (b_taints, b)| (a_taints, &a.name).cmp(&(b_taints, &b.name)));
    let nodes: Vec<FoundNode> = fit.into_iter().map(|(_, node)| node).collect();
    if nodes.is_empty() {
        let why = if unfit.is_empty() { "it has none".to_owned() } else { unfit.join("; ") };
        return Err(ClusterError::new(
            format!("no node of {} can carry an agent", access.server()),
            format!("{why}; `kubectl get nodes` must show nodes that are Ready"),
        ));
    }
    let name_server = name_server(access, &services).await?;
    Ok(Found {
        version,
        nodes,
        unfit,
        service_cidrs: ranges,
        addresses_in_use: services
            .iter()
            .flat_map(|service| ips(&service["spec"]["clusterIPs"]))
            .collect(),
        ports_in_use: services.iter().flat_map(ports_of).collect(),
        name_server,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn ips(value: &Value) -> Vec<IpAddr> {
    items(value).filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

fn ports_of(service: &Value) -> Vec<u16> {
    let spec = &service["spec"];
    items(&spec["ports"])
        .map(|port| &port["nodePort"])
        .chain([&spec["healthCheckNodePort"]])
        .filter_map(|port| u16::try_from(port.as_u64()?).ok())
        .collect()
}

/// Why a node cannot carry agents, if so.
pub(super) fn why_unfit(node: &Value) -> Option<String> {
    let labels = &node["metadata"]["labels"];
    let os = labels["kubernetes.io/os"].as_str().unwrap_or("linux");
    if os != "linux" {
        return Some(format!("it runs {os}"));
    }
    let arch = labels["kubernetes.io/arch"].as_str();
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    if let Some(arch) = arch.filter(|arch| *arch != ours) {
        return Some(format!("it is of another architecture, {arch}, than the agent, {ours}"));
    }
    let ready = items(&node["status"]["conditions"]).find(|c| c["type"] == json!("Ready"));
    match ready {
        Some(ready) if ready["status"] == json!("True") => None,
        Some(ready) => Some(format!("it is not ready: {}", text(&ready["message"]))),
        None => Some("it says nothing of being ready".to_owned()),
    }
}

fn has_taints(node: &Value) -> bool {
    items(&node["spec"]["taints"]).next().is_some()
}

fn found_node(node: &Value) -> FoundNode {
    let internal = items(&node["status"]["addresses"])
        .filter(|address| address["type"] == json!("InternalIP"))
        .filter_map(|address| address["address"].as_str()?.parse().ok());
    let cidrs = items(&node["spec"]["podCIDRs"]).filter_map(|cidr| cidr.as_str()?.parse().ok());
    FoundNode {
        name: text(&node["metadata"]["name"]),
        zone: node["metadata"]["labels"][ZONE_LABEL].as_str().map(str::to_owned),
        internal: internal.collect(),
        pod_cidrs: cidrs.collect(),
    }
}

/// The ranges of cluster IPs, IPv4 first.
async fn service_cidrs(access: &Access) -> Result<Vec<IpNet>, ClusterError> {
    let path = "/apis/networking.k8s.io/v1/servicecidrs";
    let mut ranges = match access.send(Method::GET, path, None).await {
        Ok(list) => items(&list["items"])
            .flat_map(|object| items(&object["spec"]["cidrs"]))
            .filter_map(|cidr| cidr.as_str()?.parse().ok())
            .collect(),
        // Before 1.33 no object says it.
        Err(error) if trouble::code(&error) == Some(404) => told_ranges(access).await,
        Err(error) => return Err(access.failed("list the ranges of cluster IPs", &error)),
    };
    ranges.sort_by_key(|range: &IpNet| Family::of(range.addr()));
    if ranges.is_empty() {
        return Err(ClusterError::new(
            format!("failed to learn the ranges of cluster IPs of {}", access.server()),
            "it lists no ServiceCIDR",
        ));
    }
    Ok(ranges)
}

/// The ranges as the API server tells them when it refuses an address outside of them.
async fn told_ranges(access: &Access) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for (family, outside) in [("IPv4", "192.0.2.1"), ("IPv6", "2001:db8::1")] {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "touchstone-range" },
            "spec": {
                "clusterIP": outside, "ipFamilies": [family], "ports": [{ "port": 80 }],
            },
        });
        let path = "/api/v1/namespaces/default/services?dryRun=All";
        if let Err(kube::Error::Api(status)) = access.send(Method::POST, path, Some(&service)).await
        {
            let words = status.message.split([' ', ',', ')']);
            ranges.extend(words.filter_map(|word| word.parse::<IpNet>().ok()));
        }
    }
    ranges
}

/// The addresses of a node, its InternalIPs first, and whether its kernel limits refusals.
pub(super) async fn look_at(
    node: &FoundNode,
    host: &Agent,
) -> Result<(Vec<IpAddr>, bool), ClusterError> {
    let place = host.look().await.map_err(|why| {
        ClusterError::new(format!("failed to look at the network of {}", node.name), why)
    })?;
    let mut addresses = node.internal.clone();
    for (link, address) in place.addresses {
        if !NOT_THE_NODES.contains(&link.as_str()) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok((addresses, place.refusals_are_few))
}

/// Name and namespace of the Service that clusters give their name server.
const NAME_SERVER: (&str, &str) = ("kube-system", "kube-dns");

async fn name_server(
    access: &Access,
    services: &[Value],
) -> Result<Option<NameServer>, ClusterError> {
    let (namespace, name) = NAME_SERVER;
    let service = services.iter().find(|service| {
        service["metadata"]["namespace"] == json!(namespace)
            && service["metadata"]["name"] == json!(name)
    });
    let Some(service) = service else { return Ok(None) };
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    let of_service = format!("labelSelector=kubernetes.io%2Fservice-name%3D{name}");
    let slices = access.list(&path, &of_service).await?;
    let mut pods: Vec<(String, Vec<IpAddr>)> = Vec::new();
    // One that is on its way out would not answer for long.
    let stays = |endpoint: &&Value| {
        let conditions = &endpoint["conditions"];
        conditions["ready"] != json!(false) && conditions["terminating"] != json!(true)
    };
    for endpoint in slices.iter().flat_map(|slice| items(&slice["endpoints"])).filter(stays) {
        let pod = text(&endpoint["targetRef"]["name"]);
        let addresses = ips(&endpoint["addresses"]);
        match pods.iter_mut().find(|(known, _)| *known == pod) {
            Some((_, known)) => known.extend(addresses),
            None => pods.push((pod, addresses)),
        }
    }
    Ok(Some(NameServer { service: ips(&service["spec"]["clusterIPs"]), pods }))
}

impl Found {
    /// Families that both pods and Services have.
    pub(super) fn families(&self) -> Vec<Family> {
        Family::BOTH
            .into_iter()
            .filter(|family| {
                let has = |ips: &[IpAddr]| ips.iter().any(|ip| Family::of(*ip) == *family);
                self.service_cidrs.iter().any(|range| Family::of(range.addr()) == *family)
                    && self.nodes.iter().all(|node| has(&node.internal))
            })
            .collect()
    }

    /// First and last of the node ports that a run hands out.
    pub(super) fn node_ports(&self, run: &str) -> Result<(u16, u16), ClusterError> {
        let (first, last) = (NODE_PORTS.0 + CHOSEN_BY_HAND, NODE_PORTS.1);
        let mut best: Option<(u16, u16)> = None;
        let mut begin = first;
        for taken in self.ports_in_use.range(first..=last).copied().chain([last + 1]) {
            let longer = best.is_none_or(|(from, to)| taken - begin > to - from + 1);
            if taken > begin && longer {
                best = Some((begin, taken - 1));
            }
            begin = taken + 1;
        }
        let (from, to) = best.ok_or_else(|| {
            ClusterError::new("no node port is free", format!("{first} to {last} are in use"))
        })?;
        let spare = usize::from(to - from + 1).saturating_sub(usize::from(PORTS));
        let skip = u16::try_from(chance(run) % (spare + 1)).unwrap_or(0);
        Ok((from + skip, to.min(from + skip + (PORTS - 1))))
    }
}

/// A number that follows from the run's name, so that runs at the same time seldom meet.
pub(super) fn chance(run: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    usize::try_from(hasher.finish() >> 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ports: &[u16]) -> Found {
        Found {
            version: "v1.37.2".to_owned(),
            nodes: vec![],
            unfit: vec![],
            service_cidrs: vec![],
            addresses_in_use: BTreeSet::new(),
            ports_in_use: ports.iter().copied().collect(),
            name_server: None,
        }
    }

    #[test]
    fn node_ports_are_free() {
        let ports = |taken: &[u16]| found(taken).node_ports("run").expect("ports");
        let (first, last) = ports(&[]);
        assert!(first >= 30_086 && last <= 32_767 && last - first == 599, "{first} to {last}");
        assert_eq!(ports(&[30_500, 31_000, 31_400, 31_800, 32_200]), (32_201, 32_767));
        let all: Vec<u16> = (30_000..=32_767).collect();
        assert!(found(&all).node_ports("run").is_err());
    }

    #[test]
    fn nodes_that_cannot_carry_agents() {
        let node = |os: &str, ready: &str| {
            json!({
                "metadata": { "name": "a", "labels": { "kubernetes.io/os": os } },
                "status": { "conditions": [
                    { "type": "Ready", "status": ready, "message": "kubelet stopped" },
                ] },
            })
        };
        assert_eq!(why_unfit(&node("linux", "True")), None);
        assert!(why_unfit(&node("windows", "True")).is_some_and(|why| why.contains("windows")));
        let why = why_unfit(&node("linux", "False"));
        assert!(why.is_some_and(|why| why.contains("kubelet stopped")));
    }
}
