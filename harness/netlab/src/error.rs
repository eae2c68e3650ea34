//! What can go wrong while a network is made.

use std::io;
use std::net::IpAddr;

/// Why something in a namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thread that was to live in the namespace did not start.
    #[error("failed to start the thread of namespace {namespace}")]
    Thread {
        /// The namespace's name.
        namespace: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The namespace could not be made or prepared.
    #[error("failed to create namespace {namespace}: {act}")]
    Create {
        /// The namespace's name.
        namespace: String,
        /// The step that failed.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A job got no answer, as it panicked or the thread has ended.
    #[error("a job in namespace {namespace} ended without an answer")]
    Gone {
        /// The namespace's name.
        namespace: String,
    },
    /// The kernel refused a link, address, route, rule or neighbour entry.
    #[error("failed to {act} in namespace {namespace}")]
    Change {
        /// The namespace's name.
        namespace: String,
        /// The change, with its objects.
        act: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket could not be opened.
    #[error("failed to open {socket} in namespace {namespace}")]
    Socket {
        /// The namespace's name.
        namespace: String,
        /// The socket, with its address.
        socket: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A process could not be started.
    #[error("failed to start {program} in namespace {namespace}")]
    Spawn {
        /// The namespace's name.
        namespace: String,
        /// The program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A kernel setting could not be read or written.
    #[error("failed to set {setting} to {value:?} in namespace {namespace}")]
    Setting {
        /// The namespace's name.
        namespace: String,
        /// The setting, as for sysctl(8).
        setting: String,
        /// The value wanted.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A kernel setting could not be read.
    #[error("failed to read {setting} in namespace {namespace}")]
    ReadSetting {
        /// The namespace's name.
        namespace: String,
        /// The setting, as for sysctl(8).
        setting: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Packets could not be counted.
    #[error("failed to count packets in namespace {namespace}")]
    Count {
        /// The namespace's name.
        namespace: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The plan has no room for so many.
    #[error("no room for {wanted} {what}, the address plan has {room}")]
    Room {
        /// Nodes, outside clients, or pods of a node.
        what: String,
        /// How many were asked for in all.
        wanted: usize,
        /// How many there can be.
        room: usize,
    },
    /// Two of them would have the same name, or a name is empty or too long.
    #[error("{name:?} cannot be the name of a node or an outside client: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no such node.
    #[error("the topology has no node {name}")]
    NoNode {
        /// The name asked for.
        name: String,
    },
    /// The address lies outside the node's pod range, so nobody would find it.
    #[error("{address} is outside the pod ranges of node {node}")]
    OutsideRange {
        /// The address.
        address: IpAddr,
        /// The node's name.
        node: String,
    },
    /// The address has an owner.
    #[error("{address} belongs to a pod of node {node} already")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The node's name.
        node: String,
    },
    /// IPv6 does not work below 1280 bytes.
    #[error("an MTU of {mtu} bytes is below the minimum of IPv6, {minimum}")]
    Mtu {
        /// The MTU asked for, in bytes.
        mtu: u32,
        /// The smallest that works.
        minimum: u32,
    },
}
