//! A cluster that somebody else started: agents once for a run, and what each batch of cases gets
//! of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::sync::mpsc;
use touchstone_agent::RemoteServers;
use touchstone_spec::{
    BALANCER, CaseAsks, Change, ClientFacts, ClusterFacts, DnsFacts, FEW_REFUSALS, Family,
    LoadBalancers, NetworkWish, NodeFacts, Observation, Outcome, PodFacts, PodsToNodes,
    ProxySettings, SCTP_NEED, ServerWish,
};

use super::access::{Access, Harm};
use super::agents::{AgentImage, Agents, Shared};
use super::clean;
use super::deployments::Deployments;
use super::keeper::Keeper;
use super::names::Names;
use super::objects::Objects;
use super::preview::{Has, lacks};
use super::running::RealCluster;
use super::seen::{node_facts, serve, whole, without_sctp};
use super::survey::{Found, FoundNode, look_at, survey};
use crate::balancer::Balancer;
use crate::{ClusterError, ClusterRequest, Provider, Started, canary};

/// What may help where a kernel speaks no SCTP.
const LOAD: &str = "`modprobe sctp` on it loads it where its system has that";

/// How long the first look at the network may take.
const LOOK: std::time::Duration = std::time::Duration::from_secs(3);

/// An agent outside of the cluster, whose packets come in by whichever node they should.
#[derive(Debug, Clone)]
pub struct OutsideSeat {
    /// Where the agent listens. It knows the digest of the run's token.
    pub listens: SocketAddr,
    /// The client as cases see it: for each node that is used, in order, the addresses from which
    /// its packets to Services come in by that node.
    pub client: ClientFacts,
}

/// How a run uses a cluster.
#[derive(Clone)]
pub struct SiteRequest {
    /// The cluster.
    pub kubeconfig: PathBuf,
    /// What agents are made of.
    pub image: AgentImage,
    /// Id of the run.
    pub run: String,
    /// The secret of the run, which its agents ask for.
    pub token: String,
    /// Nodes that cases want at most.
    pub nodes: usize,
    /// Cluster IPs of one family that all cases together want at most.
    pub addresses: usize,
    /// Families that the proxy says it serves.
    pub served: Vec<Family>,
    /// Whether it may do what harms a shared cluster.
    pub harm: Harm,
    /// Clients outside of the cluster.
    pub outside: Vec<OutsideSeat>,
    /// Who may change proxies and nodes, where somebody may.
    pub keeper: Option<Arc<dyn Keeper>>,
}

/// A cluster with the agents of a run in it.
pub struct Site {
    access: Access,
    names: Names,
    run: String,
    found: Found,
    /// The nodes that are used.
    used: Vec<FoundNode>,
    /// Their facts, as cases call them: n1, n2, ….
    nodes: Mutex<Vec<NodeFacts>>,
    real: BTreeMap<String, String>,
    network: NetworkWish,
    /// Families that the proxy says it serves.
    served: Vec<Family>,
    /// Cluster IPs of one family that all cases together want at most.
    addresses: usize,
    /// Which node's kernel speaks no SCTP, if there is one.
    without_sctp: Option<String>,
    /// Whether nodes limit how many refusals they send.
    refusals_are_few: bool,
    agents: Shared,
    deployments: Arc<Deployments>,
    outside: Vec<ClientFacts>,
    /// The load balancer with addresses of its own.
    balancer: Option<ClientFacts>,
    keeper: Option<Arc<dyn Keeper>>,
    started: AtomicUsize,
    /// Servers of the client pods.
    answering: Mutex<Vec<RemoteServers>>,
}

impl Site {
    /// Looks at the cluster, puts agents into it and connects to them; `tell` is told what is
    /// waited for.
    ///
    /// # Errors
    /// When the cluster cannot be used, with the remedy; what was made by then is removed.
    pub async fn open(
        request: &SiteRequest,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Site, ClusterError> {
        tell(&format!("looking at the cluster of {}", request.kubeconfig.display()));
        let access = Access::open(&request.kubeconfig, request.harm).await?;
        let found = survey(&access).await?;
        let names = Names::of(&request.run);
        match Site::people(request, access.clone(), names.clone(), found, tell).await {
            Ok(site) => Ok(site),
            Err(error) => {
                for remark in clean::remove(&access, &names.tag).await {
                    tell(&remark);
                }
                Err(error)
            }
        }
    }

    async fn people(
        request: &SiteRequest,
        access: Access,
        names: Names,
        found: Found,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Site, ClusterError> {
        let used: Vec<FoundNode> = found.nodes.iter().take(request.nodes.max(1)).cloned().collect();
        let real = real_names(&found, request.nodes);
        let mut home = names.namespace(&names.home());
        // Agents on the nodes' own network are not for every namespace.
        home["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "privileged".into();
        access.need("/api/v1/namespaces", &home).await?;
        let agents = Arc::new(Agents::new(
            access.clone(),
            names.clone(),
            request.image.clone(),
            request.token.clone(),
            real.clone(),
        ));
        // They run already, and nobody has talked to them yet.
        for seat in &request.outside {
            agents.seat(&seat.client.name, seat.listens).await?;
        }
        let mut posts = Vec::new();
        for node in real.keys() {
            posts.push(agents.post(format!("client-{node}"), node, false)?);
            posts.push(agents.post(format!("host-{node}"), node, true)?);
        }
        tell(&format!(
            "waiting for {} agents of {} on {} in {}",
            posts.len(),
            request.image.reference,
            real.values().cloned().collect::<Vec<_>>().join(", "),
            names.home()
        ));
        let manned = agents.man(&posts).await?;
        let (nodes, refusals_are_few) = node_facts(&used, &manned).await?;
        let answering = serve(&manned, &nodes).await?;
        let without_sctp = without_sctp(&manned).await;
        let deployments = Deployments::new(access.clone(), names.clone(), Arc::clone(&agents));
        let clients = request.outside.iter().map(|seat| seat.client.clone());
        let (balancer, outside): (Vec<_>, Vec<_>) =
            clients.partition(|client| client.name == BALANCER);
        let mut site = Site {
            deployments: Arc::new(deployments),
            access,
            names,
            run: request.run.clone(),
            found: found.clone(),
            used,
            nodes: Mutex::new(nodes),
            real,
            network: NetworkWish::default(),
            served: request.served.clone(),
            addresses: request.addresses,
            without_sctp,
            refusals_are_few,
            agents,
            outside,
            balancer: balancer.into_iter().next(),
            keeper: request.keeper.clone(),
            started: AtomicUsize::new(0),
            answering: Mutex::new(answering),
        };
        site.network.pods_to_nodes = site.look_at_sources().await?;
        for remark in site.found.short_of_room(&site.families(), site.addresses) {
            tell(&remark);
        }
        Ok(site)
    }

    /// Whether pods' packets to other nodes arrive under the address of the pod's node.
    async fn look_at_sources(&self) -> Result<Option<PodsToNodes>, ClusterError> {
        let nodes = self.nodes();
        let [from, .., to] = nodes.as_slice() else { return Ok(None) };
        let Some(address) = to.addresses.first().copied() else { return Ok(None) };
        let port = touchstone_spec::CLIENT_PORT;
        let failed =
            |why: String| ClusterError::new("failed to look at the cluster's network", why);
        let wish = ServerWish {
            place: to.name.clone(),
            address,
            port,
            protocol: touchstone_spec::Protocol::Tcp,
        };
        let host = self.agents.at(&to.name).ok_or_else(|| failed("no agent".to_owned()))?;
        let server = host.serve(vec![wish]).await.map_err(failed)?;
        let client = self.agents.at(&from.client.place).ok_or_else(|| failed("no agent".into()))?;
        let Some(flow) = canary::direct(&from.client, address) else { return Ok(None) };
        let saw = client.probe(&flow, LOOK).await;
        drop(server);
        match saw {
            Observation::Saw(Outcome::Reached { source, .. }) => {
                let own = from.client.addresses.contains(&source);
                Ok((!own).then_some(PodsToNodes::Masqueraded))
            }
            // A firewall between pods and nodes is the cluster's own affair.
            Observation::Saw(_) => Ok(None),
            Observation::ProbeBroke(why) => Err(failed(why)),
        }
    }

    /// What it is, for the record of a run.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let Found { version, unfit, .. } = &self.found;
        let mut remarks = vec![format!("Kubernetes {version} at {}", self.access.server())];
        remarks.extend(self.real.iter().map(|(node, real)| format!("{node} is {real}")));
        remarks.extend(unfit.iter().map(|why| format!("a node is not used: {why}")));
        if self.refusals_are_few {
            remarks.push(format!("nodes send few refusals: {FEW_REFUSALS}"));
        }
        if self.network.pods_to_nodes.is_some() {
            remarks.push("pods reach other nodes under the address of their own".to_owned());
        }
        if let Some(why) = &self.without_sctp {
            remarks
                .push(format!("no case of SCTP runs, for not every node has it ({why}); {LOAD}"));
        }
        remarks.extend(self.found.short_of_room(&self.families(), self.addresses));
        remarks
    }

    /// What not every cluster can: what whoever owns its nodes can do, and what their kernels have.
    #[must_use]
    pub fn provides(&self) -> BTreeSet<String> {
        let mut provides = self.keeper.as_ref().map(|keeper| keeper.provides()).unwrap_or_default();
        if self.without_sctp.is_none() {
            provides.insert(SCTP_NEED.to_owned());
        }
        provides
    }

    /// Release of the cluster: `v1.37.2`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.found.version
    }

    /// Removes everything that the run made; says what could not be removed.
    pub async fn remove(&self) -> Vec<String> {
        clean::remove(&self.access, &self.names.tag).await
    }

    /// Every kind of request that was made: verb and resource.
    #[must_use]
    pub fn used(&self) -> Vec<(String, String)> {
        let used = self.access.used().into_iter();
        used.map(|asked| (asked.verb.to_owned(), asked.resource)).collect()
    }

    fn nodes(&self) -> Vec<NodeFacts> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces agents that are gone, with new pods; also those that could not be replaced before.
    async fn mend(&self, number: usize) -> Result<(), ClusterError> {
        self.agents.bury();
        let mut posts = Vec::new();
        for node in self.nodes() {
            if self.agents.at(&node.client.place).is_none() {
                posts.push(self.agents.post(
                    format!("client-{}-{number}", node.name),
                    &node.name,
                    false,
                )?);
            }
            if self.agents.at(&node.name).is_none() {
                posts.push(self.agents.post(
                    format!("host-{}-{number}", node.name),
                    &node.name,
                    true,
                )?);
            }
        }
        if posts.is_empty() {
            return Ok(());
        }
        let manned = self.agents.man(&posts).await?;
        let nodes = {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            for manned in manned.iter().filter(|manned| manned.facts.place != manned.facts.node) {
                if let Some(node) = nodes.iter_mut().find(|node| node.name == manned.facts.node) {
                    node.client = manned.facts.clone();
                }
            }
            nodes.clone()
        };
        let more = serve(&manned, &nodes).await?;
        self.answering.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
        Ok(())
    }

    /// Has proxies and nodes be as a request asks for, where somebody may change them.
    async fn settle(&self, request: &ClusterRequest, number: usize) -> Result<(), ClusterError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let facts = self.facts(request, number)?;
        let nodes: Vec<String> = self.used.iter().map(|node| node.name.clone()).collect();
        keeper.settle(&request.shape, &facts, &nodes).await?;
        // Nodes may have other addresses now.
        let mut looked = self.nodes();
        for (node, found) in looked.iter_mut().zip(&self.used) {
            if let Some(host) = self.agents.at(&node.name) {
                node.addresses = look_at(found, &host).await?.0;
            }
        }
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = looked;
        Ok(())
    }

    /// Families that the cluster has and that its proxy serves: nobody waits for others.
    fn families(&self) -> Vec<Family> {
        let mut families = self.found.families();
        families.retain(|family| self.served.contains(family));
        let nodes = self.nodes();
        families.retain(|family| nodes.iter().all(|node| node.client.address(*family).is_some()));
        families
    }

    fn facts(&self, request: &ClusterRequest, number: usize) -> Result<ClusterFacts, ClusterError> {
        let families = self.families();
        let of_family = |range: &IpNet| families.contains(&Family::of(range.addr()));
        let mut facts = ClusterFacts::planned(&request.shape);
        let zones = facts.nodes.iter().map(|node| node.zone.clone()).collect::<Vec<_>>();
        facts.nodes = self.nodes();
        facts.nodes.truncate(zones.len());
        for (node, zone) in facts.nodes.iter_mut().zip(zones) {
            node.zone = zone;
        }
        facts.outside = self.outside.clone();
        let own = request.shape.network.load_balancers == Some(LoadBalancers::NodePort);
        facts.balancer = self.balancer.clone().filter(|_| own);
        facts.pod_cidrs = whole(&facts.nodes);
        facts.service_cidrs = self.found.blocks(&families, &self.run, number, self.addresses)?;
        facts.load_balancer_cidrs.retain(of_family);
        facts.external_ip_cidrs.retain(of_family);
        facts.node_ports = self.found.node_ports(&self.run)?;
        facts.network = request.shape.network.clone();
        if facts.network.pods_to_nodes.is_none() {
            facts.network.pods_to_nodes = self.network.pods_to_nodes;
        }
        facts.proxy = ProxySettings::of(
            &request.shape.proxy,
            &facts.nodes,
            &facts.pod_cidrs,
            &facts.service_cidrs,
        );
        let name_server = self.found.name_server.as_ref().filter(|_| request.shape.dns);
        facts.dns = name_server.map(|found| DnsFacts {
            service: found.service.clone(),
            servers: found
                .pods
                .iter()
                .map(|(pod, addresses)| PodFacts {
                    place: pod.clone(),
                    node: String::new(),
                    addresses: addresses.clone(),
                })
                .collect(),
        });
        facts.mode = None;
        facts.namespaces = self.names.of_cases(&request.name);
        facts.unhandled_is_silent = true;
        facts.refusals_are_few = self.refusals_are_few;
        Ok(facts)
    }
}

/// What gives nodes the zones that cases want, and what gives them back those that were found.
pub(super) fn zones(found: &[NodeFacts], wanted: &[NodeFacts]) -> (Vec<Change>, Vec<Change>) {
    let found = found.iter().take(wanted.len());
    (wanted.iter().map(Change::zone_of).collect(), found.map(Change::zone_of).collect())
}

/// The tag of a run with that id: the value of its label.
#[must_use]
pub fn tag(run: &str) -> String {
    Names::of(run).tag
}

/// What cases call the nodes that are used.
pub(super) fn real_names(found: &Found, nodes: usize) -> BTreeMap<String, String> {
    let used = found.nodes.iter().take(nodes.max(1));
    (1..).zip(used).map(|(number, node)| (format!("n{number}"), node.name.clone())).collect()
}

#[async_trait]
impl Provider for Site {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn notices_exits(&self) -> bool {
        false
    }

    fn lacks(&self, asks: &CaseAsks) -> Option<String> {
        let has = Has {
            nodes: self.used.len(),
            outside: self.outside.len(),
            families: &self.families(),
            harm: self.access.harm(),
            keeper: self.keeper.as_deref(),
            name_server: self.found.name_server.as_ref(),
        };
        lacks(asks, &has)
    }

    fn why_lacking(&self, need: &str) -> String {
        match &self.without_sctp {
            Some(why) if need == SCTP_NEED => {
                format!("SCTP in every node's kernel ({why}); {LOAD}")
            }
            Some(_) | None => need.to_owned(),
        }
    }

    async fn start(&self, request: &ClusterRequest) -> Result<Started, ClusterError> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        self.mend(number).await?;
        self.settle(request, number).await?;
        let facts = self.facts(request, number)?;
        let objects = Objects::new(self.access.clone(), self.names.clone(), self.real.clone());
        let families = self.families();
        let namespace = self.names.home();
        let mut canary = canary::objects(&facts, &namespace, &families);
        for change in &mut canary {
            rename(change, &request.name);
            objects.apply(change).await?;
        }
        let mut undo: Vec<Change> = canary.iter().filter_map(removal).collect();
        if self.access.harm() == Harm::Allowed {
            // What proxies read of their nodes must be what the cases say.
            let (wanted, found) = zones(&self.nodes(), &facts.nodes);
            undo.extend(found);
            for change in &wanted {
                objects.apply(change).await?;
            }
        }
        let cluster = RealCluster {
            agents: Arc::clone(&self.agents),
            objects,
            keeper: self.keeper.clone(),
            deployments: Arc::clone(&self.deployments),
            undo,
            flows: canary::flows(&facts, &families),
            unready: OnceLock::new(),
            balancer: Balancer::default(),
            services: Mutex::default(),
            how_to_join: vec![format!("kubectl --namespace {namespace} get pods --output wide")],
            facts,
        };
        let (_tell, notices) = mpsc::unbounded_channel();
        Ok(Started {
            cluster: Box::new(cluster),
            notices,
            took: BTreeMap::new(),
            configuration: BTreeMap::new(),
            remarks: self.remarks(),
        })
    }
}

/// Several batches may have a canary at a time.
fn rename(change: &mut Change, cluster: &str) {
    use touchstone_spec::api::SERVICE_NAME_LABEL;
    match change {
        Change::ApplyService(service) => service.metadata.name.push_str(&format!("-{cluster}")),
        Change::ApplySlice(slice) => {
            slice.metadata.name.push_str(&format!("-{cluster}"));
            if let Some(name) = slice.metadata.labels.get_mut(SERVICE_NAME_LABEL) {
                name.push_str(&format!("-{cluster}"));
            }
        }
        Change::ApplyRawSlice(_)
        | Change::Deploy(_)
        | Change::DeleteService { .. }
        | Change::DeleteSlice { .. }
        | Change::SetNode { .. }
        | Change::Proxy { .. }
        | Change::ProxyRefuses { .. }
        | Change::VirtualServer { .. }
        | Change::ReloadFirewall { .. } => {}
    }
}

fn removal(change: &Change) -> Option<Change> {
    match change {
        Change::ApplyService(service) => Some(Change::DeleteService {
            namespace: service.metadata.namespace.clone(),
            name: service.metadata.name.clone(),
        }),
        Change::ApplySlice(slice) => Some(Change::DeleteSlice {
            namespace: slice.metadata.namespace.clone(),
            name: slice.metadata.name.clone(),
        }),
        Change::ApplyRawSlice(_)
        | Change::Deploy(_)
        | Change::DeleteService { .. }
        | Change::DeleteSlice { .. }
        | Change::SetNode { .. }
        | Change::Proxy { .. }
        | Change::ProxyRefuses { .. }
        | Change::VirtualServer { .. }
        | Change::ReloadFirewall { .. } => None,
    }
}
