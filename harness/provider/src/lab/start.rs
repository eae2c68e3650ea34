//! From a request to a cluster that answers on every node and family.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::mpsc::{self, UnboundedSender};
use touchstone_apiserver::{ApiServer, Config, Lie, ServeHandle};
use touchstone_netlab::{Joined, NodeShape, Offloads, Shape, Topology};
use touchstone_spec::{
    ApiService, BALANCER, CaseAsks, ClusterFacts, Family, LoadBalancers, NodesJoined, Page,
    PodFacts, PodWish, ProxySettings,
};
use touchstone_subject::Launch;

use super::cluster::LabCluster;
use super::dns::{self, FirstQuestions, NameServer};
use super::launcher::Launcher;
use super::listen::listen;
use super::places::{Places, lab_family};
use super::proxy::Proxy;
use super::{Lab, backend, endpoints, objects, surroundings};
use crate::balancer::Balancer;
use crate::{ClusterError, ClusterRequest, Notice, Provider, Started, canary};

/// Port of the API server on the loopback of every node.
pub(super) const API_PORT: u16 = 6443;
/// What the API server calls whoever comes by its Service.
const PROGRAMS: &str = "programs";
/// Namespace of the canary's objects.
const CANARY_NAMESPACE: &str = "touchstone";

#[async_trait]
impl Provider for Lab {
    fn name(&self) -> &'static str {
        "lab"
    }

    fn lacks(&self, asks: &CaseAsks) -> Option<String> {
        asks.controllers.then(|| {
            "controllers that run pods and list them as endpoints: only real clusters have them, \
             such as those of --provider kind"
                .to_owned()
        })
    }

    async fn start(&self, request: &ClusterRequest) -> Result<Started, ClusterError> {
        let mut clock = Clock::default();
        let shape = shape(request);
        let wish = &request.shape.network;
        let topology = tokio::task::block_in_place(|| Topology::new(&shape))
            .map_err(|error| ClusterError::new("failed to make the lab's network", error))?;
        let topology = Arc::new(topology);
        tokio::task::block_in_place(|| {
            topology.nodes().try_for_each(|node| backend::prepare(node, wish))?;
            surroundings::load(&topology, wish)
        })?;
        let places = Arc::new(Places::new(Arc::clone(&topology)));
        let wishes: Vec<PodWish> = request
            .shape
            .node_names()
            .into_iter()
            .map(|node| PodWish {
                key: format!("client of {node}"),
                node,
                addresses: 1,
                deployed: false,
            })
            .collect();
        let clients = tokio::task::block_in_place(|| places.take(&wishes))?;
        let mut facts = facts(request, &topology, clients);
        if let (Some(dns), Some(node)) = (&mut facts.dns, request.shape.node_names().pop()) {
            let wish =
                PodWish { key: "name server".to_owned(), node, addresses: 1, deployed: false };
            dns.servers = tokio::task::block_in_place(|| places.take(&[wish]))?;
        }
        clock.lap("topology");

        let api = ApiServer::new(Config {
            service_cidrs: facts.service_cidrs.clone(),
            node_ports: facts.node_ports.0..=facts.node_ports.1,
        });
        api.set_lies(self.lies_to_proxies(&facts));
        let serving = self.serve(&api, &topology, &facts)?;
        self.create_nodes(&api, &facts, &topology)?;
        clock.lap("api");

        let answering = listen(&places, &canary::servers(&facts)).await?;
        let mut families = self.families();
        families.retain(|family| facts.network.has(*family));
        let (tell, notices) = mpsc::unbounded_channel();
        let launcher = Launcher {
            selection: Arc::clone(&self.selection),
            resolved: Arc::clone(&self.resolved),
        };
        // Before the proxies, so that their first lists have them.
        let canary = canary::objects(&facts, CANARY_NAMESPACE, &families);
        let names = facts.dns.iter().flat_map(|dns| dns::objects(dns, &families));
        let own = facts.api.iter().flat_map(ApiService::changes);
        for change in canary.into_iter().chain(names).chain(own) {
            objects::apply(&api, &change)?;
            if launcher.reads_endpoints() {
                endpoints::follow(&api, &change)?;
            }
        }
        let proxies = self.proxies(&launcher, request, &facts, &places, &topology, &tell)?;
        for proxy in proxies.values() {
            proxy.start()?;
        }
        self.name_pages(&mut facts, &proxies);
        let configuration = proxies
            .iter()
            .map(|(node, proxy)| (node.clone(), configuration(proxy.launch())))
            .collect();
        let name_server = self.name_server(request, &facts, &places, &api)?;
        let remarks = remarks(&topology);
        let mut canary = canary::flows(&facts, &families);
        canary.retain(|flow| {
            flow.client.node.as_ref().is_none_or(|node| !self.without_proxy.contains(node))
        });
        let first_questions = FirstQuestions::of(&facts, &families, &self.without_proxy);
        let cluster = LabCluster {
            facts,
            api,
            places,
            topology,
            proxies,
            launcher,
            name_server,
            sabotage: self.sabotage.clone(),
            canary,
            first_questions,
            ready_limit: self.ready_limit,
            unready: OnceLock::new(),
            balancer: Balancer::default(),
            _serving: Mutex::new(serving),
            _answering: Mutex::new(answering),
        };
        clock.lap("proxy");
        Ok(Started {
            cluster: Box::new(cluster),
            notices,
            took: clock.laps,
            configuration,
            remarks,
        })
    }
}

impl Lab {
    /// One listener of the API server per node, one for a person, and one where its Service leads.
    fn serve(
        &self,
        api: &ApiServer,
        topology: &Topology,
        facts: &ClusterFacts,
    ) -> Result<Vec<ServeHandle>, ClusterError> {
        let failed = |who: &str, why: &dyn std::fmt::Display| {
            ClusterError::new(format!("failed to serve the API to {who}"), why)
        };
        let mut serving = Vec::new();
        for node in topology.nodes() {
            let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), API_PORT);
            let listener = node
                .namespace()
                .tcp_listener(address)
                .map_err(|error| failed(node.name(), &error))?;
            let handle = api
                .serve(listener, node.name(), None)
                .map_err(|error| failed(node.name(), &error))?;
            serving.push(handle);
        }
        for (node, address) in facts.api.iter().flat_map(|api| &api.servers) {
            let failed = |why: &dyn std::fmt::Display| failed(PROGRAMS, why);
            let Some(node) = topology.node(node) else { continue };
            let address = SocketAddr::new(*address, ApiService::TARGET_PORT);
            let listener = node.namespace().tcp_listener(address).map_err(|e| failed(&e))?;
            serving.push(api.serve(listener, PROGRAMS, None).map_err(|error| failed(&error))?);
        }
        if let Some(person) = &self.person {
            let listener = person.listener.try_clone().map_err(|e| failed("a person", &e))?;
            let handle = api
                .serve(listener, "person", Some(person.token.clone()))
                .map_err(|error| failed("a person", &error))?;
            serving.push(handle);
        }
        Ok(serving)
    }

    /// The lies, told to nobody but proxies where a name server listens too: what it says is no
    /// proxy's doing.
    ///
    /// What a cluster must show to count as ready is told truly: a lie that hides it would look
    /// like a proxy that never starts.
    fn lies_to_proxies(&self, facts: &ClusterFacts) -> Vec<Lie> {
        let told_to_all = |lie: &Lie| lie.watcher.is_none() && facts.dns.is_some();
        let each = |lie: &Lie| -> Vec<Lie> {
            let nodes = facts.nodes.iter().map(|node| Some(node.name.clone()));
            nodes.map(|watcher| Lie { watcher, ..lie.clone() }).collect()
        };
        let spared = [CANARY_NAMESPACE, dns::NAMESPACE].map(str::to_owned);
        let spare = |lie: &Lie| Lie { spared: spared.clone().into(), ..lie.clone() };
        self.lies
            .iter()
            .map(spare)
            .flat_map(|lie| if told_to_all(&lie) { each(&lie) } else { vec![lie] })
            .collect()
    }

    /// The name server, where the shape asks for one.
    fn name_server(
        &self,
        request: &ClusterRequest,
        facts: &ClusterFacts,
        places: &Places,
        api: &ApiServer,
    ) -> Result<Option<NameServer>, ClusterError> {
        let Some(dns) = &facts.dns else { return Ok(None) };
        let lacking = |why: &str| ClusterError::new("failed to start a name server", why);
        let program = self.name_server.as_ref().ok_or_else(|| {
            lacking("its program was not found; `touchstone subject fetch coredns` gets it")
        })?;
        let pod = dns.servers.first().ok_or_else(|| lacking("it has no pod"))?;
        let subject = &self.selection;
        let log = self.logs.as_ref().map(|folder| {
            folder.join(format!(
                "{}-{}-{}-coredns.log",
                subject.subject.name, subject.mode, request.name
            ))
        });
        NameServer::start(program, pod, places, api, log.as_ref()).map(Some)
    }

    fn create_nodes(
        &self,
        api: &ApiServer,
        facts: &ClusterFacts,
        topology: &Topology,
    ) -> Result<(), ClusterError> {
        for node in &facts.nodes {
            let cidrs: Vec<String> = topology
                .node(&node.name)
                .map(|node| {
                    let ranges = node.families().iter().map(|family| node.pod_range(*family));
                    ranges.map(|range| range.to_string()).collect()
                })
                .unwrap_or_default();
            api.create(objects::node(node, &cidrs)).map_err(|status| {
                ClusterError::new(format!("failed to create node {}", node.name), status)
            })?;
        }
        Ok(())
    }

    fn proxies(
        &self,
        launcher: &Launcher,
        request: &ClusterRequest,
        facts: &ClusterFacts,
        places: &Places,
        topology: &Arc<Topology>,
        tell: &UnboundedSender<Notice>,
    ) -> Result<BTreeMap<String, Arc<Proxy>>, ClusterError> {
        let mut proxies = BTreeMap::new();
        for node in facts.nodes.iter().filter(|node| !self.without_proxy.contains(&node.name)) {
            let launch = launcher.launch(node, &request.shape.proxy, facts, places)?;
            let proxy = Proxy::new(
                &node.name,
                Arc::clone(topology),
                Arc::clone(&self.selection),
                Arc::clone(&self.resolved),
                launch,
                self.log_file(&request.name, &node.name)?,
                tell.clone(),
            );
            proxies.insert(node.name.clone(), proxy);
        }
        Ok(proxies)
    }

    /// Where the proxies serve pages about themselves. A node without a proxy keeps the planned
    /// places, where nobody answers.
    fn name_pages(&self, facts: &mut ClusterFacts, proxies: &BTreeMap<String, Arc<Proxy>>) {
        facts.mode = Some(self.selection.mode.to_string());
        for node in &mut facts.nodes {
            let Some(proxy) = proxies.get(&node.name) else { continue };
            let launch = proxy.launch();
            node.pages = [
                (Page::Healthz, &launch.healthz),
                (Page::Livez, &launch.livez),
                (Page::Mode, &launch.mode),
                (Page::Metrics, &launch.metrics),
            ]
            .into_iter()
            .filter_map(|(page, url)| Some((page, url.clone()?)))
            .collect();
        }
    }

    /// The file for the whole log of one proxy, if the run keeps them.
    fn log_file(&self, cluster: &str, node: &str) -> Result<Option<File>, ClusterError> {
        let Some(folder) = &self.logs else { return Ok(None) };
        let subject = &self.selection;
        let name = format!("{}-{}-{cluster}-{node}.log", subject.subject.name, subject.mode);
        let path = folder.join(name);
        std::fs::create_dir_all(folder)
            .and_then(|()| File::create(&path))
            .map(Some)
            .map_err(|error| ClusterError::new(format!("failed to make {}", path.display()), error))
    }

    fn families(&self) -> Vec<Family> {
        let release = self.resolved.release.as_ref();
        self.selection.subject.families(&self.selection.mode, release)
    }
}

/// What the cluster says of itself: the address plan's facts, with the pods that were made.
fn facts(request: &ClusterRequest, topology: &Topology, clients: Vec<PodFacts>) -> ClusterFacts {
    let mut facts = ClusterFacts::planned(&request.shape);
    for (node, client) in facts.nodes.iter_mut().zip(clients) {
        node.client = client;
    }
    // Some settings speak of the client pods.
    facts.proxy = ProxySettings::of(
        &request.shape.proxy,
        &facts.nodes,
        &facts.pod_cidrs,
        &facts.service_cidrs,
    );
    debug_assert!(
        topology.nodes().zip(&facts.nodes).all(|(made, planned)| {
            let made: Vec<IpAddr> = made.families().iter().map(|f| made.address(*f)).collect();
            internal_ips(planned) == made
        }),
        "the network and the suite follow the same address plan"
    );
    facts
}

/// The network that a request asks for.
fn shape(request: &ClusterRequest) -> Shape {
    let wish = &request.shape.network;
    let node = |name| NodeShape { name, mtu: wish.mtu };
    let balancer = match wish.load_balancers {
        Some(LoadBalancers::NodePort) => Some(BALANCER.to_owned()),
        None | Some(LoadBalancers::Static | LoadBalancers::HealthChecked) => None,
    };
    Shape {
        nodes: request.shape.node_names().into_iter().map(node).collect(),
        outside: request.shape.outside_names().into_iter().chain(balancer).collect(),
        only: wish.only.map(lab_family),
        further_addresses: wish.more_node_addresses.unwrap_or(0),
        offloads: match wish.offloads {
            Some(false) => Offloads::Off,
            Some(true) | None => Offloads::On,
        },
        joined: match wish.nodes_joined {
            Some(NodesJoined::OneSegment) => Joined::OneSegment,
            Some(NodesJoined::Routed) | None => Joined::Routed,
        },
    }
}

/// A node's InternalIPs.
pub(super) fn internal_ips(node: &touchstone_spec::NodeFacts) -> Vec<IpAddr> {
    let of = |family| node.addresses.iter().copied().find(|ip| Family::of(*ip) == family);
    Family::BOTH.into_iter().filter_map(of).collect()
}

fn configuration(launch: &Launch) -> String {
    let mut text = format!("{} {}\n", launch.program.display(), launch.args.join(" "));
    for (name, value) in &launch.env {
        text.push_str(&format!("{name}={value}\n"));
    }
    for file in &launch.files {
        text.push_str(&format!("# {}\n{}\n", file.path.display(), file.contents));
    }
    text
}

fn remarks(topology: &Topology) -> Vec<String> {
    topology
        .unset()
        .into_iter()
        .flat_map(|(namespace, unset)| {
            unset.iter().map(move |setting| format!("{namespace}: not set here: {setting:?}"))
        })
        .collect()
}

/// Milliseconds of the parts of the start.
struct Clock {
    last: Instant,
    laps: BTreeMap<String, u64>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { last: Instant::now(), laps: BTreeMap::new() }
    }
}

impl Clock {
    fn lap(&mut self, name: &str) {
        let took = u64::try_from(self.last.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.laps.insert(name.to_owned(), took);
        self.last = Instant::now();
    }
}
