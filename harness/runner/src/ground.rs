//! What the steps of all cases on one cluster share.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use touchstone_provider::{Cluster, ClusterError};
use touchstone_spec::{Features, Observation};

use crate::cells::Cell;
use crate::machine::Machine;
use crate::sampling::Sampling;

/// Probes in flight at a time on one cluster that expect an answer.
const BUSY: usize = 24;
/// Probes in flight at a time on one cluster that expect silence: they cost nothing but time.
const SILENT: usize = 256;
/// Probes in flight at a time on one cluster that send many bytes: more would fill the queues of
/// the lab's own links and sockets.
const BULKY: usize = 2;
/// When a cluster's proxies may be judged; all cases on it wait for the same.
pub(crate) type Ready = Shared<BoxFuture<'static, Result<(), ClusterError>>>;

/// What a step runs on.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) features: Arc<Features>,
    pub(crate) sampling: Sampling,
    pub(crate) machine: Machine,
    pub(crate) alone: bool,
    pub(crate) slowness: u32,
    pub(crate) ready: Ready,
    busy: Arc<Semaphore>,
    silent: Arc<Semaphore>,
    bulky: Arc<Semaphore>,
}

impl Ground {
    pub(crate) fn new(
        cluster: Arc<dyn Cluster>,
        features: Arc<Features>,
        sampling: Sampling,
        machine: Machine,
        alone: bool,
        slowness: u32,
        ready: Ready,
    ) -> Ground {
        Ground {
            machine,
            ready,
            cluster,
            features,
            sampling,
            alone,
            slowness,
            busy: Arc::new(Semaphore::new(BUSY)),
            silent: Arc::new(Semaphore::new(SILENT)),
            bulky: Arc::new(Semaphore::new(BULKY)),
        }
    }

    /// Whether the cluster has become ready.
    pub(crate) fn was_ready(&self) -> bool {
        self.ready.peek().is_some_and(Result::is_ok)
    }

    /// Sends one attempt of a cell's flow when it is its turn.
    pub(crate) async fn probe(&self, cell: &Cell, wait: Duration) -> Observation {
        if cell.hurried {
            return self.cluster.probe(&cell.flow, wait).await;
        }
        let room = if cell.patience() > Cell::glance() { &self.busy } else { &self.silent };
        // The semaphores are never closed.
        let _bulky = if cell.flow.size > 0 { Some(self.bulky.acquire().await) } else { None };
        let _permit = room.acquire().await;
        self.cluster.probe(&cell.flow, wait).await
    }
}
