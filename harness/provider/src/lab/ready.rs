//! When a cluster counts as ready: a Service answers from every node in every family that the
//! proxy has, and names are answered where there is a name server.
//!
//! A proxy that calls itself healthy may not have seen a single Service.

use std::collections::BTreeMap;
use std::time::Instant;

use touchstone_spec::{Change, Flow, Observation};

use super::cluster::LabCluster;
use super::dns::is_answered;
use super::objects;
use crate::{Broken, ClusterError, canary};

impl LabCluster {
    /// Waits until the canary answers everywhere, and the name server where there is one.
    pub(super) async fn become_ready(&self) -> Result<BTreeMap<String, u64>, ClusterError> {
        let mut took = BTreeMap::new();
        let mut began = Instant::now();
        let mut lap = |part: &str| {
            let spent = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            took.insert(part.to_owned(), spent);
            began = Instant::now();
        };
        let of_proxy = |broken| self.not_ready(broken);
        self.answered(&self.canary, canary::is_reached, true).await.map_err(of_proxy)?;
        self.tell_zones()?;
        lap("canary");
        if self.name_server.is_some() {
            let first = &self.first_questions;
            self.answered(&first.direct, is_answered, false).await.map_err(of_proxy)?;
            self.answered(&first.through, is_answered, true).await.map_err(of_proxy)?;
            lap("names");
        }
        Ok(took)
    }

    async fn answered(
        &self,
        flows: &[Flow],
        is_right: fn(&Observation) -> bool,
        proxy: bool,
    ) -> Result<(), Broken> {
        canary::answered(self, flows, is_right, self.ready_limit, proxy).await
    }

    /// Labels the nodes with their zones, as a cloud's controller does after nodes have joined.
    ///
    /// A proxy may miss for good what its Node said while it started (adjudication 0061), so the
    /// nodes of all clusters get their zones when the proxies are there to hear it.
    fn tell_zones(&self) -> Result<(), ClusterError> {
        for node in self.facts.nodes.iter().filter(|node| node.zone.is_some()) {
            objects::apply(&self.api, &Change::zone_of(node))?;
        }
        Ok(())
    }

    /// The error of a cluster that did not become ready, with the last lines of the program whose
    /// fault it is.
    fn not_ready(&self, broken: Broken) -> ClusterError {
        let Broken { why: mut text, proxy } = broken;
        let (of, lines) = if proxy { self.proxy_lines() } else { self.name_server_lines() };
        text.push_str(&of);
        for line in lines {
            text.push_str("\n  ");
            text.push_str(&line);
        }
        // The first reason stays: later ones follow from it.
        let _ = self.unready.set(Broken { why: text.clone(), proxy });
        let late = self.died().is_none();
        ClusterError { act: "the cluster did not become ready".to_owned(), why: text, proxy, late }
    }

    /// The last lines of a proxy that ended, or else of the first.
    fn proxy_lines(&self) -> (String, Vec<String>) {
        let ended = self.proxies.iter().find(|(_, proxy)| proxy.died().is_some());
        let any = || self.proxies.iter().next();
        ended.or_else(any).map_or_else(Default::default, |(node, proxy)| {
            (format!("; last lines of the proxy on {node}:"), proxy.last_lines())
        })
    }

    fn name_server_lines(&self) -> (String, Vec<String>) {
        self.name_server.as_ref().map_or_else(Default::default, |server| {
            ("; last lines of the name server:".to_owned(), server.last_lines())
        })
    }
}
