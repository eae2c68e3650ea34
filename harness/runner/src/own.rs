//! What befalls a proxy on a cluster that is one case's own doing (decision 0013).

use touchstone_provider::ClusterError;
use touchstone_record::Failure;
use touchstone_spec::{ClusterShape, ProxyWish};

/// Whether a cluster that is not to be had is a finding about the settings that its cases ask for.
pub(crate) fn of_the_settings(shape: &ClusterShape, error: &ClusterError) -> bool {
    error.proxy && shape.proxy != ProxyWish::default()
}

/// What a case fails with when proxies with its settings never served anything.
pub(crate) fn never_served(error: &ClusterError) -> Failure {
    Failure {
        flow: "pods of every node → the first Service of the cluster".to_owned(),
        allowed: vec!["reached, with the proxies configured as the case asks".to_owned()],
        because: vec!["the subject declares that it can be configured so".to_owned()],
        seen: vec![error.act.clone()],
        evidence: vec![error.why.clone()],
        ..of_the_process()
    }
}

/// What a case, or the whole run, fails with when a proxy ended without reason.
pub(crate) fn ended(seen: String, evidence: Vec<String>) -> Failure {
    Failure { seen: vec![seen], evidence, ..of_the_process() }
}

fn of_the_process() -> Failure {
    Failure {
        step: 0,
        at_ms: 0,
        flow: "the proxy's process".to_owned(),
        line: None,
        allowed: vec!["runs until it is stopped, or ends by design".to_owned()],
        because: vec![],
        seen: vec![],
        phase: None,
        rules: vec![],
        evidence: vec![],
    }
}
