//! What a kernel's table of virtual servers says of one address and port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// A virtual server, as far as cases look at it.
///
/// What is seen of it travels like the answer of an HTTP server: a status, and parts by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VirtualServer {
    /// Name of its scheduler.
    pub scheduler: String,
    /// Weights of its real servers.
    pub weights: BTreeMap<SocketAddr, u32>,
}

impl VirtualServer {
    /// Status where there is a virtual server.
    pub const THERE: u16 = 200;
    /// Status where there is none.
    pub const NOT_THERE: u16 = 404;
    /// Name of the part with the scheduler.
    pub const SCHEDULER: &'static str = "scheduler";
    /// Name of the part with the seconds for which a client keeps its real server, 0 for not at all.
    pub const PERSISTENT: &'static str = "persistent";
    /// Name of the part with the real servers.
    pub const WEIGHTS: &'static str = "weights";
    /// Name of the part that says whether the address is the node's own.
    pub const LOCAL: &'static str = "local";
    /// Name of the part with the seconds after which the kernel forgets silent UDP flows, which are
    /// the same for all virtual servers of a node.
    pub const UDP_TIMEOUT: &'static str = "udp timeout";
    /// The same for silent TCP connections.
    pub const TCP_TIMEOUT: &'static str = "tcp timeout";
    /// The same for TCP connections that one side has closed.
    pub const TCP_FIN_TIMEOUT: &'static str = "tcp fin timeout";
    /// Name of the part with the sets of the node that have an entry for the address and port.
    pub const SETS: &'static str = "sets";

    /// Names of sets in their order.
    #[must_use]
    pub fn sets_text(sets: &BTreeSet<String>) -> String {
        sets.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Real servers with their weights, in the order of their addresses.
    #[must_use]
    pub fn weights_text(weights: &BTreeMap<SocketAddr, u32>) -> String {
        let each = weights.iter().map(|(address, weight)| format!("{address} weight {weight}"));
        each.collect::<Vec<_>>().join(", ")
    }
}
