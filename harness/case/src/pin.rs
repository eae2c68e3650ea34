//! Expectations written by hand, and whether the model agrees with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use touchstone_spec::{
    Allowed, ClientKind, Condition, Expectation, Features, Flow, FrontendKind, Look, NameAnswer,
    OutcomeKind, Reason, World,
};

use crate::{CaseError, Names, Variant, compile, planned_book, under_way};

/// An expectation written by hand for one flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What must be seen.
    pub outcome: PinnedOutcome,
    /// As whom the endpoint must see the client.
    pub source: PinnedSource,
    /// Whether connections of one client keep to one endpoint, where the row says so.
    pub sticky: Option<bool>,
    /// How many clients with addresses of their own there are, where they are many: they are
    /// chosen for one by one, so that together they reach every endpoint.
    pub clients: Option<u8>,
    /// Whether each client has the endpoint that it had at the end of the step before.
    pub keeps: bool,
    /// The pause after which clients are chosen for anew, so that of many some move.
    pub forgets: Option<Duration>,
    /// How connections spread over the endpoints, where the row says so.
    pub spread: Option<Spread>,
    /// What the answer of an HTTP server shows, where the row says so.
    pub shows: Shows,
}

/// What the answer of an HTTP server must show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shows {
    /// Status code, where the row has `shows`.
    pub status: Option<u16>,
    /// Parts to look for.
    pub looks: Vec<Look>,
    /// What they must be, by their names.
    pub conditions: BTreeMap<String, Condition>,
    /// Numbers that must have grown since an earlier step.
    pub growth: BTreeMap<String, Growth>,
}

/// Status and number of local endpoints of every HTTP answer that is allowed.
fn http_answers(expectation: &Expectation) -> impl Iterator<Item = (u16, u64)> {
    expectation.allowed.iter().filter_map(|allowed| match allowed {
        Allowed::Http { status, local_endpoints, shows: _ } => Some((*status, *local_endpoints)),
        Allowed::Reached { .. }
        | Allowed::Refused
        | Allowed::Closed
        | Allowed::Dropped
        | Allowed::Unhandled
        | Allowed::Answered(_) => None,
    })
}

/// Where health checks tell how many endpoints their node has.
fn counts() -> [String; 2] {
    [
        Look::Json("localEndpoints".to_owned()).to_string(),
        Look::Header("X-Load-Balancing-Endpoint-Weight".to_owned()).to_string(),
    ]
}

impl Shows {
    /// Why the number of endpoints that a health check tells is not the model's.
    fn miscounts(&self, expectation: &Expectation) -> Option<String> {
        let counted: BTreeSet<String> =
            http_answers(expectation).map(|(_, count)| count.to_string()).collect();
        let pinned = |part: &String| match self.conditions.get(part) {
            Some(Condition::Is(number)) => Some(number),
            Some(_) | None => None,
        };
        let wrong = counts().iter().filter_map(pinned).any(|number| !counted.contains(number));
        wrong.then(|| "the numbers of local endpoints differ".to_owned())
    }
}

/// By how much a number must have grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// By more than nothing.
    Somehow,
    /// By exactly so much.
    By(u32),
}

/// The outcomes that a pin allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinnedOutcome {
    /// Exactly these endpoints answer; by address, with their names.
    Reaches(BTreeMap<SocketAddr, String>),
    /// Exactly these kinds.
    Kinds {
        /// Kinds.
        kinds: BTreeSet<OutcomeKind>,
        /// Status codes where `http` is among the kinds.
        http: BTreeSet<u16>,
    },
    /// The name server answers in one of these ways.
    Answers(BTreeSet<NameAnswer>),
    /// Not pinned: the answer is recorded only.
    Any,
}

/// As whom an endpoint sees the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinnedSource {
    /// Not pinned.
    Any,
    /// Under its own address.
    Client,
    /// Under any address of the node that handled the packet.
    HandlingNode,
    /// Under any address of this node.
    Node(String),
    /// Under an address of the load balancer.
    Balancer,
}

/// How connections spread over endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Each endpoint gets about the same share.
    Even,
}

impl Pin {
    /// Why an expectation of the model is not what the pin says; none when they agree.
    #[must_use]
    pub fn disagreement(
        &self,
        flow: &Flow,
        world: &World,
        expectation: &Expectation,
    ) -> Option<String> {
        if flow.frontend.is_told() {
            // No model: the row alone says what must be met.
            return None;
        }
        if let PinnedOutcome::Any = self.outcome {
            return (!expectation.open)
                .then(|| "the model has an answer, so `is: any` hides it".to_owned());
        }
        if expectation.open {
            return Some("the model leaves the answer open; write `is: any`".to_owned());
        }
        self.outcome_disagrees(expectation)
            .or_else(|| self.source_disagrees(flow, world, expectation))
            .or_else(|| {
                self.sticky.filter(|sticky| *sticky != expectation.sticky).map(|sticky| {
                    format!("the pin says sticky: {sticky}, the model {}", expectation.sticky)
                })
            })
            .or_else(|| self.forgets.and_then(|pause| kept(pause, expectation)))
            .or_else(|| {
                let uneven = self.spread == Some(Spread::Even) && expectation.sticky;
                let why = "the pin says spread: even, the model that a client keeps its endpoint";
                uneven.then(|| why.to_owned())
            })
    }

    fn outcome_disagrees(&self, expectation: &Expectation) -> Option<String> {
        match &self.outcome {
            PinnedOutcome::Any => None,
            PinnedOutcome::Reaches(endpoints) => {
                let pinned: BTreeSet<SocketAddr> = endpoints.keys().copied().collect();
                if expectation.kinds() == BTreeSet::from([OutcomeKind::Reached])
                    && expectation.endpoints() == pinned
                {
                    None
                } else {
                    Some("the outcomes differ".to_owned())
                }
            }
            PinnedOutcome::Answers(answers) => {
                let pinned: BTreeSet<Allowed> =
                    answers.iter().cloned().map(Allowed::Answered).collect();
                (expectation.allowed != pinned).then(|| "the answers differ".to_owned())
            }
            PinnedOutcome::Kinds { kinds, http } => {
                let told: BTreeSet<u16> =
                    http_answers(expectation).map(|(status, _)| status).collect();
                (expectation.kinds() != *kinds || told != *http)
                    .then(|| "the outcomes differ".to_owned())
                    .or_else(|| self.shows.miscounts(expectation))
            }
        }
    }

    fn source_disagrees(
        &self,
        flow: &Flow,
        world: &World,
        expectation: &Expectation,
    ) -> Option<String> {
        let pinned: BTreeSet<IpAddr> = match &self.source {
            PinnedSource::Any => return None,
            PinnedSource::Client => match (flow.client.kind, &flow.client.node) {
                (ClientKind::Node, Some(node)) => addresses_of(world, node),
                // The node that a load balancer chooses decides which of its addresses it uses.
                (ClientKind::Outside, None) if is_balanced(flow, world) => world
                    .outside
                    .iter()
                    .filter(|client| client.name == flow.client.place)
                    .flat_map(|client| client.addresses.iter().flatten().copied())
                    .collect(),
                (ClientKind::Node, None)
                | (ClientKind::Pod | ClientKind::Outside, Some(_) | None) => {
                    BTreeSet::from([flow.client.address])
                }
            },
            PinnedSource::HandlingNode if is_balanced(flow, world) => {
                world.nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect()
            }
            PinnedSource::HandlingNode => addresses_of(world, handling_node(flow, world)?),
            PinnedSource::Node(node) => addresses_of(world, node),
            PinnedSource::Balancer => {
                world.balancer.iter().flat_map(|b| b.addresses.iter().flatten().copied()).collect()
            }
        };
        if !expectation.kinds().contains(&OutcomeKind::Reached) {
            return Some("the pin names a source, but nobody may answer".to_owned());
        }
        let strange = expectation.allowed.iter().any(|allowed| match allowed {
            Allowed::Reached { sources, .. } => sources.is_empty() || !sources.is_subset(&pinned),
            Allowed::Http { .. }
            | Allowed::Refused
            | Allowed::Closed
            | Allowed::Dropped
            | Allowed::Unhandled
            | Allowed::Answered(_) => false,
        });
        strange.then(|| "the sources differ".to_owned())
    }

    /// The pin in the words of case files.
    #[must_use]
    pub fn words(&self) -> String {
        let mut text = match &self.outcome {
            PinnedOutcome::Reaches(endpoints) => {
                let names: Vec<&str> = endpoints.values().map(String::as_str).collect();
                format!("reaches {}", names.join(", "))
            }
            PinnedOutcome::Kinds { kinds, http } => {
                let mut words: Vec<String> = kinds
                    .iter()
                    .filter(|kind| **kind != OutcomeKind::Http)
                    .map(ToString::to_string)
                    .collect();
                words.extend(http.iter().map(|code| format!("http {code}")));
                words.join(" or ")
            }
            PinnedOutcome::Answers(answers) => {
                let words: Vec<String> = answers.iter().map(ToString::to_string).collect();
                words.join(" or ")
            }
            PinnedOutcome::Any => "any".to_owned(),
        };
        match &self.source {
            PinnedSource::Any => {}
            PinnedSource::Client => text.push_str("; source client"),
            PinnedSource::HandlingNode => text.push_str("; source node"),
            PinnedSource::Node(node) => text.push_str(&format!("; source node@{node}")),
            PinnedSource::Balancer => text.push_str("; source balancer"),
        }
        match self.sticky {
            Some(true) => text.push_str("; sticky"),
            Some(false) => text.push_str("; not sticky"),
            None => {}
        }
        if let Some(clients) = self.clients {
            text.push_str(&format!("; by {clients} clients"));
        }
        if self.keeps {
            text.push_str("; the endpoint of before");
        }
        if let Some(pause) = self.forgets {
            text.push_str(&format!("; forgets in {} s", pause.as_secs()));
        }
        match self.spread {
            Some(Spread::Even) => text.push_str("; spread even"),
            None => {}
        }
        if !self.shows.looks.is_empty() {
            text.push_str(&format!("; {}", self.shows.words()));
        }
        text
    }
}

/// Why no client may be chosen for anew after a pause; none where each is.
fn kept(pause: Duration, expectation: &Expectation) -> Option<String> {
    let said = format!("the pin says forgets: {}s", pause.as_secs());
    match expectation.keeps_for.map(u64::from) {
        None => Some(format!("{said}, the model that nobody keeps to an endpoint")),
        Some(seconds) if seconds >= pause.as_secs() => {
            Some(format!("{said}, the model that clients keep to an endpoint for {seconds} s"))
        }
        Some(_) => None,
    }
}

fn addresses_of(world: &World, node: &str) -> BTreeSet<IpAddr> {
    world.node(node).map(|node| node.addresses.iter().copied().collect()).unwrap_or_default()
}

/// Whether a load balancer chooses the node by which a flow enters.
fn is_balanced(flow: &Flow, world: &World) -> bool {
    world.network.balancer_chooses()
        && flow.client.kind == ClientKind::Outside
        && flow.via.is_none()
        && flow.frontend == FrontendKind::LoadBalancer
}

/// The node whose proxy sees the first packet: the owner of the address, else the node by which
/// the packet enters, else the client's own.
fn handling_node<'a>(flow: &'a Flow, world: &'a World) -> Option<&'a str> {
    world
        .owner(flow.to.ip())
        .map(|node| node.name.as_str())
        .or(flow.via.as_deref())
        .or(flow.client.node.as_deref())
}

/// A pin that the model contradicts.
#[derive(Debug, Clone, PartialEq)]
pub struct PinConflict {
    /// Variant.
    pub variant: String,
    /// File.
    pub file: String,
    /// Line of the row.
    pub line: usize,
    /// Step, from 1.
    pub step: usize,
    /// The flow.
    pub flow: Flow,
    /// What the two disagree about.
    pub about: String,
    /// What the pin says.
    pub pin: String,
    /// What the model says.
    pub model: String,
    /// Why the model says so.
    pub reasons: Vec<Reason>,
}

impl fmt::Display for PinConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}:{}: {} in {} (step {})",
            self.file, self.line, self.about, self.variant, self.step
        )?;
        writeln!(f, "  flow:  {}", self.flow)?;
        writeln!(f, "  pin:   {}", self.pin)?;
        write!(f, "  model: {}", self.model)?;
        for reason in &self.reasons {
            write!(f, "\n    because {reason}")?;
        }
        Ok(())
    }
}

/// Compares every pin of a variant with the model, in an imaginary cluster, and looks whether its
/// traffic may be judged as it asks.
///
/// The features given and those that the variant needs are taken as declared.
///
/// # Errors
/// When the variant does not compile, or its traffic would lose something whatever the proxy.
pub fn check(variant: &Variant, features: &Features) -> Result<Vec<PinConflict>, CaseError> {
    let mut book = planned_book(variant);
    let script = compile(variant, &mut book)?;
    let features: Features = features.iter().cloned().chain(variant.features()).collect();
    under_way::check(variant, &script, &features)?;
    let mut conflicts = Vec::new();
    for (index, step) in script.steps.iter().enumerate() {
        for row in &step.rows {
            let expectation = touchstone_model::expect(&step.world, &row.flow, &features);
            if let Some(about) = row.pin.disagreement(&row.flow, &step.world, &expectation) {
                conflicts.push(PinConflict {
                    variant: variant.id(),
                    file: variant.case().file().to_owned(),
                    line: row.line,
                    step: index + 1,
                    flow: row.flow.clone(),
                    about,
                    pin: row.pin.words(),
                    model: describe(&expectation, &script.names),
                    reasons: expectation.reasons,
                });
            }
        }
    }
    Ok(conflicts)
}

/// An expectation in words, with endpoints and sources by name where they have one.
fn describe(expectation: &Expectation, names: &Names) -> String {
    let name = |ip: &IpAddr| names.addresses.get(ip).cloned().unwrap_or_else(|| ip.to_string());
    let mut words: Vec<String> = expectation
        .allowed
        .iter()
        .map(|allowed| match allowed {
            Allowed::Reached { endpoint, sources } => {
                let who = names.of(*endpoint).map_or_else(|| endpoint.to_string(), str::to_owned);
                let sources: BTreeSet<String> = sources.iter().map(name).collect();
                let sources: Vec<String> = sources.into_iter().collect();
                format!("reached {who} as {}", sources.join(" or "))
            }
            Allowed::Http { status, local_endpoints, shows: _ } => {
                format!("http {status} ({local_endpoints} local endpoints)")
            }
            Allowed::Refused => "refused".to_owned(),
            Allowed::Closed => "closed".to_owned(),
            Allowed::Dropped => "dropped".to_owned(),
            Allowed::Unhandled => "unhandled".to_owned(),
            Allowed::Answered(answer) => answer.to_string(),
        })
        .collect();
    if expectation.open {
        words.push("left open".to_owned());
    }
    if words.is_empty() { "nothing is allowed".to_owned() } else { words.join(", ") }
}
