//! What befalls a proxy on a cluster that is one case's own doing (decision 0013).

use touchstone_provider::ClusterError;
use touchstone_record::Failure;
use touchstone_spec::{ClusterShape, NetworkWish, ProxyWish};

/// Whether a cluster that is not to be had is a finding about what its cases ask for: settings of
/// the proxies, or a network in which others have rules too.
pub(crate) fn of_the_settings(shape: &ClusterShape, error: &ClusterError) -> bool {
    error.proxy && (is_configured(shape) || shape.network != NetworkWish::default())
}

fn is_configured(shape: &ClusterShape) -> bool {
    shape.proxy != ProxyWish::default()
}

/// What a case fails with when proxies on a cluster as it asks for never served anything.
pub(crate) fn never_served(shape: &ClusterShape, error: &ClusterError) -> Failure {
    let (with, why) = if is_configured(shape) {
        ("the proxies configured", "the subject declares that it can be configured so")
    } else {
        ("the network set up", "pods reach Services whatever else is set up on nodes and links")
    };
    Failure {
        flow: "pods of every node → the first Service of the cluster".to_owned(),
        allowed: vec![format!("reached, with {with} as the case asks")],
        because: vec![why.to_owned()],
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
