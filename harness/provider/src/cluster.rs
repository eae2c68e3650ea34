//! The traits between the runner and whatever supplies a cluster.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedReceiver;
use touchstone_spec::{
    CaseAsks, Change, ClusterFacts, ClusterShape, Flow, Observation, PodFacts, PodWish, ServerWish,
};

/// Trouble with a cluster: of the harness, the lab or the API, never a verdict on a proxy.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{act}: {why}")]
pub struct ClusterError {
    /// What was being done, with its object.
    pub act: String,
    /// What went wrong, and the remedy if there is one.
    pub why: String,
    /// The proxy itself is the reason: it did not start, or ended, or did not answer in time.
    pub proxy: bool,
    /// Nothing is wrong but the time that it took.
    pub late: bool,
}

impl ClusterError {
    /// Trouble of our own.
    pub fn new(act: impl Into<String>, why: impl ToString) -> ClusterError {
        ClusterError { act: act.into(), why: why.to_string(), proxy: false, late: false }
    }
}

/// Why a cluster can no longer be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// What ended, and how.
    pub why: String,
    /// Whether it was a proxy; otherwise it is trouble of the lab.
    pub proxy: bool,
}

/// What a cluster must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRequest {
    /// Name within the run.
    pub name: String,
    /// Nodes, zones, outside clients.
    pub shape: ClusterShape,
}

/// Something that a cluster tells by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A proxy process ended.
    ProxyExited {
        /// Node.
        node: String,
        /// Exit status in words.
        status: String,
        /// Name of the exit by design, if it was one.
        by_design: Option<String>,
        /// Last lines of its log.
        last_lines: Vec<String>,
    },
    /// A proxy process was started again.
    ProxyRestarted {
        /// Node.
        node: String,
    },
}

/// A cluster that has been started.
pub struct Started {
    /// The cluster.
    pub cluster: Box<dyn Cluster>,
    /// What it tells by itself.
    pub notices: UnboundedReceiver<Notice>,
    /// Milliseconds that each part of the start took.
    pub took: BTreeMap<String, u64>,
    /// The proxy's whole configuration per node.
    pub configuration: BTreeMap<String, String>,
    /// Remarks, such as kernel settings that are missing.
    pub remarks: Vec<String>,
}

/// Supplies clusters.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name: `lab`, `sim`, `cluster`.
    fn name(&self) -> &'static str;

    /// Why it can supply no cluster for such a case; none when it can, or when starting one tells.
    fn lacks(&self, asks: &CaseAsks) -> Option<String> {
        let _ = asks;
        None
    }

    /// What is missing where cases cannot have what they need, in the words of an excuse; `need` is
    /// one of `NETWORK_NEEDS`, or a name of `needs: lab`.
    fn why_lacking(&self, need: &str) -> String {
        need.to_owned()
    }

    /// Whether it notices when a proxy ends; where not, nothing is said of that.
    fn notices_exits(&self) -> bool {
        true
    }

    /// Starts a cluster. Changes may be made when this returns; what its proxies do may be judged
    /// when [`Cluster::ready`] returns.
    ///
    /// # Errors
    /// When the cluster cannot be had, with the remedy.
    async fn start(&self, request: &ClusterRequest) -> Result<Started, ClusterError>;
}

/// Identity servers that listen until this is dropped.
pub type Servers = Box<dyn Any + Send>;

/// A running cluster.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Waits until a canary Service answers on every node and family; gives the milliseconds that
    /// each part of the wait took. A proxy that calls itself healthy may not have seen a Service.
    ///
    /// # Errors
    /// When it does not answer in time, with the proxies' last lines.
    async fn ready(&self) -> Result<BTreeMap<String, u64>, ClusterError>;

    /// What it says of itself.
    fn facts(&self) -> &ClusterFacts;

    /// Pods for one case alone, in the order of the wishes.
    ///
    /// # Errors
    /// When there is no room for them.
    async fn pods(&self, wishes: &[PodWish]) -> Result<Vec<PodFacts>, ClusterError>;

    /// Gives pods back.
    async fn release(&self, pods: Vec<PodFacts>);

    /// Makes identity servers listen.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    async fn serve(&self, wishes: &[ServerWish]) -> Result<Servers, ClusterError>;

    /// Makes one change. It is made when this returns, not necessarily seen by any proxy.
    ///
    /// # Errors
    /// When the API refuses it.
    async fn change(&self, change: &Change) -> Result<(), ClusterError>;

    /// Sends one attempt of a flow and says what was seen within `wait`.
    async fn probe(&self, flow: &Flow, wait: Duration) -> Observation;

    /// Opens a flow that is kept: one TCP connection, or one UDP source port.
    ///
    /// # Errors
    /// What was seen instead of a connection.
    async fn open(&self, flow: &Flow, wait: Duration) -> Result<Box<dyn Kept>, Observation>;

    /// The proxy's rules on a node, as far as they mention any of `needles`; nothing where the
    /// cluster cannot list rules.
    async fn rules(&self, _node: &str, _needles: &[String]) -> Vec<String> {
        Vec::new()
    }

    /// The proxies' rules that still mention any of these addresses, by node; none where the
    /// cluster cannot list rules at all.
    async fn mentions(
        &self,
        _addresses: &BTreeSet<IpAddr>,
    ) -> Option<BTreeMap<String, Vec<String>>> {
        None
    }

    /// UDP flows to any of these addresses that nodes go on sending to an endpoint, by node; none
    /// where the cluster cannot list flows.
    async fn udp_flows(
        &self,
        _addresses: &BTreeSet<IpAddr>,
    ) -> Option<BTreeMap<String, Vec<String>>> {
        None
    }

    /// Checks the cluster's own network past any proxy, host to host.
    ///
    /// # Errors
    /// What does not work.
    async fn control(&self) -> Result<(), String>;

    /// Why the cluster can no longer be used: a proxy, or something that the lab runs itself, ended
    /// unexpectedly.
    fn broken(&self) -> Option<Broken>;

    /// Damages the proxy's rules behind its back, when the run asks for it: to prove that cases
    /// notice.
    ///
    /// # Errors
    /// When the damage cannot be done.
    async fn sabotage(&self) -> Result<(), ClusterError>;

    /// The longest that those who probe for it elsewhere than in this process were late since a
    /// moment.
    fn late_since(&self, _since: Instant) -> Duration {
        Duration::ZERO
    }

    /// CPU time that the proxies have used so far.
    fn proxy_cpu(&self) -> Duration;

    /// How a person joins it: one command per line.
    fn how_to_join(&self) -> Vec<String>;

    /// Takes the cluster down; says what was left behind.
    async fn close(&self) -> Vec<String>;
}

/// A flow that is kept open.
#[async_trait]
pub trait Kept: Send {
    /// Sends one message over it.
    async fn ask(&mut self, wait: Duration) -> Observation;
}
