//! Identity-echo servers and the clients that ask them, over TCP, UDP, SCTP and HTTP; clients
//! that ask name servers.
//!
//! Clients and servers work on sockets that somebody else has opened, for a socket stays in the
//! network namespace it was made in; [`open_tcp`], [`open_udp`] and the `bind_…` constructors of
//! [`Server`] serve where no namespace is needed.
//! Everything runs on the current tokio runtime, which must have I/O and time enabled.
//!
//! A client says what it saw as an [`Observation`](touchstone_spec::Observation) and never judges.
//! What the harness itself lacked (descriptors, ports, memory) and foreign answers are reported
//! as `ProbeBroke`, so that they never count for or against a proxy.
//!
//! # Wire format
//!
//! Client: `touchstone/1 <nonce>\n`.
//! Server: `touchstone/1 <nonce> <identity> <peer ip:port> <local ip:port>\n`, where the nonce is
//! 16 hexadecimal digits, *peer* is the client as the server saw it and *local* the address on
//! which the server was reached.
//! A TCP connection carries any number of such pairs; over UDP each line is one datagram.
//! A client may add ` <size>` to its line and so many bytes after it, which the server sends back
//! after its own line; over UDP line and bytes are one datagram.

mod attempt;
mod chance;
mod dns;
mod errors;
mod http;
mod line;
mod look;
mod open;
mod server;
mod stream;
mod tcp;
mod udp;

pub use attempt::{Attempted, KeptFlow, Sockets, attempt, source_of};
pub use chance::chance;
pub use dns::{Findings, ask_names_tcp, ask_names_udp, search_names};
pub use http::get_http;
pub use open::{open_tcp, open_udp};
pub use server::{IDLE_LIMIT, Server, ServerError};
pub use tcp::{Connection, ask_tcp, connect_sctp, connect_tcp, echo_sctp, echo_tcp};
pub use udp::{UdpFlow, ask_udp, echo_udp};
