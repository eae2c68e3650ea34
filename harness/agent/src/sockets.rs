//! Sockets of the place in which the agent stands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use touchstone_netlab::sockets::{self, UdpPorts};
use touchstone_probe::{Server, Sockets, bound_to};
use touchstone_spec::{Family, Flow, Protocol, ServerWish};

/// Opens sockets in the process's own network namespace.
#[derive(Debug, Default)]
pub(crate) struct Local {
    udp: UdpPorts,
}

impl Sockets for Local {
    async fn tcp(&self, flow: &Flow) -> Result<OwnedFd, String> {
        let opened = match bound_to(flow) {
            Some(from) => sockets::tcp_socket_from(SocketAddr::new(from, 0)),
            None => sockets::tcp_socket(touchstone_netlab::Family::of(flow.to.ip())),
        };
        opened.map_err(|error| failed(flow, &error))
    }

    async fn udp(&self, flow: &Flow) -> Result<OwnedFd, String> {
        let any = match flow.family() {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let opened = self.udp.bind(bound_to(flow).unwrap_or(any));
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
