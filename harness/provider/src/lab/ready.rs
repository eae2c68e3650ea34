//! When a cluster counts as ready: a Service answers from every node in every family that the
//! proxy has.
//!
//! A proxy that calls itself healthy may not have seen a single Service.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use touchstone_spec::{Change, Observation, Outcome};

use super::cluster::LabCluster;
use super::objects;
use crate::{Cluster, ClusterError};

/// Limit of becoming ready.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at the canary.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long one look waits.
const WAIT: Duration = Duration::from_millis(300);

impl LabCluster {
    /// Waits until the canary answers everywhere.
    pub(super) async fn wait_for_canary(&self) -> Result<BTreeMap<String, u64>, ClusterError> {
        let began = Instant::now();
        let mut waiting = self.canary.clone();
        let mut tick = tokio::time::interval(INTERVAL);
        while !waiting.is_empty() {
            tick.tick().await;
            let looks = waiting.iter().map(|flow| self.probe(flow, WAIT));
            let seen = futures::future::join_all(looks).await;
            let late = seen.last().cloned();
            let mut answered = seen.iter().map(is_reached);
            waiting.retain(|_| !answered.next().unwrap_or(false));
            let first = waiting.first().map(|flow| flow.text.clone()).unwrap_or_default();
            if let Some(died) = self.died() {
                return Err(self.not_ready(died));
            }
            if began.elapsed() > LIMIT && !waiting.is_empty() {
                return Err(self.not_ready(format!(
                    "{first} does not answer {} s after the proxy was started (last seen: {})",
                    LIMIT.as_secs(),
                    late.map_or("nothing".to_owned(), |saw| said(&saw))
                )));
            }
        }
        self.tell_zones()?;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(BTreeMap::from([("canary".to_owned(), took)]))
    }

    /// Labels the nodes with their zones, as a cloud's controller does after nodes have joined.
    ///
    /// A proxy may miss for good what its Node said while it started (adjudication 0061), so the
    /// nodes of all clusters get their zones when the proxies are there to hear it.
    fn tell_zones(&self) -> Result<(), ClusterError> {
        for node in self.facts.nodes.iter().filter(|node| node.zone.is_some()) {
            let (node, zone) = (node.name.clone(), node.zone.clone());
            objects::apply(&self.api, &Change::SetZone { node, zone })?;
        }
        Ok(())
    }

    /// The error of a cluster that did not become ready, with the proxies' last lines.
    fn not_ready(&self, why: String) -> ClusterError {
        let mut text = why;
        if let Some((node, proxy)) = self
            .proxies
            .iter()
            .find(|(_, proxy)| proxy.died().is_some())
            .or_else(|| self.proxies.iter().next())
        {
            text.push_str(&format!("; last lines of the proxy on {node}:"));
            for line in proxy.last_lines() {
                text.push_str("\n  ");
                text.push_str(&line);
            }
        }
        // The first reason stays: later ones follow from it.
        let _ = self.unready.set(text.clone());
        ClusterError { act: "the cluster did not become ready".to_owned(), why: text, proxy: true }
    }
}

fn is_reached(saw: &Observation) -> bool {
    matches!(saw, Observation::Saw(Outcome::Reached { .. }))
}

fn said(saw: &Observation) -> String {
    match saw {
        Observation::Saw(outcome) => outcome.to_string(),
        Observation::ProbeBroke(why) => why.clone(),
    }
}
