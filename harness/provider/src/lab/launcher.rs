//! What the proxy of a node is started with: its subject's templates, filled in for the node.

use std::path::PathBuf;
use std::sync::Arc;

use touchstone_spec::{ClusterFacts, NodeFacts, ProxyWish};
use touchstone_subject::{Launch, NodeFacts as Told, Resolved, Selection};

use super::places::Places;
use super::start::{API_PORT, internal_ips};
use super::{backend, settings};
use crate::ClusterError;

/// Where a node's private files are.
const RUN_DIR: &str = "/run/touchstone";

/// One subject, ready to be started on any node.
pub(super) struct Launcher {
    pub(super) selection: Arc<Selection>,
    pub(super) resolved: Arc<Resolved>,
}

impl Launcher {
    /// Whether the proxy reads Endpoints instead of EndpointSlices.
    pub(super) fn reads_endpoints(&self) -> bool {
        let mode = self.selection.subject.file.modes.get(&self.selection.mode);
        mode.is_some_and(|mode| mode.reads_endpoints)
    }

    /// What starts it on a node with the settings of a wish.
    ///
    /// # Errors
    /// When its templates do not fit, or the lab lacks what the wish names.
    pub(super) fn launch(
        &self,
        node: &NodeFacts,
        wish: &ProxyWish,
        facts: &ClusterFacts,
        places: &Places,
    ) -> Result<Launch, ClusterError> {
        let told = Told {
            name: node.name.clone(),
            addresses: internal_ips(node),
            api_server: format!("http://127.0.0.1:{API_PORT}"),
            cluster_cidrs: facts.pod_cidrs.clone(),
            service_cidrs: facts.service_cidrs.clone(),
            proxy: settings::told(wish, &node.name, facts, places)?,
            run_dir: PathBuf::from(RUN_DIR),
        };
        let mut launch = Launch::render(&self.selection, &self.resolved, &told)
            .map_err(|error| ClusterError::new("failed to prepare the proxy", error))?;
        backend::choose(&mut launch, &facts.network);
        Ok(launch)
    }
}
