//! A running cluster of the lab.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::signal::Signal;
use touchstone_apiserver::{ApiServer, ServeHandle};
use touchstone_netlab::{Filter, Topology};
use touchstone_probe::{Connection, Server, UdpFlow, ask_tcp, ask_udp, connect_tcp, get_http};
use touchstone_spec::{
    CLIENT_PORT, Change, Client, ClientKind, ClusterFacts, Family, Flow, FrontendKind, Observation,
    Outcome, PodFacts, PodWish, Protocol, ProxyAction, ServerWish,
};

use super::dns::NameServer;
use super::objects;
use super::places::Places;
use super::proxy::Proxy;
use super::rules;
use crate::{Broken, Cluster, ClusterError, Kept, Servers};

/// How long one control attempt may take.
const CONTROL_WAIT: Duration = Duration::from_secs(3);

/// A cluster in namespaces.
pub(super) struct LabCluster {
    pub(super) facts: ClusterFacts,
    pub(super) api: ApiServer,
    pub(super) places: Arc<Places>,
    pub(super) topology: Arc<Topology>,
    pub(super) proxies: BTreeMap<String, Arc<Proxy>>,
    /// The name server, where the shape asks for one.
    pub(super) name_server: Option<NameServer>,
    /// Command that damages a node's rules once they are there, if the run asks for it.
    pub(super) sabotage: Option<String>,
    /// Listeners of the API server, and the client pods' servers.
    pub(super) _serving: Mutex<Vec<ServeHandle>>,
    pub(super) _answering: Mutex<Vec<Server>>,
}

impl LabCluster {
    /// Makes identity servers listen in their places.
    pub(super) async fn listen(
        places: &Places,
        wishes: &[ServerWish],
    ) -> Result<Vec<Server>, ClusterError> {
        let mut servers = Vec::new();
        for wish in wishes {
            let failed = |why: String| {
                ClusterError::new(
                    format!(
                        "failed to listen on {} {} in {}",
                        wish.protocol,
                        SocketAddr::new(wish.address, wish.port),
                        wish.place
                    ),
                    why,
                )
            };
            let address = SocketAddr::new(wish.address, wish.port);
            let held = places.hold(&wish.place).ok_or_else(|| failed("no such place".into()))?;
            let namespace = held.namespace().ok_or_else(|| failed("it is gone".into()))?;
            let server = match wish.protocol {
                Protocol::Tcp => {
                    let listener = namespace
                        .run_async(move || touchstone_netlab::sockets::tcp_listener(address))
                        .await
                        .map_err(|error| failed(error.to_string()))?
                        .map_err(|error| failed(error.to_string()))?;
                    Server::tcp(listener, wish.place.clone())
                }
                Protocol::Udp => {
                    let socket = namespace
                        .run_async(move || touchstone_netlab::sockets::udp_socket(address))
                        .await
                        .map_err(|error| failed(error.to_string()))?
                        .map_err(|error| failed(error.to_string()))?;
                    Server::udp(socket, wish.place.clone())
                }
                Protocol::Sctp => return Err(failed("the lab has no SCTP servers".into())),
            };
            servers.push(server.map_err(|error| failed(error.to_string()))?);
        }
        Ok(servers)
    }

    /// Tells silence of a proxy from silence of nobody: what nobody handled is in the sink.
    pub(super) fn judge_silence(
        &self,
        flow: &Flow,
        since: Instant,
        saw: Observation,
    ) -> Observation {
        let silent = matches!(saw, Observation::Saw(Outcome::Dropped));
        let filter = Filter {
            source: Some(flow.client.address),
            protocol: Some(flow.protocol.number()),
            ..Filter::to(flow.to.ip(), flow.to.port())
        };
        if silent && self.topology.sink().count(&filter, since) > 0 {
            Observation::Saw(Outcome::Unhandled)
        } else {
            saw
        }
    }

    async fn act(&self, node: &str, action: ProxyAction) -> Result<(), ClusterError> {
        let proxy = self.proxies.get(node).ok_or_else(|| {
            ClusterError::new(format!("no proxy runs on {node}"), "a case acts on it")
        })?;
        match action {
            ProxyAction::Stop => proxy.stop(Signal::SIGTERM).await,
            ProxyAction::Start => proxy.start(),
            ProxyAction::Restart => {
                proxy.stop(Signal::SIGTERM).await?;
                proxy.start()
            }
        }
    }
}

#[async_trait]
impl Cluster for LabCluster {
    fn facts(&self) -> &ClusterFacts {
        &self.facts
    }

    async fn pods(&self, wishes: &[PodWish]) -> Result<Vec<PodFacts>, ClusterError> {
        self.places.take(wishes)
    }

    async fn release(&self, pods: Vec<PodFacts>) {
        self.places.give_back(pods);
    }

    async fn serve(&self, wishes: &[ServerWish]) -> Result<Servers, ClusterError> {
        Ok(Box::new(LabCluster::listen(&self.places, wishes).await?))
    }

    async fn change(&self, change: &Change) -> Result<(), ClusterError> {
        match change {
            Change::Proxy { node, action } => self.act(node, *action).await,
            Change::ApplyService(_)
            | Change::DeleteService { .. }
            | Change::ApplySlice(_)
            | Change::DeleteSlice { .. }
            | Change::SetZone { .. } => objects::apply(&self.api, change),
        }
    }

    async fn probe(&self, flow: &Flow, wait: Duration) -> Observation {
        match &flow.question {
            Some(question) => self.ask(flow, question, wait).await,
            None => self.send(flow, wait).await,
        }
    }

    async fn open(&self, flow: &Flow, wait: Duration) -> Result<Box<dyn Kept>, Observation> {
        if flow.question.is_some() {
            return Err(Observation::ProbeBroke("what a name leads to is not kept".to_owned()));
        }
        match flow.protocol {
            Protocol::Tcp => {
                let socket = self.places.tcp(flow).await.map_err(Observation::ProbeBroke)?;
                Ok(Box::new(KeptTcp(connect_tcp(socket, flow.to, wait).await?)))
            }
            Protocol::Udp => {
                let socket = self.places.udp(flow).await.map_err(Observation::ProbeBroke)?;
                Ok(Box::new(KeptUdp(UdpFlow::open(socket, flow.to)?)))
            }
            Protocol::Sctp => {
                Err(Observation::ProbeBroke("the lab has no SCTP clients".to_owned()))
            }
        }
    }

    async fn rules(&self, node: &str, needles: &[String]) -> Vec<String> {
        let commands = self.proxies.get(node).map(|proxy| proxy.launch().rules.clone());
        let Some(commands) = commands else {
            return vec![format!("(no proxy runs on {node})")];
        };
        let Some(node) = self.topology.node(node) else { return Vec::new() };
        let listing = node.namespace().run_async(move || rules::listing(&commands)).await;
        let mut lines = match listing {
            Ok(lines) => rules::about(&lines, needles),
            Err(error) => vec![format!("(the rules cannot be listed: {error})")],
        };
        if let Some(proxy) = self.proxies.get(node.name()) {
            let complaints = proxy.complaints();
            lines.extend(complaints.into_iter().map(|line| format!("the proxy's log: {line}")));
        }
        lines
    }

    async fn mentions(
        &self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Option<BTreeMap<String, Vec<String>>> {
        let mut found = BTreeMap::new();
        for (name, proxy) in &self.proxies {
            let commands = proxy.launch().rules.clone();
            let node = self.topology.node(name)?;
            let addresses = addresses.clone();
            let lines = node
                .namespace()
                .run_async(move || rules::mentioning(&rules::listing(&commands), &addresses));
            let lines = lines.await.ok()?;
            if !lines.is_empty() {
                found.insert(name.clone(), lines);
            }
        }
        (!self.proxies.is_empty()).then_some(found)
    }

    async fn control(&self) -> Result<(), String> {
        for from in &self.facts.nodes {
            for to in &self.facts.nodes {
                for address in &to.client.addresses {
                    self.reach(&from.client, *address).await?;
                }
            }
        }
        Ok(())
    }

    fn broken(&self) -> Option<Broken> {
        let proxy = self.proxies.values().find_map(|proxy| proxy.died());
        let server = || self.name_server.as_ref().and_then(NameServer::died);
        proxy
            .map(|why| Broken { why, proxy: true })
            .or_else(|| server().map(|why| Broken { why, proxy: false }))
    }

    async fn sabotage(&self) -> Result<(), ClusterError> {
        let Some(command) = &self.sabotage else { return Ok(()) };
        for node in self.topology.nodes() {
            let failed = |why: &dyn std::fmt::Display| {
                ClusterError::new(format!("failed to damage the rules on {}", node.name()), why)
            };
            let command = command.clone();
            // Damage that was not done must not look like a suite that does not notice.
            node.namespace()
                .run_async(move || rules::damage(&command))
                .await
                .map_err(|error| failed(&error))?
                .map_err(|why| failed(&why))?;
        }
        Ok(())
    }

    fn proxy_cpu(&self) -> Duration {
        self.proxies.values().map(|proxy| proxy.cpu()).sum()
    }

    fn how_to_join(&self) -> Vec<String> {
        let pid = std::process::id();
        let nodes = self.topology.nodes().map(|node| (node.name(), node.namespace()));
        let outside = self.topology.outside().iter().map(|out| (out.name(), out.namespace()));
        nodes
            .chain(outside)
            .map(|(name, namespace)| format!("{name} {pid} {}", namespace.thread_id()))
            .collect()
    }

    async fn close(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for proxy in self.proxies.values() {
            if let Err(error) = proxy.stop(Signal::SIGKILL).await {
                remarks.push(error.to_string());
            }
        }
        if let Some(server) = &self.name_server
            && let Err(error) = server.stop().await
        {
            remarks.push(error.to_string());
        }
        let sink = self.topology.sink();
        if let Some(failure) = sink.failure() {
            remarks.push(format!("the sink stopped counting: {failure}"));
        }
        if sink.forgotten() > 0 {
            remarks.push(format!("the sink forgot {} packets", sink.forgotten()));
        }
        remarks
    }
}

impl LabCluster {
    /// Sends one attempt of a flow to its address.
    pub(super) async fn send(&self, flow: &Flow, wait: Duration) -> Observation {
        let since = Instant::now();
        let saw = match (flow.frontend, flow.protocol) {
            (FrontendKind::HealthCheck, _) => match self.places.tcp(flow).await {
                Ok(socket) => get_http(socket, flow.to, "/healthz", wait).await,
                Err(why) => Observation::ProbeBroke(why),
            },
            (_, Protocol::Tcp) => match self.places.tcp(flow).await {
                Ok(socket) => ask_tcp(socket, flow.to, wait).await,
                Err(why) => Observation::ProbeBroke(why),
            },
            (_, Protocol::Udp) => match self.places.udp(flow).await {
                Ok(socket) => ask_udp(socket, flow.to, wait).await,
                Err(why) => Observation::ProbeBroke(why),
            },
            (_, Protocol::Sctp) => Observation::ProbeBroke("the lab has no SCTP clients".into()),
        };
        self.judge_silence(flow, since, saw)
    }

    /// One attempt from a client pod straight to another.
    async fn reach(&self, from: &PodFacts, to: IpAddr) -> Result<(), String> {
        let Some(address) = from.address(Family::of(to)) else { return Ok(()) };
        let flow = Flow {
            client: Client {
                kind: ClientKind::Pod,
                place: from.place.clone(),
                node: Some(from.node.clone()),
                address,
            },
            via: None,
            to: SocketAddr::new(to, CLIENT_PORT),
            protocol: Protocol::Tcp,
            frontend: FrontendKind::Direct,
            question: None,
            text: format!("{} → {to}", from.place),
        };
        match self.probe(&flow, CONTROL_WAIT).await {
            Observation::Saw(Outcome::Reached { resent: 0, .. }) => Ok(()),
            Observation::Saw(other) => Err(format!("{}: {other}", flow.text)),
            Observation::ProbeBroke(why) => Err(format!("{}: {why}", flow.text)),
        }
    }
}

struct KeptTcp(Connection);
struct KeptUdp(UdpFlow);

#[async_trait]
impl Kept for KeptTcp {
    async fn ask(&mut self, wait: Duration) -> Observation {
        self.0.ask(wait).await
    }
}

#[async_trait]
impl Kept for KeptUdp {
    async fn ask(&mut self, wait: Duration) -> Observation {
        self.0.ask(wait).await
    }
}
