//! Sockets for places that need no network namespace of their own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

/// Opens an unconnected, non-blocking TCP socket of the family of `to`, bound to `source` (with a
/// port of the kernel's choice) where one is given.
///
/// Errors: those of `socket` and `bind`.
pub fn open_tcp(to: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    open(to, source, Type::STREAM, Protocol::TCP)
}

/// Opens an unconnected, non-blocking UDP socket of the family of `to`, bound to `source` (with a
/// port of the kernel's choice) where one is given.
///
/// Errors: those of `socket` and `bind`.
pub fn open_udp(to: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    open(to, source, Type::DGRAM, Protocol::UDP)
}

fn open(to: SocketAddr, source: Option<IpAddr>, kind: Type, with: Protocol) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(to), kind.nonblocking(), Some(with))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket.into())
}
