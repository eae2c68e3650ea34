//! From a request to a cluster that answers on every node and family.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc::{self, UnboundedSender};
use touchstone_apiserver::{ApiServer, Config, Lie, ServeHandle};
use touchstone_netlab::{NodeShape, Shape, Topology, plan};
use touchstone_spec::api::{
    Endpoint, EndpointPort, EndpointSlice, Meta, SERVICE_NAME_LABEL, Service, ServicePort,
    ServiceSpec,
};
use touchstone_spec::{
    CLIENT_PORT, Change, Client, ClientKind, ClusterFacts, DnsFacts, Family, Flow, FrontendKind,
    Observation, Outcome, PodFacts, PodWish, Protocol, ServerWish,
};
use touchstone_subject::{Launch, NodeFacts};

use super::cluster::LabCluster;
use super::dns::{self, NameServer, is_answered};
use super::places::Places;
use super::proxy::Proxy;
use super::{Lab, objects};
use crate::{Cluster, ClusterError, ClusterRequest, Notice, Provider, Started};

/// Port of the API server on the loopback of every node.
pub(super) const API_PORT: u16 = 6443;
/// Limit of becoming ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at the canary.
const CANARY_INTERVAL: Duration = Duration::from_millis(20);
/// How long one look waits.
const CANARY_WAIT: Duration = Duration::from_millis(300);
/// Where a node's private files are.
const RUN_DIR: &str = "/run/touchstone";
/// Host number of the canary's cluster IPs.
const CANARY_HOST: u32 = 7;
/// Kinds of the canary's objects.
const CANARY_KINDS: [&str; 2] = ["Service", "EndpointSlice"];

#[async_trait]
impl Provider for Lab {
    fn name(&self) -> &'static str {
        "lab"
    }

    async fn start(&self, request: &ClusterRequest) -> Result<Started, ClusterError> {
        let mut clock = Clock::default();
        let shape = Shape {
            nodes: request.shape.node_names().into_iter().map(NodeShape::new).collect(),
            outside: request.shape.outside_names(),
        };
        let topology = tokio::task::block_in_place(|| Topology::new(&shape))
            .map_err(|error| ClusterError::new("failed to make the lab's network", error))?;
        let topology = Arc::new(topology);
        let places = Arc::new(Places::new(Arc::clone(&topology)));
        let wishes: Vec<PodWish> = request
            .shape
            .node_names()
            .into_iter()
            .map(|node| PodWish { key: format!("client of {node}"), node, addresses: 1 })
            .collect();
        let clients = tokio::task::block_in_place(|| places.take(&wishes))?;
        let mut facts = facts(request, &topology, clients);
        if let (Some(dns), Some(node)) = (&mut facts.dns, request.shape.node_names().pop()) {
            let wish = PodWish { key: "name server".to_owned(), node, addresses: 1 };
            dns.servers = tokio::task::block_in_place(|| places.take(&[wish]))?;
        }
        let facts = facts;
        clock.lap("topology");

        let api = ApiServer::new(Config {
            service_cidrs: facts.service_cidrs.clone(),
            node_ports: facts.node_ports.0..=facts.node_ports.1,
        });
        // The canary is told truly: a lie that hides it would look like a proxy that never starts.
        let truly = |lie: &&Lie| !CANARY_KINDS.contains(&lie.kind.as_str());
        api.set_lies(self.lies.iter().filter(truly).cloned().collect());
        let serving = self.serve(&api, &topology)?;
        self.create_nodes(&api, &facts, &topology)?;
        clock.lap("api");

        let answering = LabCluster::listen(&places, &client_servers(&facts)).await?;
        let (tell, notices) = mpsc::unbounded_channel();
        let proxies = self.proxies(request, &facts, &topology, &tell)?;
        for proxy in proxies.values() {
            proxy.start()?;
        }
        let configuration = proxies
            .iter()
            .map(|(node, proxy)| (node.clone(), configuration(proxy.launch())))
            .collect();
        let name_server = self.name_server(request, &facts, &places, &api)?;
        let remarks = remarks(&topology);
        let cluster = LabCluster {
            facts,
            api,
            places,
            topology,
            proxies,
            name_server,
            sabotage: self.sabotage.clone(),
            _serving: Mutex::new(serving),
            _answering: Mutex::new(answering),
        };
        clock.lap("proxy");
        self.canary(&cluster).await?;
        clock.lap("canary");
        if let Some(dns) = &cluster.facts.dns {
            self.first_answers(&cluster, dns).await?;
            clock.lap("names");
        }
        cluster.api.set_lies(self.lies_to_proxies(&cluster.facts));
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
    /// One listener of the API server per node, and one for a person.
    fn serve(
        &self,
        api: &ApiServer,
        topology: &Topology,
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
    fn lies_to_proxies(&self, facts: &ClusterFacts) -> Vec<Lie> {
        let told_to_all = |lie: &Lie| lie.watcher.is_none() && facts.dns.is_some();
        let each = |lie: &Lie| -> Vec<Lie> {
            let nodes = facts.nodes.iter().map(|node| Some(node.name.clone()));
            nodes.map(|watcher| Lie { watcher, ..lie.clone() }).collect()
        };
        self.lies
            .iter()
            .flat_map(|lie| if told_to_all(lie) { each(lie) } else { vec![lie.clone()] })
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

    /// Waits until the name server answers: first by itself, which is the lab's affair, then
    /// through its Service from every node in every family that the proxy has.
    async fn first_answers(
        &self,
        cluster: &LabCluster,
        dns: &DnsFacts,
    ) -> Result<(), ClusterError> {
        let families = self.families();
        for change in dns::objects(dns, &families) {
            cluster.change(&change).await?;
        }
        let nodes =
            || cluster.facts.nodes.iter().filter(|node| !self.without_proxy.contains(&node.name));
        let of_servers = |server: &PodFacts| server.addresses.clone();
        let own: Vec<IpAddr> = dns.servers.iter().flat_map(of_servers).collect();
        let direct = cluster.facts.nodes.first().into_iter();
        let direct: Vec<Flow> = direct
            .flat_map(|node| own.iter().filter_map(|ip| dns::first_question(node, *ip)))
            .collect();
        let services: Vec<IpAddr> =
            families.iter().filter_map(|family| dns.address(*family)).collect();
        let through: Vec<Flow> = nodes()
            .flat_map(|node| services.iter().filter_map(|ip| dns::first_question(node, *ip)))
            .collect();
        if let Err(late) = self.answered(cluster, direct).await {
            let mut why = late;
            for line in cluster.name_server.iter().flat_map(NameServer::last_lines) {
                why.push_str(&format!("\n  {line}"));
            }
            cluster.close().await;
            return Err(ClusterError::new("the name server did not become ready", why));
        }
        match self.answered(cluster, through).await {
            Ok(()) => Ok(()),
            Err(late) => Err(not_ready(cluster, &late).await),
        }
    }

    /// Asks until each of the questions was answered with records once.
    async fn answered(&self, cluster: &LabCluster, mut waiting: Vec<Flow>) -> Result<(), String> {
        let began = Instant::now();
        let mut tick = tokio::time::interval(CANARY_INTERVAL);
        while !waiting.is_empty() {
            tick.tick().await;
            let looks = waiting.iter().map(|flow| cluster.probe(flow, CANARY_WAIT));
            let seen = futures::future::join_all(looks).await;
            let last = seen.iter().find(|saw| !is_answered(saw)).map(said);
            let mut answered = seen.iter().map(is_answered).collect::<Vec<_>>().into_iter();
            waiting.retain(|_| !answered.next().unwrap_or(false));
            if let Some(died) = cluster.broken() {
                return Err(died.why);
            }
            if let (Some(first), true) = (waiting.first(), began.elapsed() > READY_LIMIT) {
                return Err(format!(
                    "{} gives no answer within {} s (last seen: {})",
                    first.text,
                    READY_LIMIT.as_secs(),
                    last.unwrap_or_else(|| "nothing".to_owned())
                ));
            }
        }
        Ok(())
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
                    plan::Family::BOTH.map(|family| node.pod_range(family).to_string()).to_vec()
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
        request: &ClusterRequest,
        facts: &ClusterFacts,
        topology: &Arc<Topology>,
        tell: &UnboundedSender<Notice>,
    ) -> Result<BTreeMap<String, Arc<Proxy>>, ClusterError> {
        let mut proxies = BTreeMap::new();
        for node in facts.nodes.iter().filter(|node| !self.without_proxy.contains(&node.name)) {
            let launch = Launch::render(
                &self.selection,
                &self.resolved,
                &NodeFacts {
                    name: node.name.clone(),
                    addresses: node.addresses.clone(),
                    api_server: format!("http://127.0.0.1:{API_PORT}"),
                    cluster_cidrs: pod_cidrs(facts),
                    service_cidrs: facts.service_cidrs.clone(),
                    run_dir: PathBuf::from(RUN_DIR),
                },
            )
            .map_err(|error| ClusterError::new("failed to prepare the proxy", error))?;
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

    /// A cluster is ready when a Service answers from every node in every family that the proxy
    /// has; a proxy that calls itself healthy may not have seen a single Service.
    async fn canary(&self, cluster: &LabCluster) -> Result<(), ClusterError> {
        let families = self.families();
        for change in canary_objects(&cluster.facts, &families) {
            cluster.change(&change).await?;
        }
        let mut waiting = canary_flows(&cluster.facts, &families);
        waiting.retain(|flow| {
            flow.client.node.as_ref().is_none_or(|node| !self.without_proxy.contains(node))
        });
        let began = Instant::now();
        let mut tick = tokio::time::interval(CANARY_INTERVAL);
        while !waiting.is_empty() {
            tick.tick().await;
            let looks = waiting.iter().map(|flow| cluster.probe(flow, CANARY_WAIT));
            let seen = futures::future::join_all(looks).await;
            let late = seen.last().cloned();
            let answered: Vec<bool> = seen.iter().map(is_reached).collect();
            let mut answered = answered.into_iter();
            waiting.retain(|_| !answered.next().unwrap_or(false));
            let first = waiting.first().map(|flow| flow.text.clone()).unwrap_or_default();
            if let Some(died) = cluster.broken() {
                return Err(not_ready(cluster, &died.why).await);
            }
            if began.elapsed() > READY_LIMIT && !waiting.is_empty() {
                let why = format!(
                    "{first} does not answer {} s after the proxy was started (last seen: {})",
                    READY_LIMIT.as_secs(),
                    late.map_or("nothing".to_owned(), |saw| said(&saw))
                );
                return Err(not_ready(cluster, &why).await);
            }
        }
        Ok(())
    }

    fn families(&self) -> Vec<Family> {
        let release = self.resolved.release.as_ref();
        let features = self.selection.subject.features(&self.selection.mode, release);
        let has = |name: &str| features.keys().any(|feature| feature.name() == name);
        let word = |family| match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        Family::BOTH.into_iter().filter(|family| has(word(*family))).collect()
    }
}

/// The error of a cluster that did not become ready, with the proxies' last lines.
async fn not_ready(cluster: &LabCluster, why: &str) -> ClusterError {
    let mut text = why.to_owned();
    if let Some((node, proxy)) = cluster
        .proxies
        .iter()
        .find(|(_, proxy)| proxy.died().is_some())
        .or_else(|| cluster.proxies.iter().next())
    {
        text.push_str(&format!("; last lines of the proxy on {node}:"));
        for line in proxy.last_lines() {
            text.push_str("\n  ");
            text.push_str(&line);
        }
    }
    cluster.close().await;
    ClusterError { act: "the cluster did not become ready".to_owned(), why: text, proxy: true }
}

fn is_reached(saw: &Observation) -> bool {
    matches!(saw, Observation::Saw(Outcome::Reached { .. }))
}

fn said(saw: &Observation) -> String {
    match saw {
        Observation::Saw(outcome) => outcome.to_string(),
        Observation::ProbeBroke(why) => why.clone(),
    }
}

/// What the cluster says of itself: the address plan's facts, with the pods that were made.
fn facts(request: &ClusterRequest, topology: &Topology, clients: Vec<PodFacts>) -> ClusterFacts {
    let mut facts = ClusterFacts::planned(&request.shape);
    for (node, client) in facts.nodes.iter_mut().zip(clients) {
        node.client = client;
    }
    debug_assert!(
        topology.nodes().zip(&facts.nodes).all(|(made, planned)| {
            planned.addresses == plan::Family::BOTH.map(|family| made.address(family))
        }),
        "the network and the suite follow the same address plan"
    );
    facts
}

fn pod_cidrs(facts: &ClusterFacts) -> Vec<ipnet::IpNet> {
    match &facts.proxy.detector {
        touchstone_spec::LocalDetector::ClusterCidr(ranges) => ranges.clone(),
        touchstone_spec::LocalDetector::None => Vec::new(),
    }
}

/// Every client pod answers on [`CLIENT_PORT`].
fn client_servers(facts: &ClusterFacts) -> Vec<ServerWish> {
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

fn canary_ip(facts: &ClusterFacts, family: Family) -> Option<IpAddr> {
    let range = facts.service_cidrs.iter().find(|r| Family::of(r.addr()) == family)?;
    Some(match range.network() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) + CANARY_HOST).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) + u128::from(CANARY_HOST)).into()),
    })
}

fn canary_objects(facts: &ClusterFacts, families: &[Family]) -> Vec<Change> {
    let meta = |name: String, labels| Meta {
        name,
        namespace: "touchstone".to_owned(),
        labels,
        annotations: BTreeMap::new(),
    };
    let ips: Vec<(Family, IpAddr)> =
        families.iter().filter_map(|f| Some((*f, canary_ip(facts, *f)?))).collect();
    let policy = if ips.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let mut changes = vec![Change::ApplyService(Service {
        metadata: meta("canary".to_owned(), BTreeMap::new()),
        spec: ServiceSpec {
            cluster_ip: ips.first().map(|(_, ip)| ip.to_string()),
            cluster_ips: ips.iter().map(|(_, ip)| ip.to_string()).collect(),
            ip_families: ips.iter().map(|(f, _)| f.api_name().to_owned()).collect(),
            ip_family_policy: Some(policy.to_owned()),
            ports: vec![ServicePort {
                protocol: Some(Protocol::Tcp),
                port: CLIENT_PORT,
                ..ServicePort::default()
            }],
            ..ServiceSpec::default()
        },
        ..Service::default()
    })];
    for (family, _) in ips {
        let labels = BTreeMap::from([(SERVICE_NAME_LABEL.to_owned(), "canary".to_owned())]);
        changes.push(Change::ApplySlice(EndpointSlice {
            metadata: meta(format!("canary-{family}"), labels),
            address_type: family.api_name().to_owned(),
            ports: vec![EndpointPort {
                name: Some(String::new()),
                protocol: Protocol::Tcp,
                port: Some(CLIENT_PORT),
            }],
            endpoints: facts
                .nodes
                .iter()
                .filter_map(|node| {
                    Some(Endpoint {
                        addresses: vec![node.client.address(family)?.to_string()],
                        node_name: Some(node.name.clone()),
                        ..Endpoint::default()
                    })
                })
                .collect(),
        }));
    }
    changes
}

fn canary_flows(facts: &ClusterFacts, families: &[Family]) -> Vec<Flow> {
    let mut flows = Vec::new();
    for family in families {
        for node in &facts.nodes {
            let (Some(ip), Some(address)) =
                (canary_ip(facts, *family), node.client.address(*family))
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
                text: format!("the canary Service from {} over {family}", node.name),
            });
        }
    }
    flows
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
