//! A case at one point of its axes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use touchstone_spec::api::{IpMode, ServiceType, SessionAffinity, TrafficPolicy};
use touchstone_spec::{
    CaseAsks, ClusterShape, DetectLocal, Family, Feature, FrontendKind, Level, Page, PodWish,
    Protocol, ProxyWish, SCTP_NEED,
};

use crate::grammar::{Target, transport};
use crate::harm;
use crate::lab_needs;
use crate::refused;
use crate::text::{
    CaseFile, ChangeText, EndpointText, FamilyAxis, Listing, RowText, ServiceText,
    SliceEndpointText, SlicesBy, Words,
};
use crate::{Case, compile, planned_book};

/// A case at one point of its axes: what is planned, run and judged.
#[derive(Debug, Clone)]
pub struct Variant {
    case: Arc<Case>,
    family: FamilyAxis,
    protocol: Protocol,
}

impl Variant {
    /// Every variant of a case, families first.
    #[must_use]
    pub fn all(case: &Arc<Case>) -> Vec<Variant> {
        let axes = &case.body().axes;
        let mut variants = Vec::new();
        for family in &axes.family {
            for protocol in &axes.protocol {
                let (case, family, protocol) = (Arc::clone(case), *family, protocol.protocol());
                variants.push(Variant { case, family, protocol });
            }
        }
        variants
    }

    /// `cluster-ip/basic[v4,tcp]`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}[{},{}]", self.case.id(), self.family, self.protocol)
    }

    /// The case.
    #[must_use]
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// Another case at the same point of its axes.
    pub(crate) fn of_case(&self, case: Arc<Case>) -> Variant {
        Variant { case, family: self.family, protocol: self.protocol }
    }

    /// Its point on the family axis.
    #[must_use]
    pub fn family(&self) -> FamilyAxis {
        self.family
    }

    /// Its point on the protocol axis.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How binding it is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.case.level()
    }

    /// Nodes, zones and outside clients that it needs.
    #[must_use]
    pub fn shape(&self) -> ClusterShape {
        self.case.needs().shape.clone()
    }

    /// Whether it needs a cluster of its own.
    #[must_use]
    pub fn alone(&self) -> bool {
        self.case.needs().alone
    }

    /// What not every cluster can do: what the file names, and `pages` where an HTTP answer is
    /// looked into, `nodes` where a Node says more than another zone, `clients` where a row has
    /// many, and `servers` where an endpoint is outside.
    #[must_use]
    pub fn lab_needs(&self) -> BTreeSet<String> {
        let follow = lab_needs::following(self.case.body()).map(str::to_owned);
        self.case.needs().lab.iter().cloned().chain(follow).collect()
    }

    /// What the machine must have for the network that it asks for.
    #[must_use]
    pub fn host_needs(&self) -> BTreeSet<&'static str> {
        let mut needs = self.case.needs().shape.network.needs();
        if self.speaks_sctp() {
            needs.insert(SCTP_NEED);
        }
        needs
    }

    /// Whether any client or server of it speaks SCTP: a Service port that nobody asks for needs
    /// nothing of the kernel.
    fn speaks_sctp(&self) -> bool {
        if !self.features().iter().any(|feature| feature.name() == "sctp") {
            return false;
        }
        let Ok(script) = compile(self, &mut planned_book(self)) else { return true };
        script.steps.iter().any(|step| {
            let rows = step.rows.iter().map(|row| &row.flow).chain(&step.matrix);
            let traffic = step.traffic.iter().flat_map(|traffic| &traffic.flows);
            let mut clients = rows.chain(traffic).map(|flow| flow.protocol);
            let mut servers = step.servers.iter().map(|server| server.protocol);
            clients.any(|protocol| protocol == Protocol::Sctp)
                || servers.any(|protocol| protocol == Protocol::Sctp)
        })
    }

    /// Features that a subject must have: those that the file names, those of the axes, and those
    /// that follow from the types, fields, frontends and changes that the case uses.
    #[must_use]
    pub fn features(&self) -> BTreeSet<Feature> {
        let mut names = Used::default();
        for family in self.family.families() {
            names.add(match family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            });
        }
        let body = self.case.body();
        names.proxy(&self.case.needs().shape.proxy);
        if self.case.needs().shape.dns {
            // Whoever asks a name server asks its Service, first of all by UDP.
            names.add("udp");
        }
        for text in service_texts(body) {
            names.service(text, self.protocol);
        }
        for (_, _, text) in endpoint_texts(body) {
            names.endpoint(text);
        }
        for text in raw_endpoints(body) {
            names.raw_endpoint(text);
        }
        for step in &body.steps {
            let traffic = step.value.traffic.iter().map(|traffic| &traffic.value.to);
            for words in step.value.expect.iter().map(|row| &row.value.to).chain(traffic) {
                names.targets(words);
            }
            for row in &step.value.expect {
                names.questions(&row.value);
                names.listed(row.value.listed.as_ref().map(|listed| &listed.value));
                names.outside_clients(&row.value.from, &row.value.to);
            }
            for change in &step.value.change {
                match change.value {
                    ChangeText::Proxy(ref change) => {
                        names.add("restartable");
                        if let Some(wish) = &change.refuses {
                            names.proxy(wish);
                        }
                    }
                    ChangeText::VirtualServer(_) => names.add("virtual-servers"),
                    ChangeText::Endpoint(_)
                    | ChangeText::Service(_)
                    | ChangeText::Slices(_)
                    | ChangeText::Slice(_)
                    | ChangeText::Node(_) => {}
                }
            }
        }
        let derived = names.0.into_iter().filter_map(|name| Feature::new(name).ok());
        self.case.needs().features.iter().cloned().chain(derived).collect()
    }

    /// What it asks of whoever supplies its cluster.
    #[must_use]
    pub fn asks(&self) -> CaseAsks {
        let body = self.case.body();
        let moves =
            |change: &ChangeText| matches!(change, ChangeText::Node(node) if node.set.is_some());
        let mut changes = body.steps.iter().flat_map(|step| &step.value.change);
        let features = self.features();
        CaseAsks {
            shape: self.shape(),
            families: self.families_of_addresses(),
            outside: outside_named(body),
            pods_per_node: most_on_one_node(&self.pods()),
            lab: self.lab_needs(),
            zones: features.iter().any(|feature| feature.name() == "zone-hints")
                || changes.any(|change| moves(&change.value)),
            shadows: service_texts(body).any(harm::shadows),
            controllers: body.world.slices_by == SlicesBy::Cluster,
            refused: refused::by_real_clusters(body, self.family).map(str::to_owned),
        }
    }

    fn families_of_addresses(&self) -> Vec<Family> {
        if names_other_family(self.case.body()) {
            return FamilyAxis::Dual.families().to_vec();
        }
        self.family.families().to_vec()
    }

    /// The pods that it wants: one for each endpoint that occurs in any step and has an address
    /// of its own.
    #[must_use]
    pub fn pods(&self) -> Vec<PodWish> {
        pods(self.case.body())
    }
}

/// Whether a slice or a Service is of the family that the variant is not about.
fn names_other_family(body: &CaseFile) -> bool {
    let of_slices = refused::slices(body).filter_map(|slice| slice.address_type.get());
    let of_services = service_texts(body).filter_map(|text| text.ip_families.get()).flatten();
    of_slices.chain(of_services).any(|word| word.value == "$other")
}

/// Pods on the node that has most of them.
fn most_on_one_node(pods: &[PodWish]) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods {
        *counts.entry(&pod.node).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

/// The number of the last outside client that a case names: as one who sends or serves, or in a
/// source range.
fn outside_named(body: &CaseFile) -> usize {
    let steps = || body.steps.iter().map(|step| &step.value);
    let rows = steps().flat_map(|step| &step.expect).map(|row| &row.value.from);
    let traffic = steps().filter_map(|step| Some(&step.traffic.as_ref()?.value.from));
    let senders = rows.chain(traffic).flat_map(|words| &words.0);
    let ranges = service_texts(body).filter_map(|text| text.load_balancer_source_ranges.get());
    let servers = endpoint_texts(body).filter_map(|(_, _, text)| text.outside.get());
    senders
        .chain(ranges.flatten())
        .chain(servers)
        .filter_map(|word| word.value.strip_prefix("outside"))
        .map(|number| number.parse().unwrap_or(1))
        .max()
        .unwrap_or(0)
}

/// The digest of a plan: SHA-256, in hexadecimal, over the ids and files of its variants, in any
/// order.
#[must_use]
pub fn digest<'a>(variants: impl IntoIterator<Item = &'a Variant>) -> String {
    let mut parts: BTreeMap<String, &str> = BTreeMap::new();
    for variant in variants {
        parts.insert(variant.id(), variant.case.text());
    }
    let mut hasher = Sha256::new();
    for (id, text) in parts {
        // Lengths keep one pair from reading like another.
        hasher.update(format!("{} {id} {} ", id.len(), text.len()));
        hasher.update(text);
    }
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

pub(crate) fn pods(body: &CaseFile) -> Vec<PodWish> {
    let mut pods: BTreeMap<String, String> = BTreeMap::new();
    for (service, endpoint, text) in endpoint_texts(body) {
        let own = text.address.get().is_none() && text.host_network.get() != Some(&true);
        if let (true, Some(node)) = (own, text.node.get()) {
            pods.entry(format!("{service}/{endpoint}")).or_insert_with(|| node.value.clone());
        }
    }
    let deployed = body.world.slices_by == SlicesBy::Cluster;
    let wish = |(key, node)| PodWish { key, node, addresses: 1, deployed };
    pods.into_iter().map(wish).collect()
}

pub(crate) fn service_texts(body: &CaseFile) -> impl Iterator<Item = &ServiceText> {
    let changed = body.steps.iter().flat_map(|step| &step.value.change).flat_map(|change| {
        match &change.value {
            ChangeText::Service(change) => vec![change.set.as_ref(), change.create.as_ref()],
            ChangeText::Endpoint(_)
            | ChangeText::Slices(_)
            | ChangeText::Slice(_)
            | ChangeText::Node(_)
            | ChangeText::Proxy(_)
            | ChangeText::VirtualServer(_) => Vec::new(),
        }
    });
    body.world.services.values().map(|text| &text.value).chain(changed.flatten())
}

/// Every endpoint text of a file with the names of its Service and endpoint.
pub(crate) fn endpoint_texts(body: &CaseFile) -> impl Iterator<Item = (&str, &str, &EndpointText)> {
    let world = body.world.endpoints.iter().flat_map(|(service, endpoints)| {
        endpoints
            .value
            .iter()
            .map(move |(name, text)| (service.as_str(), name.as_str(), &text.value))
    });
    let changed = body.steps.iter().flat_map(|step| &step.value.change).flat_map(|change| {
        match &change.value {
            ChangeText::Endpoint(change) => change
                .endpoint
                .value
                .split_once('/')
                .map(|(service, name)| {
                    [&change.set, &change.add]
                        .into_iter()
                        .flatten()
                        .map(|text| (service, name, text))
                        .collect::<Vec<_>>()
                })
                .unwrap_or_default(),
            ChangeText::Service(change) => change
                .endpoints
                .iter()
                .flatten()
                .map(|(name, text)| (change.service.value.as_str(), name.as_str(), &text.value))
                .collect(),
            ChangeText::Slices(_)
            | ChangeText::Slice(_)
            | ChangeText::Node(_)
            | ChangeText::Proxy(_)
            | ChangeText::VirtualServer(_) => Vec::new(),
        }
    });
    world.chain(changed)
}

/// Every endpoint of slices that are written out.
fn raw_endpoints(body: &CaseFile) -> impl Iterator<Item = &SliceEndpointText> {
    let changed = body.steps.iter().flat_map(|step| &step.value.change).flat_map(|change| {
        match &change.value {
            ChangeText::Slice(change) => vec![change.set.as_ref(), change.create.as_ref()],
            ChangeText::Endpoint(_)
            | ChangeText::Service(_)
            | ChangeText::Slices(_)
            | ChangeText::Node(_)
            | ChangeText::Proxy(_)
            | ChangeText::VirtualServer(_) => Vec::new(),
        }
    });
    let world = body.world.slices.values().map(|text| &text.value);
    world.chain(changed.flatten()).flat_map(|text| text.endpoints.get().into_iter().flatten())
}

/// Names of features that a case uses.
#[derive(Default)]
struct Used(BTreeSet<&'static str>);

impl Used {
    fn add(&mut self, name: &'static str) {
        self.0.insert(name);
    }

    fn protocol(&mut self, protocol: Protocol) {
        self.add(match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        });
    }

    /// What a proxy must be able to be told.
    fn proxy(&mut self, wish: &ProxyWish) {
        let ProxyWish {
            node_port_addresses,
            detect_local,
            masquerade_all,
            localhost_node_ports,
            sync_period,
            min_sync_period,
            scheduler,
            strict_arp,
            udp_timeout,
            tcp_timeout,
            tcp_fin_timeout,
            exclude_cidrs,
        } = wish;
        if let Some(words) = node_port_addresses {
            self.add("node-port-addresses");
            let primary = words.iter().filter(|word| *word == "primary").count();
            if primary > 0 {
                self.add("node-port-addresses-primary");
            }
            let mixed = primary > 0 && primary < words.len();
            if mixed || words.iter().any(|word| word == "localhost" || word == "all") {
                self.add("node-port-address-words");
            }
        }
        match detect_local {
            Some(DetectLocal::ClusterCidr) => self.add("detect-local-cluster-cidr"),
            Some(DetectLocal::NodeCidr) => self.add("detect-local-node-cidr"),
            Some(DetectLocal::BridgeInterface) => self.add("detect-local-bridge"),
            Some(DetectLocal::InterfaceNamePrefix) => self.add("detect-local-interface-prefix"),
            Some(DetectLocal::None) => self.add("detect-local-none"),
            None => {}
        }
        if masquerade_all.is_some() {
            self.add("masquerade-all");
        }
        if localhost_node_ports.is_some() {
            self.add("localhost-node-ports-switch");
        }
        if sync_period.is_some() || min_sync_period.is_some() {
            self.add("sync-periods");
        }
        if scheduler.is_some() {
            self.add("scheduler");
        }
        if strict_arp.is_some() {
            self.add("strict-arp");
        }
        if udp_timeout.is_some() || tcp_timeout.is_some() || tcp_fin_timeout.is_some() {
            self.add("virtual-server-timeouts");
        }
        if exclude_cidrs.is_some() {
            self.add("exclude-cidrs");
        }
    }

    fn listed(&mut self, listing: Option<&Listing>) {
        if let Some(listing) = listing {
            self.add("virtual-servers");
            if matches!(listing, Listing::Like(like) if like.sets.is_some()) {
                self.add("address-sets");
            }
        }
    }

    fn service(&mut self, text: &ServiceText, axis: Protocol) {
        for port in text.ports.get().into_iter().flatten() {
            self.protocol(port.protocol.unwrap_or(axis));
        }
        match text.service_type.get() {
            Some(ServiceType::NodePort) => self.add("node-port"),
            Some(ServiceType::LoadBalancer) => self.add("load-balancer"),
            Some(ServiceType::ClusterIP | ServiceType::ExternalName) | None => {}
        }
        if text.external_ips.get().is_some() {
            self.add("external-ips");
        }
        if text.internal_traffic_policy.get() == Some(&TrafficPolicy::Local) {
            self.add("internal-traffic-policy");
        }
        if text.external_traffic_policy.get() == Some(&TrafficPolicy::Local) {
            self.add("external-traffic-policy");
        }
        if text.session_affinity.get() == Some(&SessionAffinity::ClientIP) {
            self.add("session-affinity");
        }
        if text.load_balancer_source_ranges.get().is_some_and(|ranges| !ranges.is_empty()) {
            self.add("source-ranges");
        }
        if text.load_balancer.get().and_then(|lb| lb.value.ip_mode) == Some(IpMode::Proxy) {
            self.add("load-balancer-ip-mode");
        }
    }

    fn endpoint(&mut self, text: &EndpointText) {
        if text.for_zones.get().is_some_and(|zones| !zones.is_empty()) {
            self.add("zone-hints");
        }
        if text.for_nodes.get().is_some_and(|nodes| !nodes.is_empty()) {
            self.add("node-hints");
        }
        if text.terminating.get() == Some(&true) {
            self.add("terminating-endpoints");
        }
    }

    /// Questions are packets to a Service port of the name server.
    fn questions(&mut self, row: &RowText) {
        if row.asks.is_some() {
            let words = row.over.iter().flat_map(|over| &over.0).map(|word| word.value.as_str());
            for over in words.filter_map(transport) {
                self.protocol(over);
            }
            if row.over.is_none() {
                self.protocol(Protocol::Udp);
            }
        }
    }

    fn raw_endpoint(&mut self, text: &SliceEndpointText) {
        if text.hints.as_ref().is_some_and(|hints| !hints.for_zones.is_empty()) {
            self.add("zone-hints");
        }
        if text.hints.as_ref().is_some_and(|hints| !hints.for_nodes.is_empty()) {
            self.add("node-hints");
        }
        if text.conditions.is_some_and(|conditions| conditions.terminating == Some(true)) {
            self.add("terminating-endpoints");
        }
    }

    /// Proxies may leave packets to cluster IPs from outside the cluster alone.
    fn outside_clients(&mut self, from: &Words, to: &Words) {
        let outside = from.0.iter().any(|word| word.value.starts_with("outside"));
        let cluster_ip = to.0.iter().any(|word| {
            matches!(
                Target::parse(&word.value),
                Ok(Target::Frontend { kind: FrontendKind::ClusterIp, .. })
            )
        });
        if outside && cluster_ip {
            self.add("cluster-ips-from-outside");
        }
    }

    fn targets(&mut self, words: &Words) {
        for word in &words.0 {
            let target = Target::parse(&word.value);
            if let Ok(Target::Page { page, .. }) = target {
                self.add(match page {
                    Page::Healthz => "healthz",
                    Page::Livez => "livez",
                    Page::Mode => "proxy-mode-page",
                    Page::Metrics => "metrics",
                });
            }
            let kind = match target {
                Ok(Target::Frontend { kind, .. }) => Some(kind),
                Ok(Target::Loopback { .. }) => Some(FrontendKind::NodePort),
                Ok(
                    Target::Direct { .. }
                    | Target::Unallocated { .. }
                    | Target::Page { .. }
                    | Target::ApiServer
                    | Target::Node { .. },
                )
                | Err(_) => None,
            };
            if let Some(kind) = kind {
                match kind {
                    FrontendKind::NodePort => self.add("node-port"),
                    FrontendKind::ExternalIp => self.add("external-ips"),
                    FrontendKind::LoadBalancer => self.add("load-balancer"),
                    FrontendKind::HealthCheck => self.add("health-check-node-port"),
                    FrontendKind::ClusterIp
                    | FrontendKind::Direct
                    | FrontendKind::Name
                    | FrontendKind::Page
                    | FrontendKind::Table
                    | FrontendKind::Address => {}
                }
            }
        }
    }
}
