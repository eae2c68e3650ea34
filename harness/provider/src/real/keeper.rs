//! Who may change what no API server gives: the settings of proxies, and the network of nodes.

use std::collections::BTreeSet;

use async_trait::async_trait;
use touchstone_spec::{ClusterFacts, ClusterShape, ProxyAction};

use crate::ClusterError;

/// Somebody who owns a cluster's nodes, where the harness knows one.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// What it can do that not every cluster can, by the names that cases use in `needs: lab` and by
    /// the words of `NETWORK_NEEDS`.
    fn provides(&self) -> BTreeSet<String>;

    /// Why it cannot give proxies and nodes what a shape asks for; none when it can.
    fn lacks(&self, shape: &ClusterShape) -> Option<String>;

    /// Gives them what a shape asks for, and takes away what another one has asked for. The facts
    /// are those of the cluster, with the real nodes' names in `nodes`, in the order of the facts'.
    ///
    /// # Errors
    /// When a node refuses it, or proxies do not come up with it.
    async fn settle(
        &self,
        shape: &ClusterShape,
        facts: &ClusterFacts,
        nodes: &[String],
    ) -> Result<(), ClusterError>;

    /// Stops or starts the proxy of a node, by its real name.
    ///
    /// # Errors
    /// When the node refuses it.
    async fn act(&self, node: &str, action: ProxyAction) -> Result<(), ClusterError>;
}
