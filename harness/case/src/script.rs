//! What a compiled variant asks of a runner: objects, flows and pins, all concrete.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use touchstone_spec::{Change, ProxyAction, ServerWish};
use touchstone_spec::{Flow, World};

use crate::Pin;

/// A variant with every address, port and name filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Namespace of all its objects; unique in a run.
    pub namespace: String,
    /// Steps, in order. The first creates the world.
    pub steps: Vec<ScriptStep>,
    /// What addresses are called in reports.
    pub names: Names,
}

/// One point of change and what must hold after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptStep {
    /// Changes, in the order in which they are to be made.
    pub changes: Vec<Change>,
    /// The world after the changes.
    pub world: World,
    /// Flows with answers written by hand.
    pub rows: Vec<Row>,
    /// Flows whose answer only the model knows: every vantage with every frontend of the case's
    /// Services that no row names.
    pub matrix: Vec<Flow>,
    /// Identity servers that must listen: those of this step's endpoints and of every endpoint
    /// that earlier steps had, so that traffic to a removed endpoint is seen as such.
    pub servers: Vec<ServerWish>,
    /// Limit of settling.
    pub within: Duration,
    /// How long agreement must be kept after settling.
    pub hold: Duration,
    /// Traffic that runs from before the first change until the end of holding.
    pub traffic: Option<Traffic>,
    /// Whether a marker follows the changes (decision 0002).
    pub marked: bool,
}

/// A flow with an answer written by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The flow.
    pub flow: Flow,
    /// The answer.
    pub pin: Pin,
    /// Line of the row in its file, from 1.
    pub line: usize,
    /// The row in short: `outside → web nodePort@n1: reaches a, b; source client`.
    pub text: String,
    /// The author's reason, if the row gives one.
    pub why: Option<String>,
}

/// Steady traffic during a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Its flows.
    pub flows: Vec<Flow>,
    /// Time between two attempts (or, on a kept connection, messages) of one flow.
    pub every: Duration,
    /// Number of attempts that may be lost.
    pub budget: u32,
    /// Whether every attempt is a client of its own.
    pub keep: Keep,
    /// Line in the file, from 1.
    pub line: usize,
}

/// Whether the attempts of traffic are clients of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// A new connection or source port for each attempt.
    Nothing,
    /// One TCP connection, or one UDP source port, for the whole change.
    Connection,
}

/// What addresses are called in reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// Addresses of pods, nodes, clients and frontends: `web/a`, `n1`, `pod@n1`, `outside`,
    /// `web clusterIP`.
    pub addresses: BTreeMap<IpAddr, String>,
    /// Endpoints: `web/a`. They go first, since an endpoint on the host's network shares the
    /// address of its node.
    pub endpoints: BTreeMap<SocketAddr, String>,
}

impl Names {
    /// The name of a socket address: its endpoint's, else its address's.
    #[must_use]
    pub fn of(&self, socket: SocketAddr) -> Option<&str> {
        self.endpoints.get(&socket).or_else(|| self.addresses.get(&socket.ip())).map(String::as_str)
    }
}
