//! The fields that a lie can be about: one about a field that nothing has would prove nothing.

use super::{FieldPath, How, Lie, Step};
use crate::kinds::KINDS;

/// Fields of the kinds that proxies read, lists with `[*]`. A path that leads to one, or on from
/// one into a map, is known too.
const FIELDS: [(&str, &[&str]); 4] = [
    (
        "Service",
        &[
            "metadata.name",
            "metadata.namespace",
            "metadata.labels",
            "metadata.annotations",
            "spec.type",
            "spec.clusterIP",
            "spec.clusterIPs[*]",
            "spec.ipFamilies[*]",
            "spec.ipFamilyPolicy",
            "spec.selector",
            "spec.ports[*].name",
            "spec.ports[*].protocol",
            "spec.ports[*].appProtocol",
            "spec.ports[*].port",
            "spec.ports[*].targetPort",
            "spec.ports[*].nodePort",
            "spec.externalIPs[*]",
            "spec.sessionAffinity",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            "spec.externalTrafficPolicy",
            "spec.internalTrafficPolicy",
            "spec.loadBalancerSourceRanges[*]",
            "spec.healthCheckNodePort",
            "spec.publishNotReadyAddresses",
            "spec.allocateLoadBalancerNodePorts",
            "spec.loadBalancerIP",
            "spec.loadBalancerClass",
            "spec.trafficDistribution",
            "spec.externalName",
            "status.loadBalancer.ingress[*].ip",
            "status.loadBalancer.ingress[*].ipMode",
            "status.loadBalancer.ingress[*].hostname",
            "status.loadBalancer.ingress[*].ports",
            "status.conditions",
        ],
    ),
    (
        "EndpointSlice",
        &[
            "metadata.name",
            "metadata.namespace",
            "metadata.labels",
            "metadata.annotations",
            "addressType",
            "ports[*].name",
            "ports[*].protocol",
            "ports[*].port",
            "ports[*].appProtocol",
            "endpoints[*].addresses[*]",
            "endpoints[*].nodeName",
            "endpoints[*].zone",
            "endpoints[*].hostname",
            "endpoints[*].targetRef",
            "endpoints[*].deprecatedTopology",
            "endpoints[*].conditions.ready",
            "endpoints[*].conditions.serving",
            "endpoints[*].conditions.terminating",
            "endpoints[*].hints.forZones[*].name",
            "endpoints[*].hints.forNodes[*].name",
        ],
    ),
    (
        "Node",
        &[
            "metadata.name",
            "metadata.labels",
            "metadata.annotations",
            "metadata.deletionTimestamp",
            "spec.podCIDR",
            "spec.podCIDRs[*]",
            "spec.taints[*].key",
            "spec.taints[*].value",
            "spec.taints[*].effect",
            "spec.unschedulable",
            "spec.providerID",
            "status.addresses[*].type",
            "status.addresses[*].address",
            "status.conditions",
            "status.nodeInfo",
            "status.capacity",
            "status.allocatable",
        ],
    ),
    ("ServiceCIDR", &["metadata.name", "spec.cidrs[*]", "status.conditions"]),
];

/// Fields that objects of every kind have and no proxy routes by.
const COMMON: [&str; 7] = [
    "metadata.uid",
    "metadata.resourceVersion",
    "metadata.generation",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "metadata.ownerReferences",
    "metadata.finalizers",
];

/// Fields that hold whatever somebody put there.
const OPEN: [&str; 11] = [
    "metadata.labels",
    "metadata.annotations",
    "metadata.ownerReferences",
    "metadata.finalizers",
    "spec.selector",
    "endpoints[*].targetRef",
    "endpoints[*].deprecatedTopology",
    "status.conditions",
    "status.nodeInfo",
    "status.capacity",
    "status.allocatable",
];

/// A lie that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untellable {
    /// The API server serves no such kind.
    #[error("there is no kind {kind}; {}", hint(.near.as_deref(), .known))]
    Kind {
        /// As it was written.
        kind: String,
        /// What may have been meant.
        near: Option<String>,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// Objects of the kind have no such field.
    #[error("{kind} has no field {path}; {}", hint(.near.as_deref(), .known))]
    Field {
        /// The kind.
        kind: String,
        /// As it was written.
        path: String,
        /// What may have been meant.
        near: Option<String>,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// Cluster addresses belong to Services alone.
    #[error("a {0} has no cluster addresses; write Service:clusterIP(v4) or Service:clusterIP(v6)")]
    NoClusterIps(String),
    /// Objects of the kind are nobody's own.
    #[error("a {0} belongs to the whole cluster and to no case; leave the case out")]
    NotInANamespace(String),
}

fn hint(near: Option<&str>, known: &[&'static str]) -> String {
    near.map_or_else(
        || format!("known: {}", known.join(", ")),
        |near| format!("did you mean {near}?"),
    )
}

/// The fields of a kind that lies can be about; none for a kind whose fields are not checked.
#[must_use]
pub fn known_fields(kind: &str) -> Option<&'static [&'static str]> {
    FIELDS.iter().find(|(name, _)| *name == kind).map(|(_, fields)| *fields)
}

impl Lie {
    /// Refuses a lie about a kind or a field that nothing has, since it would change nothing.
    ///
    /// # Errors
    /// With what may have been meant.
    pub fn check(&self) -> Result<(), Untellable> {
        let kinds = || KINDS.iter().map(|kind| kind.kind);
        let Some(kind) = KINDS.iter().find(|kind| kind.kind == self.kind) else {
            let near = nearest(&self.kind, kinds()).map(ToOwned::to_owned);
            let mut known: Vec<_> = kinds().collect();
            known.sort_unstable();
            known.dedup();
            return Err(Untellable::Kind { kind: self.kind.clone(), near, known });
        };
        if self.within.is_some() && !kind.namespaced {
            return Err(Untellable::NotInANamespace(self.kind.clone()));
        }
        let path = match &self.how {
            How::Hide(path) | How::Set(path, _) => path,
            How::HideClusterIps(_) if self.kind == "Service" => return Ok(()),
            How::HideClusterIps(_) => return Err(Untellable::NoClusterIps(self.kind.clone())),
        };
        let Some(fields) = known_fields(&self.kind) else { return Ok(()) };
        let written = general(path);
        let leads = |field: &str| {
            let rest = field.strip_prefix(written.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let leads_on = |open: &str| {
            written.strip_prefix(open).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        let all = || fields.iter().chain(&COMMON).copied();
        if all().any(leads) || OPEN.iter().any(|open| all().any(|f| f == *open) && leads_on(open)) {
            return Ok(());
        }
        let near = nearest(&written, fields.iter().copied()).map(ToOwned::to_owned);
        Err(Untellable::Field {
            kind: self.kind.clone(),
            path: path.to_string(),
            near,
            known: fields.to_vec(),
        })
    }
}

/// A path with every place in a list as `[*]`.
fn general(path: &FieldPath) -> String {
    let each = path.0.iter().map(|step| match step {
        Step::Index(_) => Step::Each,
        Step::Each | Step::Key(_) => step.clone(),
    });
    FieldPath(each.collect()).to_string()
}

/// The known word that is most like one that is not known.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |text: &'a str| text.rsplit('.').next().unwrap_or(text);
    let like = |candidate: &'a str| {
        let whole = strsim::normalized_damerau_levenshtein(word, candidate);
        // `spec.ready` is nearer to `endpoints[*].conditions.ready` than its letters tell.
        let end = word.rsplit('.').next().unwrap_or(word);
        let ends = strsim::normalized_damerau_levenshtein(end, last(candidate));
        whole.max(ends * 0.9)
    };
    known
        .map(|candidate| (like(candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.65)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn check(kind: &str, path: &str) -> Result<(), String> {
        let how = How::Hide(path.parse().unwrap());
        let lie = Lie {
            watcher: None,
            kind: kind.to_owned(),
            spared: BTreeSet::new(),
            within: None,
            how,
        };
        lie.check().map_err(|error| error.to_string())
    }

    #[test]
    fn paths_to_fields_and_into_maps_are_known() {
        for (kind, path) in [
            ("Service", "spec"),
            ("Service", "spec.ports[1]"),
            ("Service", "spec.ports[*].nodePort"),
            ("Service", "metadata.labels[\"a.b/c\"]"),
            ("Service", "metadata.uid"),
            ("EndpointSlice", "endpoints[0].addresses[0]"),
            ("EndpointSlice", "endpoints[*].hints"),
            ("Node", "status.addresses[*].address"),
            ("ServiceCIDR", "spec.cidrs"),
            ("Pod", "whatever"),
        ] {
            assert_eq!(check(kind, path), Ok(()), "{kind}:{path}");
        }
        for (_, fields) in FIELDS {
            for field in fields {
                field.parse::<FieldPath>().unwrap();
            }
        }
    }

    #[test]
    fn others_are_refused_with_a_suggestion() {
        let refused = |kind, path| check(kind, path).unwrap_err();
        assert_eq!(refused("Serivce", "spec"), "there is no kind Serivce; did you mean Service?");
        assert!(refused("X", "spec").contains("known: ConfigMap, EndpointSlice, Endpoints"));
        assert_eq!(
            refused("Service", "spec.externalTraficPolicy"),
            "Service has no field spec.externalTraficPolicy; \
             did you mean spec.externalTrafficPolicy?"
        );
        assert_eq!(
            refused("EndpointSlice", "endpoints[*].ready"),
            "EndpointSlice has no field endpoints[*].ready; \
             did you mean endpoints[*].conditions.ready?"
        );
        assert!(refused("Node", "spec.zzz").contains("known: metadata.name, "));
        assert!(refused("Service", "spec.typ").contains("did you mean spec.type?"));
        let lie = |kind: &str, how, within: Option<&str>| {
            let within = within.map(ToOwned::to_owned);
            Lie { watcher: None, kind: kind.to_owned(), spared: BTreeSet::new(), within, how }
                .check()
                .unwrap_err()
        };
        let hide = How::HideClusterIps(crate::Family::V4);
        assert!(lie("Node", hide, None).to_string().contains("a Node has no cluster addresses"));
        let hide = How::Hide("spec".parse().unwrap());
        assert!(lie("Node", hide, Some("x")).to_string().contains("belongs to the whole cluster"));
    }
}
