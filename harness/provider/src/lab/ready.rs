//! When a cluster counts as ready: a Service answers from every node in every family that the
//! proxy has, and names are answered where there is a name server.
//!
//! A proxy that calls itself healthy may not have seen a single Service.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use touchstone_spec::{Change, Flow, Observation, Outcome};

use super::cluster::LabCluster;
use super::dns::is_answered;
use super::objects;
use crate::{Broken, Cluster, ClusterError};

/// Between two looks at the canary.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long one look waits.
const WAIT: Duration = Duration::from_millis(300);

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
        self.answered(&self.canary, is_reached, true).await.map_err(of_proxy)?;
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

    /// Sends flows until each was answered once; `proxy` says whose fault it is when one is not.
    async fn answered(
        &self,
        flows: &[Flow],
        is_right: fn(&Observation) -> bool,
        proxy: bool,
    ) -> Result<(), Broken> {
        let began = Instant::now();
        let mut waiting = flows.to_vec();
        let mut tick = tokio::time::interval(INTERVAL);
        while !waiting.is_empty() {
            tick.tick().await;
            let looks = waiting.iter().map(|flow| self.probe(flow, WAIT));
            let seen = futures::future::join_all(looks).await;
            let late = seen.iter().rfind(|saw| !is_right(saw)).map(said);
            let mut right = seen.iter().map(is_right);
            waiting.retain(|_| !right.next().unwrap_or(false));
            if let Some(died) = self.died() {
                return Err(died);
            }
            if let (Some(first), true) = (waiting.first(), began.elapsed() > self.ready_limit) {
                let why = format!(
                    "{} does not answer within {} s (last seen: {})",
                    first.text,
                    self.ready_limit.as_secs(),
                    late.unwrap_or_else(|| "nothing".to_owned())
                );
                return Err(Broken { why, proxy });
            }
        }
        Ok(())
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
        ClusterError { act: "the cluster did not become ready".to_owned(), why: text, proxy }
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

fn is_reached(saw: &Observation) -> bool {
    matches!(saw, Observation::Saw(Outcome::Reached { .. }))
}

fn said(saw: &Observation) -> String {
    match saw {
        Observation::Saw(outcome) => outcome.to_string(),
        Observation::ProbeBroke(why) => why.clone(),
    }
}
