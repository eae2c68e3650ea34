//! Where sockets are opened: pods, nodes and outside clients by name.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use touchstone_netlab::sockets::{self, SourcePorts};
use touchstone_netlab::{Error, Namespace, Pod, Topology};
use touchstone_probe::{Sockets, source_of};
use touchstone_spec::{ClientKind, Family, Flow, NEIGHBOUR, PodFacts, PodWish};

use crate::ClusterError;

/// The places of one cluster.
pub(super) struct Places {
    topology: Arc<Topology>,
    pods: Mutex<Pods>,
    /// The source ports of each place.
    source_ports: Mutex<BTreeMap<String, Arc<SourcePorts>>>,
}

#[derive(Default)]
struct Pods {
    /// All pods by place.
    by_place: BTreeMap<String, Arc<Pod>>,
    /// Places that nobody uses, by node, the longest unused first.
    idle: BTreeMap<String, VecDeque<String>>,
}

/// A namespace, held while it is used.
pub(super) enum Held {
    Pod(Arc<Pod>),
    Node(Arc<Topology>, usize),
    Outside(Arc<Topology>, usize),
    Neighbour(Arc<Topology>),
}

impl Held {
    pub(super) fn namespace(&self) -> Option<&Namespace> {
        match self {
            Held::Pod(pod) => Some(pod.namespace()),
            Held::Node(topology, index) => topology.nodes().nth(*index).map(|n| n.namespace()),
            Held::Neighbour(topology) => topology.neighbour(),
            Held::Outside(topology, index) => topology.outside().get(*index).map(|o| o.namespace()),
        }
    }
}

impl Places {
    pub(super) fn new(topology: Arc<Topology>) -> Places {
        Places { topology, pods: Mutex::default(), source_ports: Mutex::default() }
    }

    /// Pods for the wishes, new ones where no idle one stands on the node.
    pub(super) fn take(&self, wishes: &[PodWish]) -> Result<Vec<PodFacts>, ClusterError> {
        let failed = |error: Error| ClusterError::new("failed to make pods", error);
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
        for wish in wishes {
            *missing.entry(&wish.node).or_default() += 1;
        }
        for (node, count) in &mut missing {
            *count = count.saturating_sub(pods.idle.get(*node).map_or(0, VecDeque::len));
        }
        let wanted: Vec<(&str, usize)> =
            missing.into_iter().filter(|(_, count)| *count > 0).collect();
        for pod in self.topology.pods_on(&wanted).map_err(failed)? {
            let facts = facts(&pod);
            pods.idle.entry(facts.node.clone()).or_default().push_back(facts.place.clone());
            pods.by_place.insert(facts.place, Arc::new(pod));
        }
        let no_pod =
            |node: &str| ClusterError::new("failed to make pods", format!("none on {node}"));
        wishes
            .iter()
            .map(|wish| {
                let place = pods.idle.get_mut(&wish.node).and_then(VecDeque::pop_front);
                let pod = place.and_then(|place| pods.by_place.get(&place));
                pod.map(|pod| facts(pod)).ok_or_else(|| no_pod(&wish.node))
            })
            .collect()
    }

    /// Pods that nobody uses any more.
    pub(super) fn give_back(&self, facts: Vec<PodFacts>) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        for pod in facts {
            pods.idle.entry(pod.node).or_default().push_back(pod.place);
        }
    }

    /// The namespace of a place.
    pub(super) fn hold(&self, place: &str) -> Option<Held> {
        if let Some(index) = self.topology.nodes().position(|node| node.name() == place) {
            return Some(Held::Node(Arc::clone(&self.topology), index));
        }
        if let Some(index) = self.topology.outside().iter().position(|o| o.name() == place) {
            return Some(Held::Outside(Arc::clone(&self.topology), index));
        }
        if place == NEIGHBOUR && self.topology.neighbour().is_some() {
            return Some(Held::Neighbour(Arc::clone(&self.topology)));
        }
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.by_place.get(place).map(|pod| Held::Pod(Arc::clone(pod)))
    }

    /// Name of a pod's link on its node.
    pub(super) fn link(&self, place: &str) -> Option<String> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.by_place.get(place).map(|pod| pod.link())
    }

    fn source_ports(&self, place: &str) -> Arc<SourcePorts> {
        let mut all = self.source_ports.lock().unwrap_or_else(PoisonError::into_inner);
        let number = all.len();
        let ports = all.entry(place.to_owned());
        Arc::clone(ports.or_insert_with(|| Arc::new(SourcePorts::of_place(number))))
    }

    async fn open(
        &self,
        place: &str,
        open: impl FnOnce() -> std::io::Result<OwnedFd> + Send + 'static,
    ) -> Result<OwnedFd, String> {
        let failed = |why: String| format!("failed to open a socket in {place}: {why}");
        let held = self.hold(place).ok_or_else(|| failed("there is no such place".to_owned()))?;
        let namespace = held.namespace().ok_or_else(|| failed("it is gone".to_owned()))?;
        let opened = namespace.run_async(open);
        match opened.await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

impl Sockets for Places {
    async fn tcp(&self, flow: &Flow) -> Result<OwnedFd, String> {
        let (from, port) = (source_of(flow), flow.source_port);
        let ports = self.source_ports(&flow.client.place);
        let leaves = leaves_for_a_loopback(flow);
        self.open(&flow.client.place, move || {
            let socket = ports.tcp(from, port)?;
            if leaves {
                sockets::leave_by_uplink(&socket)?;
            }
            Ok(socket)
        })
        .await
    }

    async fn sctp(&self, flow: &Flow) -> Result<OwnedFd, String> {
        let from = SocketAddr::new(flow.client.address, 0);
        self.open(&flow.client.place, move || sockets::sctp_socket_from(from)).await
    }

    async fn udp(&self, flow: &Flow) -> Result<OwnedFd, String> {
        let (from, port) = (source_of(flow), flow.source_port);
        let ports = self.source_ports(&flow.client.place);
        let leaves = leaves_for_a_loopback(flow);
        self.open(&flow.client.place, move || {
            let socket = OwnedFd::from(ports.udp(from, port)?);
            if leaves {
                sockets::leave_by_uplink(&socket)?;
            }
            Ok(socket)
        })
        .await
    }
}

/// Whether a flow is for a loopback address of another machine.
fn leaves_for_a_loopback(flow: &Flow) -> bool {
    flow.client.kind != ClientKind::Node && flow.to.ip().is_loopback()
}

/// The facts of a pod.
pub(super) fn facts(pod: &Pod) -> PodFacts {
    PodFacts {
        place: format!("pod-{}-{}", pod.node(), pod.number()),
        node: pod.node().to_owned(),
        addresses: pod.addresses(),
    }
}

pub(super) fn lab_family(family: Family) -> touchstone_netlab::Family {
    match family {
        Family::V4 => touchstone_netlab::Family::V4,
        Family::V6 => touchstone_netlab::Family::V6,
    }
}
