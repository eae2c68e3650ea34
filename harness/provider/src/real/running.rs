//! A cluster as one batch of cases sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use touchstone_agent::{RemoteFlow, RemoteServers};
use touchstone_spec::api::Service;
use touchstone_spec::{
    Change, ClusterFacts, Flow, Observation, Outcome, PodFacts, PodWish, ServerWish,
};

use super::agents::Shared;
use super::deployments::Deployments;
use super::keeper::Keeper;
use super::objects::Objects;
use crate::balancer::{Balanced, Balancer, HEALTH_WAIT};
use crate::{Broken, Cluster, ClusterError, Kept, Servers, canary};

/// How long the canary may take to answer everywhere.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A part of a real cluster.
pub(super) struct RealCluster {
    pub(super) facts: ClusterFacts,
    pub(super) agents: Shared,
    pub(super) objects: Objects,
    pub(super) deployments: Arc<Deployments>,
    pub(super) keeper: Option<Arc<dyn Keeper>>,
    /// What is done in the end: the canary goes, and nodes get their zones back.
    pub(super) undo: Vec<Change>,
    pub(super) flows: Vec<Flow>,
    pub(super) unready: OnceLock<Broken>,
    pub(super) balancer: Balancer,
    /// Services that are there, by namespace and name.
    pub(super) services: Mutex<BTreeMap<String, Service>>,
    pub(super) how_to_join: Vec<String>,
}

#[async_trait]
impl Cluster for RealCluster {
    async fn ready(&self) -> Result<BTreeMap<String, u64>, ClusterError> {
        let began = Instant::now();
        let answered =
            canary::answered(self, &self.flows, canary::is_reached, READY_LIMIT, true).await;
        if let Err(broken) = answered {
            let _ = self.unready.set(broken.clone());
            let remedy = if broken.proxy { "; does a proxy run on every node?" } else { "" };
            let why = format!("{}{remedy}", broken.why);
            return Err(ClusterError {
                act: "the cluster did not become ready".to_owned(),
                why,
                proxy: broken.proxy,
                late: true,
            });
        }
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(BTreeMap::from([("canary".to_owned(), took)]))
    }

    fn facts(&self) -> &ClusterFacts {
        &self.facts
    }

    async fn pods(&self, wishes: &[PodWish]) -> Result<Vec<PodFacts>, ClusterError> {
        let (deployed, others): (Vec<_>, Vec<_>) =
            wishes.iter().cloned().partition(|wish| wish.deployed);
        let mut others = self.agents.take(&others).await?.into_iter();
        let mut seats = Vec::new();
        for wish in &deployed {
            seats.push(self.deployments.reserve(wish, &self.facts.nodes)?);
        }
        let mut seats = seats.into_iter();
        let of = |wish: &PodWish| if wish.deployed { seats.next() } else { others.next() };
        Ok(wishes.iter().filter_map(of).collect())
    }

    async fn release(&self, pods: Vec<PodFacts>) {
        let (seats, pods): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|pod| self.deployments.has(&pod.place));
        self.agents.give_back(pods);
        self.deployments.release(&seats.into_iter().map(|seat| seat.place).collect());
    }

    async fn serve(&self, wishes: &[ServerWish]) -> Result<Servers, ClusterError> {
        let mut by_place: BTreeMap<&str, Vec<ServerWish>> = BTreeMap::new();
        for wish in wishes {
            by_place.entry(&wish.place).or_default().push(wish.clone());
        }
        let (seats, by_place): (Vec<_>, Vec<_>) =
            by_place.into_iter().partition(|(place, _)| self.deployments.has(place));
        for (place, wishes) in seats {
            self.deployments.serve(place, wishes);
        }
        let serving = by_place.into_iter().map(|(place, wishes)| async move {
            let failed =
                |why: String| ClusterError::new(format!("failed to serve in {place}"), why);
            let agent = self.agents.at(place).ok_or_else(|| failed("no agent is there".into()))?;
            agent.serve(wishes).await.map_err(failed)
        });
        let servers = futures::future::join_all(serving).await.into_iter();
        let servers: Vec<RemoteServers> = servers.collect::<Result<_, ClusterError>>()?;
        Ok(Box::new(servers))
    }

    async fn change(&self, change: &Change) -> Result<(), ClusterError> {
        self.remember(change);
        match (change, &self.keeper) {
            (Change::Proxy { node, action }, Some(keeper)) => {
                keeper.act(&self.objects.real(node), *action).await
            }
            (Change::Deploy(wanted), _) => {
                self.deployments.apply(wanted, self.objects.nodes()).await
            }
            _ => self.objects.apply(change).await,
        }
    }

    async fn probe(&self, flow: &Flow, wait: Duration) -> Observation {
        match self.balance(flow).await {
            Balanced::Untouched => self.send(flow, wait).await,
            Balanced::Sent(flow) => self.send(&flow, wait).await,
            Balanced::Nowhere => Observation::Saw(Outcome::Dropped),
            Balanced::Broke(why) => Observation::ProbeBroke(why),
        }
    }

    async fn open(&self, flow: &Flow, wait: Duration) -> Result<Box<dyn Kept>, Observation> {
        let balanced = self.balance(flow).await;
        let flow = match &balanced {
            Balanced::Untouched => flow,
            Balanced::Sent(flow) => flow,
            Balanced::Nowhere => return Err(Observation::Saw(Outcome::Dropped)),
            Balanced::Broke(why) => return Err(Observation::ProbeBroke(why.clone())),
        };
        match self.agents.at(&flow.client.place) {
            Some(agent) => match agent.open(&self.deployments.sent(flow), wait).await {
                Ok(kept) => {
                    let deployments = Arc::clone(&self.deployments);
                    Ok(Box::new(KeptThere { kept, deployments }))
                }
                Err(saw) => Err(self.deployments.seen(as_told(saw))),
            },
            None => {
                let why = format!("no agent is in {}", flow.client.place);
                Err(Observation::ProbeBroke(why))
            }
        }
    }

    async fn control(&self) -> Result<(), String> {
        canary::control(self).await
    }

    fn broken(&self) -> Option<Broken> {
        let gone = self.agents.gone().map(|why| Broken { why, proxy: false });
        gone.or_else(|| self.unready.get().cloned())
    }

    async fn sabotage(&self) -> Result<(), ClusterError> {
        Ok(())
    }

    fn late_since(&self, since: Instant) -> Duration {
        self.agents.late_since(since)
    }

    fn proxy_cpu(&self) -> Duration {
        Duration::ZERO
    }

    fn how_to_join(&self) -> Vec<String> {
        self.how_to_join.clone()
    }

    async fn close(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for change in &self.undo {
            if let Err(error) = self.objects.apply(change).await {
                remarks.push(error.to_string());
            }
        }
        remarks
    }
}

impl RealCluster {
    /// What a load balancer that chooses nodes makes of a flow.
    async fn balance(&self, flow: &Flow) -> Balanced {
        let services = || {
            let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(services.values().cloned().collect())
        };
        let ask = |check: Flow| async move { self.send(&check, HEALTH_WAIT).await };
        self.balancer.choose(flow, &self.facts, services, ask).await
    }

    /// Sends one attempt of a flow as it is.
    async fn send(&self, flow: &Flow, wait: Duration) -> Observation {
        match self.agents.at(&flow.client.place) {
            Some(agent) => {
                let saw = agent.probe(&self.deployments.sent(flow), wait).await;
                self.deployments.seen(as_told(saw))
            }
            None => Observation::ProbeBroke(format!("no agent is in {}", flow.client.place)),
        }
    }

    /// Keeps what the load balancer must know of Services.
    fn remember(&self, change: &Change) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Change::ApplyService(service) = change {
            services.insert(service.key(), service.clone());
        } else if let Change::DeleteService { namespace, name } = change {
            services.retain(|_, service| {
                service.metadata.namespace != *namespace || service.metadata.name != *name
            });
        }
    }
}

/// A client without a route has met nobody who took its packet.
fn as_told(saw: Observation) -> Observation {
    match saw {
        Observation::Saw(Outcome::Unreachable) => Observation::Saw(Outcome::Unhandled),
        other @ (Observation::Saw(_) | Observation::ProbeBroke(_)) => other,
    }
}

/// A flow that an agent keeps.
struct KeptThere {
    kept: RemoteFlow,
    deployments: Arc<Deployments>,
}

#[async_trait]
impl Kept for KeptThere {
    async fn ask(&mut self, wait: Duration) -> Observation {
        self.deployments.seen(as_told(self.kept.ask(wait).await))
    }
}
