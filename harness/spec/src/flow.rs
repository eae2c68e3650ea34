//! Where a client stands and what it sends: one cell of the matrix.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{Asked, Family, Protocol, Question};

/// What kind of place a client stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// In an ordinary pod.
    Pod,
    /// In a node's own network namespace.
    Node,
    /// Outside the cluster.
    Outside,
}

/// A client: where it stands and which address it sends from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Client {
    /// What kind of place.
    pub kind: ClientKind,
    /// Where to open its sockets: a pod, node or outside client as the provider names it.
    pub place: String,
    /// The node it stands on; none outside.
    pub node: Option<String>,
    /// Source address of its packets. A node may send from another of its addresses.
    pub address: IpAddr,
}

/// Kinds of addresses a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FrontendKind {
    /// A Service's cluster IP.
    ClusterIp,
    /// A node's address and a Service's node port.
    NodePort,
    /// One of a Service's external IPs.
    ExternalIp,
    /// An address of a Service's load balancer.
    LoadBalancer,
    /// A Service's health-check node port on a node's address.
    HealthCheck,
    /// An endpoint itself, past the proxy: the control of a probe.
    Direct,
    /// The name server, or whatever it says a name stands for.
    Name,
    /// A page that a proxy, or an API server, serves about itself.
    Page,
    /// The table of virtual servers of the client's node, asked about an address and port; nothing
    /// is sent.
    Table,
    /// Any other address and port.
    Address,
}

impl FrontendKind {
    /// Whether what is seen there is what somebody says, of which no model knows: the row of a
    /// case decides alone.
    #[must_use]
    pub fn is_told(self) -> bool {
        matches!(self, FrontendKind::Page | FrontendKind::Table)
    }
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrontendKind::ClusterIp => "clusterIP",
            FrontendKind::NodePort => "nodePort",
            FrontendKind::ExternalIp => "externalIP",
            FrontendKind::LoadBalancer => "loadBalancer",
            FrontendKind::HealthCheck => "healthCheck",
            FrontendKind::Direct => "endpoint",
            FrontendKind::Name => "name",
            FrontendKind::Page => "page",
            FrontendKind::Table => "table",
            FrontendKind::Address => "address",
        })
    }
}

/// Vantage, frontend, protocol and client identity: one cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow {
    /// Who sends.
    pub client: Client,
    /// The node that an outside client's packet enters first when its destination is no node's
    /// own address; none for clients inside the cluster.
    pub via: Option<String>,
    /// Where to.
    pub to: SocketAddr,
    /// With which transport.
    pub protocol: Protocol,
    /// What kind of frontend `to` is meant to be; for probing (health checks speak HTTP) and for
    /// reports. The oracle reads the address only, but on loopback addresses, where it tells what
    /// an endpoint listens on from a node port.
    pub frontend: FrontendKind,
    /// What the client asks the name server at `to`; the flow then ends with the answer, or goes
    /// on to an address that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
    /// Bytes that are sent and must come back; 0 for the ordinary question.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u32,
    /// From which port it is sent, which flows to other addresses may use at the same time; none
    /// for any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// What is asked where an HTTP server is expected; none for the ordinary question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Asked>,
    /// How the flow is written in a case: `outside → web nodePort@n1`.
    pub text: String,
}

fn is_zero(size: &u32) -> bool {
    *size == 0
}

impl Flow {
    /// The address family of the flow.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.to.ip())
    }

    /// Whether two flows are the same packets, whatever they are called.
    #[must_use]
    pub fn same_packets(&self, other: &Flow) -> bool {
        self.client == other.client
            && self.via == other.via
            && self.to == other.to
            && self.protocol == other.protocol
            && self.question == other.question
            && self.size == other.size
            && self.source_port == other.source_port
            && self.http == other.http
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.question {
            Some(Question { name, then: Some(port), .. }) => {
                write!(f, "{} ({} {name} port {port}, asked {})", self.text, self.protocol, self.to)
            }
            Some(Question { then: None, .. }) | None => {
                write!(f, "{} ({} {})", self.text, self.protocol, self.to)
            }
        }
    }
}
