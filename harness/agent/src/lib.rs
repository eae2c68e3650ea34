//! The agent: what probes from inside the pods and nodes of a real cluster.
//!
//! An agent is a small program in a container. It stands in one network namespace and does there
//! what it is asked over a connection: sends attempts of flows, keeps flows open, lets identity
//! servers listen, all with the code with which the lab probes. This crate is the program, the
//! protocol ([`protocol`]) and the harness's end of a connection ([`Agent`]).
//!
//! An agent obeys whoever knows the token of its run and nobody else; it knows the token's digest
//! alone, so that nothing in a cluster's objects is a secret.
//! What was opened over a connection ends with it. An agent that nobody talks to ends by itself, so
//! a run that was killed leaves no running agent behind for long.

mod client;
mod late;
mod place;
mod serve;
mod sockets;

pub mod protocol;

pub use client::{Agent, AgentError, RemoteFlow, RemoteServers};
pub use serve::{Limits, serve};
