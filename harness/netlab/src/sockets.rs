//! How sockets are opened.
//!
//! A socket belongs for its whole life to the namespace of the thread that opened it, so these
//! functions are meant for jobs of [`Namespace::run`](crate::Namespace::run).
//! Every socket is nonblocking and closes on `execve`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::plan::Family;
use crate::wiring::UPLINK_NAME;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Every protocol, as `htons(ETH_P_ALL)`.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;

/// An unconnected TCP socket.
///
/// # Errors
///
/// What the kernel said.
pub fn tcp_socket(family: Family) -> io::Result<OwnedFd> {
    Ok(open(domain(family), Type::STREAM, Some(Protocol::TCP))?.into())
}

/// Many unconnected TCP sockets.
///
/// # Errors
///
/// What the kernel said about the first that failed; none stays open then.
pub fn tcp_sockets(family: Family, count: usize) -> io::Result<Vec<OwnedFd>> {
    (0..count).map(|_| tcp_socket(family)).collect()
}

/// An unconnected TCP socket with a source address and port, which others may have too, to other
/// destinations.
///
/// # Errors
///
/// What the kernel said.
pub fn tcp_socket_from(source: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(domain(family(source)), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    bind_one_family(&socket, source)?;
    Ok(socket.into())
}

/// Binds a socket to the one link of a host, so that also what is for a loopback address leaves by it.
///
/// # Errors
///
/// What the kernel said.
pub fn leave_by_uplink(socket: &OwnedFd) -> io::Result<()> {
    SockRef::from(socket).bind_device(Some(UPLINK_NAME.as_bytes()))
}

/// A TCP socket that accepts; an IPv6 one takes no IPv4.
///
/// # Errors
///
/// What the kernel said.
pub fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(domain(family(address)), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    bind_one_family(&socket, address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// An unconnected SCTP socket of the one-to-one style with a source address.
///
/// It is bound to that one address: otherwise it would offer the other side every address of its
/// namespace, and translation of addresses does not reach into packets.
///
/// # Errors
///
/// What the kernel said; that it does not know the protocol where it has no SCTP.
pub fn sctp_socket_from(source: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(domain(family(source)), Type::STREAM, Some(Protocol::SCTP))?;
    bind_one_family(&socket, source)?;
    Ok(socket.into())
}

/// An SCTP socket of the one-to-one style that accepts, bound to one address.
///
/// # Errors
///
/// What the kernel said; that it does not know the protocol where it has no SCTP.
pub fn sctp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(domain(family(address)), Type::STREAM, Some(Protocol::SCTP))?;
    bind_one_family(&socket, address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A bound UDP socket; an IPv6 one takes no IPv4.
///
/// # Errors
///
/// What the kernel said.
pub fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(domain(family(address)), Type::DGRAM, Some(Protocol::UDP))?;
    bind_one_family(&socket, address)?;
    Ok(socket.into())
}

/// A UDP socket bound to a port that more sockets may have: each is to be connected, and hears its
/// own peer alone.
///
/// # Errors
///
/// What the kernel said; that the port is in use where a socket has it for itself.
pub fn udp_socket_sharing(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(domain(family(address)), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    bind_one_family(&socket, address)?;
    Ok(socket.into())
}

/// Many UDP sockets, each bound to `address`, which should have port 0.
///
/// # Errors
///
/// What the kernel said about the first that failed; none stays open then.
pub fn udp_sockets(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    (0..count).map(|_| udp_socket(address)).collect()
}

/// The source ports of clients: those that the kernel itself chooses from, among which no node port
/// is.
const SOURCE_PORTS: RangeInclusive<u16> = 32_768..=60_999;
/// Ports between the first ones of two places.
const PORTS_OF_PLACE: usize = 4_001;
/// Ports tried before a place counts as full.
const TRIES: u16 = 64;

/// The source ports of one place in turn.
///
/// None is used again before all the others were, so that kernels have forgotten it by then as far
/// as possible: two flows from one port to one endpoint, by whatever addresses, are one to a kernel
/// that balances by itself.
#[derive(Debug)]
pub struct SourcePorts {
    tcp: AtomicU16,
    udp: AtomicU16,
}

impl SourcePorts {
    /// Those of the place of that number.
    ///
    /// Each place begins elsewhere: a node that masquerades keeps the ports of its pods, which
    /// should not be those that it uses itself at that time.
    pub fn of_place(number: usize) -> Self {
        let first = u16::try_from(number * PORTS_OF_PLACE % SOURCE_PORTS.len()).unwrap_or_default();
        SourcePorts { tcp: AtomicU16::new(first), udp: AtomicU16::new(first) }
    }

    /// A TCP socket with that source address, as [`tcp_socket_from`] opens it, and that port, or
    /// else the next free one.
    ///
    /// # Errors
    ///
    /// What the kernel said; that the ports are in use where many in a row are.
    pub fn tcp(&self, from: IpAddr, port: Option<u16>) -> io::Result<OwnedFd> {
        match port {
            Some(port) => tcp_socket_from(SocketAddr::new(from, port)),
            None => next_free(&self.tcp, |port| tcp_socket_from(SocketAddr::new(from, port))),
        }
    }

    /// A UDP socket with that source address and that port, which others may have too, or else the
    /// next free one.
    ///
    /// # Errors
    ///
    /// What the kernel said; that the ports are in use where many in a row are.
    pub fn udp(&self, from: IpAddr, port: Option<u16>) -> io::Result<UdpSocket> {
        match port {
            Some(port) => udp_socket_sharing(SocketAddr::new(from, port)),
            None => next_free(&self.udp, |port| udp_socket(SocketAddr::new(from, port))),
        }
    }
}

fn next_free<S>(ports: &AtomicU16, open: impl Fn(u16) -> io::Result<S>) -> io::Result<S> {
    let mut tries = 0;
    loop {
        match open(next(ports)) {
            // A server of the place has this port.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => tries += 1,
            tried => return tried,
        }
    }
}

fn next(ports: &AtomicU16) -> u16 {
    let count = u16::try_from(SOURCE_PORTS.len()).unwrap_or(u16::MAX);
    let step = |at: u16| Some((at + 1) % count);
    let (Ok(at) | Err(at)) = ports.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    SOURCE_PORTS.start() + at
}

/// A socket that sees every packet of the namespace, from the network header on.
///
/// # Errors
///
/// What the kernel said.
pub fn packet_socket() -> io::Result<OwnedFd> {
    let protocol = Protocol::from(ALL_PROTOCOLS);
    Ok(open(Domain::PACKET, Type::DGRAM, Some(protocol))?.into())
}

fn open(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    // Both flags with the call that opens it: two calls fewer for each socket.
    Socket::new_raw(domain, kind.nonblocking().cloexec(), protocol)
}

fn bind_one_family(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match family(address) {
        Family::V4 => {}
        Family::V6 => socket.set_only_v6(true)?,
    }
    socket.bind(&SockAddr::from(address))
}

fn family(address: SocketAddr) -> Family {
    Family::of(address.ip())
}

fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}
