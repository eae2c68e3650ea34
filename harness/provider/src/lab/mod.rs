//! The lab: an unmodified proxy on every node of a network made of namespaces.
//!
//! Must be used where namespaces may be made: as root, or in a process that
//! `touchstone_sys::spawn_contained` has started.

mod address_sets;
mod backend;
mod cluster;
mod dns;
mod endpoints;
mod flows;
mod host;
mod launcher;
mod listen;
mod objects;
mod places;
mod priority;
mod proxy;
mod ready;
mod rules;
mod settings;
mod start;
mod surroundings;
mod virtual_servers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use touchstone_apiserver::Lie;
use touchstone_subject::{Resolved, Selection};

/// How long a cluster may take to answer everywhere.
pub const READY_LIMIT: Duration = Duration::from_secs(30);

/// Supplies clusters in the lab.
#[derive(Debug, Clone)]
pub struct Lab {
    /// The proxy under test.
    pub selection: Arc<Selection>,
    /// Its program.
    pub resolved: Arc<Resolved>,
    /// What the API server tells the proxies wrongly.
    pub lies: Vec<Lie>,
    /// Nodes on which no proxy is started.
    pub without_proxy: BTreeSet<String>,
    /// Shell text that damages the rules of every node behind the proxy's back, once a step has
    /// settled: to prove that cases notice.
    pub sabotage: Option<String>,
    /// Folder for the proxies' whole logs, one file per cluster and node.
    pub logs: Option<PathBuf>,
    /// The name server's program; without it no cluster can have one.
    pub name_server: Option<PathBuf>,
    /// How long a cluster may take to answer everywhere; as a rule [`READY_LIMIT`].
    pub ready_limit: Duration,
    /// One more listener of the first cluster's API server, for a person, with its token.
    pub person: Option<Person>,
}

/// A person who looks into a lab from the host.
#[derive(Debug, Clone)]
pub struct Person {
    /// A socket that was opened before the lab's namespaces were entered.
    pub listener: Arc<std::net::TcpListener>,
    /// The token that its clients must send.
    pub token: String,
}

/// Why this machine lacks what networks want of it, by the words of
/// [`touchstone_spec::NETWORK_NEEDS`]; only what is wanted is tried.
#[must_use]
pub fn lacking(wanted: &BTreeSet<&str>) -> BTreeMap<String, String> {
    host::lacking(wanted)
}
