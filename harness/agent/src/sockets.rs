//! Sockets of the place in which the agent stands.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use touchstone_netlab::sockets::{self, SourcePorts};
use touchstone_probe::{Server, Sockets, chance, source_of};
use touchstone_spec::{Flow, Protocol, ServerWish};

/// Opens sockets in the process's own network namespace.
#[derive(Debug)]
pub(crate) struct Local {
    ports: SourcePorts,
}

impl Default for Local {
    /// The agents of a node should not begin with the same port, and know nothing of each other.
    fn default() -> Self {
        let place = chance() % u64::from(u16::MAX);
        Local { ports: SourcePorts::of_place(usize::try_from(place).unwrap_or_default()) }
    }
}

impl Sockets for Local {
    async fn tcp(&self, flow: &Flow) -> Result<OwnedFd, String> {
        let opened = self.ports.tcp(source_of(flow), flow.source_port);
        opened.map_err(|error| failed(flow, &error))
    }

    async fn udp(&self, flow: &Flow) -> Result<OwnedFd, String> {
        let opened = self.ports.udp(source_of(flow), flow.source_port);
        opened.map(OwnedFd::from).map_err(|error| failed(flow, &error))
    }

    async fn sctp(&self, flow: &Flow) -> Result<OwnedFd, String> {
        let opened = sockets::sctp_socket_from(SocketAddr::new(flow.client.address, 0));
        opened.map_err(|error| failed(flow, &error))
    }
}

fn failed(flow: &Flow, error: &std::io::Error) -> String {
    format!("failed to open a socket in {}: {error}", flow.client.place)
}

/// Lets one identity server listen.
pub(crate) fn listen(wish: &ServerWish) -> Result<Server, String> {
    let address = SocketAddr::new(wish.address, wish.port);
    let place = wish.place.clone();
    let failed = |why: &dyn std::fmt::Display| {
        format!("failed to listen on {} {address} in {}: {why}", wish.protocol, wish.place)
    };
    let server = match wish.protocol {
        Protocol::Tcp => {
            let listener = sockets::tcp_listener(address).map_err(|error| failed(&error))?;
            Server::tcp(listener, place)
        }
        Protocol::Udp => {
            let socket = sockets::udp_socket(address).map_err(|error| failed(&error))?;
            Server::udp(socket, place)
        }
        Protocol::Sctp => {
            let listener = sockets::sctp_listener(address).map_err(|error| failed(&error))?;
            Server::tcp(listener, place)
        }
    };
    server.map_err(|error| failed(&error))
}
