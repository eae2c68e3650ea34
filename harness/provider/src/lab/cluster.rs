//! A running cluster of the lab.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use touchstone_apiserver::{ApiServer, ServeHandle};
use touchstone_netlab::{Filter, Moment, Topology};
use touchstone_probe::{Attempted, KeptFlow, Server, Sockets, attempt, get_http};
use touchstone_spec::api::Service;
use touchstone_spec::{
    Change, ClusterFacts, Flow, FrontendKind, NEIGHBOUR, Observation, Outcome, PodFacts, PodWish,
    ProxyAction, ProxyWish, ServerWish,
};

use super::dns::{FirstQuestions, NameServer};
use super::endpoints;
use super::flows;
use super::launcher::Launcher;
use super::listen::listen;
use super::objects;
use super::places::Places;
use super::proxy::Proxy;
use super::rules;
use super::surroundings;
use crate::balancer::{Balanced, Balancer, HEALTH_WAIT};
use crate::{Broken, Cluster, ClusterError, Kept, Servers, canary};

/// A cluster in namespaces.
pub(super) struct LabCluster {
    pub(super) facts: ClusterFacts,
    pub(super) api: ApiServer,
    pub(super) places: Arc<Places>,
    pub(super) topology: Arc<Topology>,
    pub(super) proxies: BTreeMap<String, Arc<Proxy>>,
    /// What proxies are started with.
    pub(super) launcher: Launcher,
    /// The name server, where the shape asks for one.
    pub(super) name_server: Option<NameServer>,
    /// Command that damages a node's rules once they are there, if the run asks for it.
    pub(super) sabotage: Option<String>,
    /// Flows that must reach the canary Service.
    pub(super) canary: Vec<Flow>,
    /// What its name server must answer, where it has one.
    pub(super) first_questions: FirstQuestions,
    /// How long it may take to answer everywhere.
    pub(super) ready_limit: Duration,
    /// Why it did not become ready, if so.
    pub(super) unready: OnceLock<Broken>,
    /// Chooses nodes for connections from outside, where the network has such a balancer.
    pub(super) balancer: Balancer,
    /// Listeners of the API server, and the client pods' servers.
    pub(super) _serving: Mutex<Vec<ServeHandle>>,
    pub(super) _answering: Mutex<Vec<Server>>,
}

impl LabCluster {
    async fn balance(&self, flow: &Flow) -> Balanced {
        let services = || {
            let list = self.api.list("Service", None, "").map_err(|status| status.to_string())?;
            let parsed = list.into_iter().map(serde_json::from_value::<Service>);
            parsed.collect::<Result<_, _>>().map_err(|error| format!("a Service: {error}"))
        };
        let ask = |check: Flow| async move {
            match (self.places.tcp(&check).await, &check.http) {
                (Ok(socket), Some(asked)) => get_http(socket, check.to, asked, HEALTH_WAIT).await,
                (Ok(_), None) => Observation::ProbeBroke("nothing is asked".to_owned()),
                (Err(_), _) => Observation::ProbeBroke("there is no socket".to_owned()),
            }
        };
        self.balancer.choose(flow, &self.facts, services, ask).await
    }

    /// Tells silence of a proxy from silence of nobody: what nobody handled is in the sink.
    pub(super) fn judge_silence(
        &self,
        flow: &Flow,
        since: Moment,
        saw: Observation,
    ) -> Observation {
        // Nobody told the neighbour a link address: no node took the packet.
        let unknown = matches!(saw, Observation::Saw(Outcome::Unreachable));
        if unknown && flow.client.place == NEIGHBOUR {
            return Observation::Saw(Outcome::Unhandled);
        }
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

    /// What ended unexpectedly, if something did: a proxy, or the name server.
    pub(super) fn died(&self) -> Option<Broken> {
        let proxy = self.proxies.values().find_map(|proxy| proxy.died());
        let server = || self.name_server.as_ref().and_then(NameServer::died);
        proxy
            .map(|why| Broken { why, proxy: true })
            .or_else(|| server().map(|why| Broken { why, proxy: false }))
    }

    fn proxy(&self, node: &str) -> Result<&Arc<Proxy>, ClusterError> {
        self.proxies.get(node).ok_or_else(|| {
            ClusterError::new(format!("no proxy runs on {node}"), "a case acts on it")
        })
    }

    /// The proxy of a node must end by itself when it is started with other settings.
    async fn refuses(&self, node: &str, wish: &ProxyWish) -> Result<(), ClusterError> {
        let proxy = self.proxy(node)?;
        let known = self.facts.nodes.iter().find(|known| known.name == node);
        let known = known.ok_or_else(|| ClusterError::new(format!("no node {node}"), "unknown"))?;
        let launch = self.launcher.launch(known, wish, &self.facts, &self.places)?;
        proxy.refuses(&launch).await
    }

    async fn act(&self, node: &str, action: ProxyAction) -> Result<(), ClusterError> {
        let proxy = self.proxy(node)?;
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
    async fn ready(&self) -> Result<BTreeMap<String, u64>, ClusterError> {
        self.become_ready().await
    }

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
        Ok(Box::new(listen(&self.places, wishes).await?))
    }

    async fn change(&self, change: &Change) -> Result<(), ClusterError> {
        match change {
            Change::Proxy { node, action } => self.act(node, *action).await,
            Change::ProxyRefuses { node, wish } => self.refuses(node, wish).await,
            Change::VirtualServer { node, at, protocol, action } => {
                self.change_virtual_server(node, *at, *protocol, *action).await
            }
            Change::ReloadFirewall { node } => {
                let found = self.topology.node(node).ok_or_else(|| {
                    ClusterError::new(
                        format!("failed to reload the firewall of {node}"),
                        "no such node",
                    )
                })?;
                tokio::task::block_in_place(|| surroundings::load_on(found, &self.facts.network))
            }
            Change::ApplyService(_)
            | Change::DeleteService { .. }
            | Change::ApplySlice(_)
            | Change::ApplyRawSlice(_)
            | Change::Deploy(_)
            | Change::DeleteSlice { .. }
            | Change::SetNode { .. } => {
                objects::apply(&self.api, change)?;
                if self.launcher.reads_endpoints() {
                    endpoints::follow(&self.api, change)?;
                }
                Ok(())
            }
        }
    }

    async fn probe(&self, flow: &Flow, wait: Duration) -> Observation {
        self.send(flow, wait).await
    }

    async fn open(&self, flow: &Flow, wait: Duration) -> Result<Box<dyn Kept>, Observation> {
        let balanced = self.balance(flow).await;
        let flow = match &balanced {
            Balanced::Untouched => flow,
            Balanced::Sent(flow) => flow,
            Balanced::Nowhere => return Err(Observation::Saw(Outcome::Dropped)),
            Balanced::Broke(why) => return Err(Observation::ProbeBroke(why.clone())),
        };
        Ok(Box::new(KeptFlow::open(self.places.as_ref(), flow, wait).await?))
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

    async fn udp_flows(
        &self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Option<BTreeMap<String, Vec<String>>> {
        let mut found = BTreeMap::new();
        for node in self.topology.nodes() {
            let addresses = addresses.clone();
            let lines = node.namespace().run_async(move || flows::udp(&addresses)).await;
            let lines = lines.ok()??;
            if !lines.is_empty() {
                found.insert(node.name().to_owned(), lines);
            }
        }
        Some(found)
    }

    async fn control(&self) -> Result<(), String> {
        canary::control(self).await
    }

    fn broken(&self) -> Option<Broken> {
        self.died().or_else(|| self.unready.get().cloned())
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
        let balanced = self.balance(flow).await;
        let flow = match &balanced {
            Balanced::Untouched => flow,
            Balanced::Sent(flow) => flow,
            Balanced::Nowhere => return Observation::Saw(Outcome::Dropped),
            Balanced::Broke(why) => return Observation::ProbeBroke(why.clone()),
        };
        if flow.frontend == FrontendKind::Table {
            return self.listed(flow).await;
        }
        let since = self.topology.sink().now();
        let Attempted { saw, elsewhere } = attempt(self.places.as_ref(), flow, wait).await;
        match elsewhere {
            None => self.judge_silence(flow, since, saw),
            Some((to, protocol)) => {
                self.judge_silence(&Flow { to, protocol, ..flow.clone() }, since, saw)
            }
        }
    }
}

#[async_trait]
impl Kept for KeptFlow {
    async fn ask(&mut self, wait: Duration) -> Observation {
        KeptFlow::ask(self, wait).await
    }
}
