//! A cluster that answers from the model, with switchable defects.
//!
//! It shows that the suite agrees with itself, and with a defect switched on that it can fail.
//! The one place below the runner that may see the model.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;
use touchstone_spec::{
    Allowed, Change, ClusterFacts, Expectation, Features, Flow, Node, Observation, Outcome,
    PodFacts, PodWish, Protocol, Refusal, ServerWish, World,
};

use crate::{Broken, Cluster, ClusterError, ClusterRequest, Kept, Provider, Servers, Started};

/// A planted defect of the simulated proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// Clients' addresses are kept where the node's should be seen.
    NoMasquerade,
    /// Connections of one client are spread in spite of affinity.
    NoAffinity,
    /// All clients keep to the same endpoint.
    OneForAll,
    /// Clients keep to their endpoints for good.
    NeverForgets,
    /// The first endpoint of every set is never chosen.
    MissingEndpoint,
    /// The node n2 has no proxy at all.
    NodeWithoutProxy,
    /// One connection in a hundred is dropped.
    DropsOnePercent,
    /// Refuses where it should drop.
    RefusesInsteadOfDrops,
    /// UDP flows are chosen anew at each packet.
    ForgetsUdpFlows,
}

impl Defect {
    /// Every defect.
    pub const ALL: [Defect; 9] = [
        Defect::NoMasquerade,
        Defect::NoAffinity,
        Defect::OneForAll,
        Defect::NeverForgets,
        Defect::MissingEndpoint,
        Defect::NodeWithoutProxy,
        Defect::DropsOnePercent,
        Defect::RefusesInsteadOfDrops,
        Defect::ForgetsUdpFlows,
    ];
}

/// Supplies simulated clusters.
#[derive(Debug, Clone, Default)]
pub struct Sim {
    /// Features that the simulated proxy declares.
    pub features: Features,
    /// The defect that is switched on, if any.
    pub defect: Option<Defect>,
}

#[async_trait]
impl Provider for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    async fn start(&self, request: &ClusterRequest) -> Result<Started, ClusterError> {
        let facts = ClusterFacts::planned(&request.shape);
        let world = World {
            nodes: facts
                .nodes
                .iter()
                .map(|n| Node {
                    name: n.name.clone(),
                    zone: n.zone.clone(),
                    addresses: n.addresses.clone(),
                })
                .collect(),
            proxy: facts.proxy.clone(),
            network: facts.network.clone(),
            outside: facts.outside.clone(),
            balancer: facts.balancer.clone(),
            ..World::default()
        };
        let (_tell, notices) = mpsc::unbounded_channel();
        let cluster = SimCluster {
            facts,
            state: Arc::new(State {
                world: Mutex::new(world),
                features: self.features.clone(),
                defect: self.defect,
                turn: AtomicU64::new(0),
                kept: Mutex::default(),
            }),
            pods: Mutex::new(BTreeMap::new()),
        };
        Ok(Started {
            cluster: Box::new(cluster),
            notices,
            took: BTreeMap::new(),
            configuration: BTreeMap::new(),
            remarks: Vec::new(),
        })
    }
}

struct SimCluster {
    facts: ClusterFacts,
    state: Arc<State>,
    pods: Mutex<BTreeMap<String, u16>>,
}

/// A client's address, and what it connects to.
type SimClient = (IpAddr, SocketAddr, Protocol);

struct State {
    world: Mutex<World>,
    features: Features,
    defect: Option<Defect>,
    turn: AtomicU64,
    /// Where clients that keep to an endpoint are, and since when.
    kept: Mutex<BTreeMap<SimClient, (SocketAddr, Instant)>>,
}

impl State {
    /// The endpoint to which a client keeps, if it still may: else the one that a number chooses.
    fn keep<'a>(
        &self,
        flow: &Flow,
        expectation: &Expectation,
        choices: &[&'a Allowed],
        turn: u64,
    ) -> Option<&'a Allowed> {
        if self.defect == Some(Defect::OneForAll) {
            return choices.first().copied();
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let client = (flow.client.address, flow.to, flow.protocol);
        let timeout = expectation.keeps_for.map(|seconds| Duration::from_secs(seconds.into()));
        let forgets = self.defect != Some(Defect::NeverForgets);
        if let Some((at, since)) = kept.get_mut(&client)
            && !(forgets && timeout.is_some_and(|timeout| since.elapsed() > timeout))
            && let Some(choice) = choices.iter().find(|choice| is_at(choice, *at))
        {
            *since = Instant::now();
            return Some(choice);
        }
        let choice = chosen(choices, scattered(turn))?;
        if let Allowed::Reached { endpoint, .. } = choice {
            kept.insert(client, (*endpoint, Instant::now()));
        }
        Some(choice)
    }

    fn answer(&self, flow: &Flow, turn: u64) -> Outcome {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = touchstone_model::entry(&world, flow, &self.features);
        let node = entry.map(|node| node.name.clone());
        // The name server of the simulation answers for itself; the way to it is the proxy's.
        let through = entry.is_some_and(|node| {
            flow.question.is_some()
                || !touchstone_model::claim(&world, flow, node, &self.features).is_empty()
        });
        let expectation = touchstone_model::expect(&world, flow, &self.features);
        drop(world);
        if through {
            if self.defect == Some(Defect::NodeWithoutProxy) && node.as_deref() == Some("n2") {
                return Outcome::Unhandled;
            }
            if self.defect == Some(Defect::DropsOnePercent) && turn % 100 == 99 {
                return Outcome::Dropped;
            }
        }
        let mut choices: Vec<&Allowed> = expectation.allowed.iter().collect();
        if through && self.defect == Some(Defect::MissingEndpoint) && choices.len() > 1 {
            choices.remove(0);
        }
        let sticky = expectation.sticky && self.defect != Some(Defect::NoAffinity);
        let choice = match sticky {
            true => self.keep(flow, &expectation, &choices, turn),
            false => chosen(&choices, scattered(turn)),
        };
        let Some(choice) = choice else { return Outcome::Unhandled };
        match choice {
            Allowed::Reached { endpoint, sources } => {
                let source = if through && self.defect == Some(Defect::NoMasquerade) {
                    flow.client.address
                } else {
                    sources.iter().next().copied().unwrap_or(flow.client.address)
                };
                Outcome::Reached { endpoint: *endpoint, source, resent: 0 }
            }
            Allowed::Http { status, local_endpoints, shows: _ } => Outcome::Http {
                status: *status,
                local_endpoints: Some(*local_endpoints),
                shown: BTreeMap::new(),
            },
            Allowed::Refused => Outcome::Refused(Refusal::Reset),
            Allowed::Closed => Outcome::Reset,
            Allowed::Dropped if self.defect == Some(Defect::RefusesInsteadOfDrops) => {
                Outcome::Refused(Refusal::Reset)
            }
            Allowed::Dropped => Outcome::Dropped,
            Allowed::Unhandled => Outcome::Unhandled,
            Allowed::Answered(answer) => Outcome::Answered(answer.example()),
        }
    }

    fn admits(&self, flow: &Flow, outcome: &Outcome) -> bool {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        touchstone_model::expect(&world, flow, &self.features).admits(outcome)
    }

    fn next(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

#[async_trait]
impl Cluster for SimCluster {
    async fn ready(&self) -> Result<BTreeMap<String, u64>, ClusterError> {
        Ok(BTreeMap::new())
    }

    fn facts(&self) -> &ClusterFacts {
        &self.facts
    }

    async fn pods(&self, wishes: &[PodWish]) -> Result<Vec<PodFacts>, ClusterError> {
        let mut used = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        wishes
            .iter()
            .map(|wish| {
                let index = self
                    .facts
                    .nodes
                    .iter()
                    .position(|node| node.name == wish.node)
                    .ok_or_else(|| ClusterError::new("no such node", &wish.node))?;
                let number = used.entry(wish.node.clone()).or_insert(11);
                *number += 1;
                let pod = PodFacts::planned(&wish.node, index as u16 + 1, *number);
                Ok(pod.within(&self.facts.network))
            })
            .collect()
    }

    async fn release(&self, _pods: Vec<PodFacts>) {}

    async fn serve(&self, _wishes: &[ServerWish]) -> Result<Servers, ClusterError> {
        Ok(Box::new(()))
    }

    async fn change(&self, change: &Change) -> Result<(), ClusterError> {
        let mut world = self.state.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.apply(change);
        Ok(())
    }

    async fn probe(&self, flow: &Flow, _wait: Duration) -> Observation {
        Observation::Saw(self.state.answer(flow, self.state.next()))
    }

    async fn open(&self, flow: &Flow, _wait: Duration) -> Result<Box<dyn Kept>, Observation> {
        let turn = self.state.next();
        Ok(Box::new(SimKept { state: Arc::clone(&self.state), flow: flow.clone(), turn, at: None }))
    }

    async fn control(&self) -> Result<(), String> {
        Ok(())
    }

    fn broken(&self) -> Option<Broken> {
        None
    }

    async fn sabotage(&self) -> Result<(), ClusterError> {
        Ok(())
    }

    fn proxy_cpu(&self) -> Duration {
        Duration::ZERO
    }

    fn how_to_join(&self) -> Vec<String> {
        Vec::new()
    }

    async fn close(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A kept flow stays with its endpoint while that may still be reached. TCP stays in any case.
struct SimKept {
    state: Arc<State>,
    flow: Flow,
    turn: u64,
    at: Option<Outcome>,
}

#[async_trait]
impl Kept for SimKept {
    async fn ask(&mut self, _wait: Duration) -> Observation {
        let forgets = self.state.defect == Some(Defect::ForgetsUdpFlows);
        if let Some(at @ Outcome::Reached { .. }) = &self.at {
            let stays = match self.flow.protocol {
                Protocol::Udp => !forgets && self.state.admits(&self.flow, at),
                Protocol::Tcp | Protocol::Sctp => true,
            };
            if stays {
                return Observation::Saw(at.clone());
            }
        }
        let turn = if forgets { self.state.next() } else { self.turn };
        let now = self.state.answer(&self.flow, turn);
        self.at = Some(now.clone());
        Observation::Saw(now)
    }
}

/// A number without the order of its argument (the finaliser of `SplitMix64`): whoever asks in a
/// fixed rhythm must not meet the same endpoint each time.
fn scattered(turn: u64) -> u64 {
    let mut x = turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn chosen<'a>(choices: &[&'a Allowed], number: u64) -> Option<&'a Allowed> {
    choices.get((number % choices.len().max(1) as u64) as usize).copied()
}

fn is_at(choice: &Allowed, at: SocketAddr) -> bool {
    matches!(choice, Allowed::Reached { endpoint, .. } if *endpoint == at)
}
