//! The set of outcomes the API allows for a flow, plus coverage duty.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{Condition, NameAnswer, Outcome, OutcomeKind, Refusal};

/// One allowed outcome.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allowed {
    /// This endpoint answers and sees the client under one of these addresses.
    Reached {
        /// The endpoint's own address and port.
        endpoint: SocketAddr,
        /// Addresses under which it may see the client.
        sources: BTreeSet<IpAddr>,
    },
    /// An HTTP server answers so.
    Http {
        /// Status code.
        status: u16,
        /// Number of local endpoints it must tell.
        local_endpoints: u64,
        /// What parts of the answer must be, by their names.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        shows: BTreeMap<String, Condition>,
    },
    /// Refused at once, in any manner.
    Refused,
    /// Accepted, and closed or reset without an answer.
    Closed,
    /// Swallowed.
    Dropped,
    /// Handled by nobody.
    Unhandled,
    /// A name server answers so; a first label `*` of a name stands for any.
    Answered(NameAnswer),
}

impl Allowed {
    /// Whether an observed outcome is this one.
    #[must_use]
    pub fn admits(&self, seen: &Outcome) -> bool {
        match (self, seen) {
            (
                Allowed::Reached { endpoint, sources },
                Outcome::Reached { endpoint: at, source, .. },
            ) => endpoint == at && sources.contains(source),
            (
                Allowed::Http { status, local_endpoints, shows },
                Outcome::Http { status: got, local_endpoints: told, shown },
            ) => {
                status == got
                    && told.is_none_or(|told| told == *local_endpoints)
                    && shows
                        .iter()
                        .all(|(part, wanted)| wanted.admits(shown.get(part).map(String::as_str)))
            }
            // A node whose own rules drop its packet is told so by the kernel (EPERM), for UDP at
            // least: from there a drop cannot be told from a refusal.
            (Allowed::Refused, Outcome::Refused(_))
            | (Allowed::Closed, Outcome::Reset)
            | (Allowed::Dropped, Outcome::Dropped | Outcome::Refused(Refusal::OwnNode))
            | (Allowed::Unhandled, Outcome::Unhandled) => true,
            (Allowed::Answered(want), Outcome::Answered(got)) => want.admits(got),
            (
                Allowed::Reached { .. }
                | Allowed::Http { .. }
                | Allowed::Refused
                | Allowed::Closed
                | Allowed::Dropped
                | Allowed::Unhandled
                | Allowed::Answered(_),
                _,
            ) => false,
        }
    }

    /// The kind of outcome.
    #[must_use]
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Allowed::Reached { .. } => OutcomeKind::Reached,
            Allowed::Http { .. } => OutcomeKind::Http,
            Allowed::Refused => OutcomeKind::Refused,
            Allowed::Closed => OutcomeKind::Reset,
            Allowed::Dropped => OutcomeKind::Dropped,
            Allowed::Unhandled => OutcomeKind::Unhandled,
            Allowed::Answered(_) => OutcomeKind::Answered,
        }
    }
}

/// Why something is allowed: a sentence, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// The sentence.
    pub text: String,
    /// API field, KEP or adjudication that says so.
    pub source: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.text, self.source)
    }
}

/// The outcomes the API allows for a flow in a world.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Expectation {
    /// Any of these.
    pub allowed: BTreeSet<Allowed>,
    /// Whether every allowed endpoint must be seen, given enough connections.
    pub cover: bool,
    /// Whether connections of one client address must keep to one endpoint.
    pub sticky: bool,
    /// For how many seconds after its last connection a client keeps to its endpoint, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_for: Option<u32>,
    /// Whether the answer is recorded and not judged, because implementations legitimately differ.
    pub open: bool,
    /// Why.
    pub reasons: Vec<Reason>,
}

impl Expectation {
    /// Whether an observed outcome is allowed.
    #[must_use]
    pub fn admits(&self, seen: &Outcome) -> bool {
        self.open || self.allowed.iter().any(|allowed| allowed.admits(seen))
    }

    /// The endpoints that may answer.
    #[must_use]
    pub fn endpoints(&self) -> BTreeSet<SocketAddr> {
        self.allowed
            .iter()
            .filter_map(|allowed| match allowed {
                Allowed::Reached { endpoint, .. } => Some(*endpoint),
                Allowed::Http { .. }
                | Allowed::Refused
                | Allowed::Closed
                | Allowed::Dropped
                | Allowed::Unhandled
                | Allowed::Answered(_) => None,
            })
            .collect()
    }

    /// The kinds of outcomes allowed.
    #[must_use]
    pub fn kinds(&self) -> BTreeSet<OutcomeKind> {
        self.allowed.iter().map(Allowed::kind).collect()
    }
}
