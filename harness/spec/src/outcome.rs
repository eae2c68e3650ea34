//! What one probe saw.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NameAnswer;

/// What happened to one attempt of a client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// An endpoint answered.
    Reached {
        /// The endpoint's own address and port.
        endpoint: SocketAddr,
        /// The client's address as the endpoint saw it.
        source: IpAddr,
        /// How often a packet of the attempt had to be sent again before the answer.
        resent: u32,
    },
    /// An HTTP server answered (health-check node ports).
    Http {
        /// Status code.
        status: u16,
        /// `localEndpoints` of the body, where it had one.
        local_endpoints: Option<u64>,
        /// What was looked for and is there, by the name of the part.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        shown: BTreeMap<String, String>,
    },
    /// The attempt was refused at once.
    Refused(Refusal),
    /// No answer within the stated time, and the packet did not leave the cluster's nodes.
    Dropped,
    /// Nobody handled the packet: it left the node for an address that exists nowhere.
    Unhandled,
    /// No route.
    Unreachable,
    /// A connection that had been accepted was reset.
    Reset,
    /// A name server answered.
    Answered(NameAnswer),
}

/// How an attempt was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// A TCP reset, or a kind that could not be told.
    Reset,
    /// An ICMP or ICMPv6 error.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Who sent it, if known.
        from: Option<IpAddr>,
    },
    /// The client's own node refused to send (EPERM).
    OwnNode,
}

/// The kind of an outcome, without its particulars.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// An endpoint answered.
    Reached,
    /// An HTTP server answered.
    Http,
    /// Refused at once.
    Refused,
    /// Swallowed.
    Dropped,
    /// Handled by nobody.
    Unhandled,
    /// No route.
    Unreachable,
    /// Reset after it was accepted.
    Reset,
    /// A name server answered.
    Answered,
}

impl Outcome {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Outcome::Reached { .. } => OutcomeKind::Reached,
            Outcome::Http { .. } => OutcomeKind::Http,
            Outcome::Refused(_) => OutcomeKind::Refused,
            Outcome::Dropped => OutcomeKind::Dropped,
            Outcome::Unhandled => OutcomeKind::Unhandled,
            Outcome::Unreachable => OutcomeKind::Unreachable,
            Outcome::Reset => OutcomeKind::Reset,
            Outcome::Answered(_) => OutcomeKind::Answered,
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OutcomeKind::Reached => "reached",
            OutcomeKind::Http => "http",
            OutcomeKind::Refused => "refused",
            OutcomeKind::Dropped => "dropped",
            OutcomeKind::Unhandled => "unhandled",
            OutcomeKind::Unreachable => "unreachable",
            OutcomeKind::Reset => "reset",
            OutcomeKind::Answered => "answered",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Reached { endpoint, source, resent } => {
                write!(f, "reached {endpoint} as {source}")?;
                if *resent > 0 {
                    write!(f, " after {resent} retransmissions")?;
                }
                Ok(())
            }
            Outcome::Http { status, local_endpoints, shown } => {
                write!(f, "http {status}")?;
                if let Some(n) = local_endpoints {
                    write!(f, " ({n} local endpoints)")?;
                }
                for (at, (part, value)) in shown.iter().enumerate() {
                    write!(f, "{} {part} is {value:?}", if at == 0 { ":" } else { "," })?;
                }
                Ok(())
            }
            Outcome::Refused(Refusal::Reset) => f.write_str("refused (reset)"),
            Outcome::Refused(Refusal::Icmp { kind, code, from: Some(from) }) => {
                write!(f, "refused (icmp {kind}/{code} from {from})")
            }
            Outcome::Refused(Refusal::Icmp { kind, code, from: None }) => {
                write!(f, "refused (icmp {kind}/{code})")
            }
            Outcome::Refused(Refusal::OwnNode) => f.write_str("refused (by the client's own node)"),
            Outcome::Answered(answer) => write!(f, "{answer}"),
            Outcome::Dropped | Outcome::Unhandled | Outcome::Unreachable | Outcome::Reset => {
                write!(f, "{}", self.kind())
            }
        }
    }
}

/// What one probe reports: an outcome, or that the probe itself broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observation {
    /// What was seen.
    Saw(Outcome),
    /// The probe broke; says nothing about the proxy.
    ProbeBroke(String),
}
