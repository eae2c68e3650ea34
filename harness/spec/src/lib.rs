//! Shared words as plain values: API objects, frontends, vantages, flows, outcomes, verdicts,
//! excuses, features.
//!
//! Everything here is data without behaviour beyond naming, ordering and printing itself.
//! No clock, no I/O, no randomness, no unordered maps.

mod act;
pub mod api;
mod api_service;
mod cluster;
mod expectation;
mod family;
mod feature;
mod flow;
mod names;
mod network;
mod outcome;
mod page;
mod plain_service;
mod plan;
mod proxy;
mod settings;
mod verdict;
mod virtual_server;
mod world;

pub use act::{Change, Deployed, NodeSays, PodWish, ProxyAction, ServerWish, VirtualServerAction};
pub use api_service::ApiService;
pub use cluster::{
    CLIENT_PORT, CaseAsks, ClientFacts, ClusterFacts, ClusterShape, FEW_REFUSALS, NodeFacts,
    PodFacts,
};
pub use expectation::{Allowed, Expectation, Reason};
pub use family::{Family, Protocol};
pub use feature::{FREEDOMS, Feature, FeatureError, Features, KNOWN_FEATURES, KnownFeature};
pub use flow::{Client, ClientKind, Flow, FrontendKind};
pub use names::{
    CLUSTER_DOMAIN, DNS_PORT, DnsFacts, NDOTS, NameAnswer, NameRecord, Question, RecordType,
    SITE_NAMES, SiteName, SiteRecord,
};
pub use network::{BALANCER, IPVS_NEED, NEIGHBOUR, NETWORK_NEEDS, SCTP_NEED};
pub use outcome::{Observation, Outcome, OutcomeKind, Refusal};
pub use page::{Asked, Condition, Look, Page, Selector};
pub use plain_service::{PlainPort, PlainService};
pub use proxy::{LOOPBACK_V4, LocalDetector, NodePortAddresses, ProxySettings, WishError};
pub use settings::{
    DetectLocal, Firewall, IptablesBackend, LoadBalancers, NetworkWish, NodesJoined, PodsToNodes,
    ProxyWish,
};
pub use verdict::{Excuse, Level, Listing, Verdict};
pub use virtual_server::VirtualServer;
pub use world::{Node, World};
