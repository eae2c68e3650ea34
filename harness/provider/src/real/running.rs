//! A cluster as one batch of cases sees it.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use touchstone_agent::{RemoteFlow, RemoteServers};
use touchstone_spec::{
    Change, ClusterFacts, Flow, Observation, Outcome, PodFacts, PodWish, ServerWish,
};

use super::agents::Shared;
use super::objects::Objects;
use crate::{Broken, Cluster, ClusterError, Kept, Servers, canary};

/// How long the canary may take to answer everywhere.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A part of a real cluster.
pub(super) struct RealCluster {
    pub(super) facts: ClusterFacts,
    pub(super) agents: Shared,
    pub(super) objects: Objects,
    /// What is done in the end: the canary goes, and nodes get their zones back.
    pub(super) undo: Vec<Change>,
    pub(super) flows: Vec<Flow>,
    pub(super) unready: OnceLock<Broken>,
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
            let why = format!("{}; does a proxy run on every node?", broken.why);
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
        self.agents.take(wishes).await
    }

    async fn release(&self, pods: Vec<PodFacts>) {
        self.agents.give_back(pods);
    }

    async fn serve(&self, wishes: &[ServerWish]) -> Result<Servers, ClusterError> {
        let mut by_place: BTreeMap<&str, Vec<ServerWish>> = BTreeMap::new();
        for wish in wishes {
            by_place.entry(&wish.place).or_default().push(wish.clone());
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
        self.objects.apply(change).await
    }

    async fn probe(&self, flow: &Flow, wait: Duration) -> Observation {
        match self.agents.at(&flow.client.place) {
            Some(agent) => as_told(agent.probe(flow, wait).await),
            None => Observation::ProbeBroke(format!("no agent is in {}", flow.client.place)),
        }
    }

    async fn open(&self, flow: &Flow, wait: Duration) -> Result<Box<dyn Kept>, Observation> {
        match self.agents.at(&flow.client.place) {
            Some(agent) => match agent.open(flow, wait).await {
                Ok(kept) => Ok(Box::new(kept)),
                Err(saw) => Err(as_told(saw)),
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

/// A client without a route has met nobody who took its packet.
fn as_told(saw: Observation) -> Observation {
    match saw {
        Observation::Saw(Outcome::Unreachable) => Observation::Saw(Outcome::Unhandled),
        other @ (Observation::Saw(_) | Observation::ProbeBroke(_)) => other,
    }
}

#[async_trait]
impl Kept for RemoteFlow {
    async fn ask(&mut self, wait: Duration) -> Observation {
        as_told(RemoteFlow::ask(self, wait).await)
    }
}
