//! Capabilities that subjects declare and cases ask for.
//!
//! Cases and subjects never know each other; these names are the only words they share.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One feature that the suite knows, and what declaring it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFeature {
    /// Name.
    pub name: &'static str,
    /// What a subject that declares it promises.
    pub promise: &'static str,
}

/// Every feature the suite knows.
pub const KNOWN_FEATURES: &[KnownFeature] = &[
    KnownFeature { name: "ipv4", promise: "serves IPv4 frontends" },
    KnownFeature { name: "ipv6", promise: "serves IPv6 frontends" },
    KnownFeature { name: "tcp", promise: "serves TCP ports" },
    KnownFeature { name: "udp", promise: "serves UDP ports" },
    KnownFeature { name: "sctp", promise: "serves SCTP ports" },
    KnownFeature { name: "node-port", promise: "serves node ports" },
    KnownFeature { name: "load-balancer", promise: "serves load-balancer addresses" },
    KnownFeature { name: "external-ips", promise: "serves external IPs" },
    KnownFeature { name: "internal-traffic-policy", promise: "honours internalTrafficPolicy" },
    KnownFeature { name: "external-traffic-policy", promise: "honours externalTrafficPolicy" },
    KnownFeature { name: "session-affinity", promise: "honours sessionAffinity ClientIP" },
    KnownFeature { name: "source-ranges", promise: "honours loadBalancerSourceRanges" },
    KnownFeature { name: "health-check-node-port", promise: "answers health checks" },
    KnownFeature {
        name: "terminating-endpoints",
        promise: "falls back to serving terminating endpoints (KEP-1669)",
    },
    KnownFeature {
        name: "load-balancer-ip-mode",
        promise: "honours ipMode of load-balancer ingress (KEP-1860)",
    },
    KnownFeature {
        name: "zone-hints",
        promise: "honours zone hints in slices without asking for more (KEP-2433)",
    },
    KnownFeature { name: "node-hints", promise: "honours node hints in slices (KEP-3015)" },
    KnownFeature {
        name: "rejects-unused-ports",
        promise: "refuses ports of a cluster IP that no Service port uses",
    },
    KnownFeature {
        name: "drops-unallocated-cluster-ips",
        promise: "drops packets to addresses of the Service range that no Service has",
    },
    KnownFeature {
        name: "hairpin-without-node-name",
        promise: "lets a pod reach itself through a Service whose slice does not name the pod's node",
    },
    KnownFeature {
        name: "headless-label-hides-services",
        promise: "leaves Services alone that have a cluster IP and the label for headless ones",
    },
    KnownFeature {
        name: "rejects-external-from-node",
        promise: "refuses a node's own connections to external addresses of a Service without endpoints",
    },
    KnownFeature {
        name: "source-ranges-without-endpoints",
        promise: "drops clients outside the source ranges even when there are no endpoints",
    },
    KnownFeature {
        name: "health-check-weight",
        promise: "tells the number of local endpoints in the header X-Load-Balancing-Endpoint-Weight",
    },
    KnownFeature {
        name: "cluster-ips-from-outside",
        promise: "serves packets to cluster IPs that enter a node from outside the cluster",
    },
    KnownFeature {
        name: "localhost-node-ports",
        promise: "serves IPv4 node ports on 127.0.0.0/8, unless told otherwise",
    },
    KnownFeature {
        name: "no-localhost-node-ports",
        promise: "leaves node ports on IPv4 loopback addresses alone",
    },
    KnownFeature {
        name: "no-ipv6-localhost-node-ports",
        promise: "leaves node ports on the IPv6 loopback address alone",
    },
    KnownFeature {
        name: "localhost-node-ports-switch",
        promise: "can be told whether node ports answer on loopback addresses",
    },
    KnownFeature {
        name: "node-ports-on-all-addresses",
        promise: "serves node ports on every address of a node, unless told otherwise",
    },
    KnownFeature {
        name: "node-ports-on-primary-addresses",
        promise: "serves node ports on nothing but the addresses in the Node object, unless told otherwise",
    },
    KnownFeature {
        name: "node-port-addresses",
        promise: "can be told by ranges which addresses accept node ports",
    },
    KnownFeature {
        name: "node-port-addresses-primary",
        promise: "can be told to serve node ports on the addresses in the Node object only",
    },
    KnownFeature {
        name: "node-port-address-words",
        promise: "takes the words primary, localhost and all beside ranges of node-port addresses",
    },
    KnownFeature {
        name: "node-port-addresses-limit-drops",
        promise: "drops packets to node ports on no address that does not accept node ports",
    },
    KnownFeature {
        name: "node-port-addresses-limit-health-checks",
        promise: "answers health checks on no address that does not accept node ports",
    },
    KnownFeature {
        name: "detect-local-cluster-cidr",
        promise: "can tell pods by the ranges of all pods",
    },
    KnownFeature {
        name: "detect-local-node-cidr",
        promise: "can tell pods by the pod ranges of the own Node object",
    },
    KnownFeature {
        name: "detect-local-bridge",
        promise: "can tell pods by the one link by which their packets arrive",
    },
    KnownFeature {
        name: "detect-local-interface-prefix",
        promise: "can tell pods by the beginning of the name of the link by which packets arrive",
    },
    KnownFeature {
        name: "detect-local-none",
        promise: "can do without telling pods from other clients",
    },
    KnownFeature {
        name: "masquerade-all",
        promise: "can be told to masquerade all traffic to cluster IPs",
    },
    KnownFeature {
        name: "sync-periods",
        promise: "can be told the longest and the shortest time between two syncs",
    },
    KnownFeature {
        name: "forwards-through-drop-policy",
        promise: "accepts what it masquerades, and the replies to it, where iptables' FORWARD policy is DROP",
    },
    KnownFeature {
        name: "opens-health-check-in-input",
        promise: "accepts packets to health-check node ports where iptables' INPUT policy is DROP",
    },
    KnownFeature {
        name: "flushes-udp-on-service-delete",
        promise: "forgets UDP flows to the cluster IP of a deleted Service",
    },
    KnownFeature { name: "healthz", promise: "serves a page that says whether it is healthy" },
    KnownFeature {
        name: "healthz-json",
        promise: "says in JSON since when it is up to date and whether its node takes traffic",
    },
    KnownFeature { name: "livez", promise: "serves a page that says whether it is alive" },
    KnownFeature { name: "proxy-mode-page", promise: "serves a page that names its mode" },
    KnownFeature { name: "metrics", promise: "serves metrics in the text format of Prometheus" },
    KnownFeature {
        name: "metrics-server-pages",
        promise: "serves /healthz and /configz beside its metrics",
    },
    KnownFeature {
        name: "metrics-on-loopback",
        promise: "serves its metrics to its own node alone unless told otherwise",
    },
    KnownFeature {
        name: "metrics-sync",
        promise: "counts its syncs, queued changes and their times in kubeproxy_ metrics",
    },
    KnownFeature {
        name: "metrics-health-pages",
        promise: "counts the answers of its health pages in kubeproxy_ metrics",
    },
    KnownFeature {
        name: "metrics-iptables-failures",
        promise: "counts syncs of iptables rules that failed in kubeproxy_ metrics",
    },
    KnownFeature {
        name: "metrics-nftables-failures",
        promise: "counts syncs of nftables rules that failed in kubeproxy_ metrics",
    },
    KnownFeature {
        name: "health-follows-sync",
        promise: "calls itself unhealthy when a change waits for twice its sync period",
    },
    KnownFeature {
        name: "health-follows-node",
        promise: "calls itself unhealthy, though alive, while its node is about to be deleted",
    },
    KnownFeature {
        name: "metrics-partial-sync",
        promise: "measures syncs that write only what changed apart from those that write all",
    },
    KnownFeature {
        name: "health-check-body",
        promise: "tells Service, local endpoints and its own health in the body of health checks",
    },
    KnownFeature {
        name: "metrics-no-local-endpoints",
        promise: "counts Services whose Local policy leaves them without endpoints on the node",
    },
    KnownFeature {
        name: "metrics-network-programming",
        promise: "measures the time from a changed endpoint to its rules",
    },
    KnownFeature {
        name: "metrics-ip-family",
        promise: "tells the address family of syncs in a label of its metrics",
    },
    KnownFeature {
        name: "metrics-conntrack",
        promise: "measures the cleaning of conntrack in kubeproxy_ metrics",
    },
    KnownFeature {
        name: "metrics-iptables-rules",
        promise: "counts its iptables rules in kubeproxy_ metrics",
    },
    KnownFeature {
        name: "metrics-iptables-rules-of-last-sync",
        promise: "counts the iptables rules of its last sync in a kubeproxy_ metric",
    },
    KnownFeature {
        name: "refuses-unused-external-ports",
        promise: "refuses ports of external IPs and load-balancer addresses that no Service port uses",
    },
    KnownFeature {
        name: "refuses-without-local-endpoints",
        promise: "may refuse where a policy Local leaves a node without endpoints, instead of dropping",
    },
    KnownFeature {
        name: "prefers-local-endpoints-under-local",
        promise: "gives clients on a node that use external addresses under policy Local the node's own endpoints, and others where it has none",
    },
    KnownFeature {
        name: "no-own-traffic-under-local",
        promise: "leaves open what a node meets at external addresses of Services with externalTrafficPolicy Local",
    },
    KnownFeature {
        name: "sends-on-as-the-node",
        promise: "takes packets to Services in and sends them on as the node's own, so that the node's rules for input apply and those for what it forwards do not",
    },
    KnownFeature {
        name: "external-ips-of-nodes",
        promise: "serves external IPs that are addresses of nodes, and the nodes stay reachable by them",
    },
    KnownFeature {
        name: "hairpin-as-the-service",
        promise: "may show an endpoint that reaches itself the address that it asked, not one of its node",
    },
    KnownFeature {
        name: "keeps-pods-on-external-addresses",
        promise: "may show endpoints a pod's own address where the pod used a node port or an external address",
    },
    KnownFeature {
        name: "relays",
        promise: "ends connections itself and has its own to endpoints, so that these see the node, and a connection is accepted before an endpoint is found",
    },
    KnownFeature {
        name: "virtual-servers",
        promise: "has the kernel balance, by one virtual server for each address and port of a Service",
    },
    KnownFeature {
        name: "scheduler",
        promise: "can be told how virtual servers choose, by the name of a scheduler of the kernel",
    },
    KnownFeature {
        name: "virtual-server-timeouts",
        promise: "can be told after how long the kernel forgets silent flows of virtual servers",
    },
    KnownFeature {
        name: "exclude-cidrs",
        promise: "can be told ranges of addresses in which virtual servers of others are left alone",
    },
    KnownFeature {
        name: "address-sets",
        promise: "says by the kernel's sets KUBE-CLUSTER-IP and their likes what is to be done with packets to an address",
    },
    KnownFeature {
        name: "strict-arp",
        promise: "can be told to have no node answer on its links for addresses of Services",
    },
    KnownFeature {
        name: "leaves-link-addresses-alone",
        promise: "has no node answer on its links for addresses of Services",
    },
    KnownFeature {
        name: "changes-at-once",
        promise: "serves no address of a Service before its masquerading, its policies, its source ranges and what closes its other ports are in force, and refuses none while its policy changes",
    },
    KnownFeature {
        name: "restartable",
        promise: "may be stopped and started again while its rules keep serving",
    },
];

/// Features that allow more than the API does by itself: whoever stands for the API has none.
pub const FREEDOMS: &[&str] = &[
    "refuses-without-local-endpoints",
    "prefers-local-endpoints-under-local",
    "no-own-traffic-under-local",
    "sends-on-as-the-node",
    "hairpin-as-the-service",
    "keeps-pods-on-external-addresses",
    "relays",
];

/// The name of a capability, one of [`KNOWN_FEATURES`].
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Feature(String);

/// A feature name that the suite does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown feature {name:?}{}", suggestion.map(|s| format!("; did you mean {s:?}?")).unwrap_or_default())]
pub struct FeatureError {
    name: String,
    suggestion: Option<&'static str>,
}

impl Feature {
    /// A feature by name.
    ///
    /// # Errors
    /// When the suite does not know the name.
    pub fn new(name: &str) -> Result<Feature, FeatureError> {
        if KNOWN_FEATURES.iter().any(|known| known.name == name) {
            return Ok(Feature(name.to_owned()));
        }
        let suggestion = KNOWN_FEATURES
            .iter()
            .map(|known| known.name)
            .find(|known| known.contains(name) || name.contains(known));
        Err(FeatureError { name: name.to_owned(), suggestion })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Feature {
    type Error = FeatureError;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Feature::new(&name)
    }
}

impl From<Feature> for String {
    fn from(feature: Feature) -> String {
        feature.0
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The features that a subject declares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features(BTreeSet<Feature>);

impl Features {
    /// Whether the subject declares a feature, by name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        debug_assert!(KNOWN_FEATURES.iter().any(|known| known.name == name), "{name}");
        self.0.iter().any(|feature| feature.name() == name)
    }

    /// Every known feature but the [`FREEDOMS`].
    #[must_use]
    pub fn strictest() -> Features {
        let names = KNOWN_FEATURES.iter().map(|known| known.name);
        let names = names.filter(|name| !FREEDOMS.contains(name));
        names.filter_map(|name| Feature::new(name).ok()).collect()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Feature> {
        self.0.iter()
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        Features(features.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let names: BTreeSet<&str> = KNOWN_FEATURES.iter().map(|feature| feature.name).collect();
        assert_eq!(names.len(), KNOWN_FEATURES.len());
        assert!(FREEDOMS.iter().all(|name| names.contains(name)));
    }

    #[test]
    fn names_are_checked() {
        assert!(Feature::new("node-hints").is_ok());
        let err = Feature::new("hints").expect_err("not a feature");
        assert_eq!(err.to_string(), "unknown feature \"hints\"; did you mean \"zone-hints\"?");
    }
}
