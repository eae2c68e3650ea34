//! How sockets are opened.
//!
//! A socket belongs for its whole life to the namespace of the thread that opened it, so these
//! functions are meant for jobs of [`Namespace::run`](crate::Namespace::run).
//! Every socket is nonblocking and closes on `execve`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::plan::Family;

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

/// An unconnected TCP socket with a source address; port 0 lets the kernel choose at connect.
///
/// # Errors
///
/// What the kernel said.
pub fn tcp_socket_from(source: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(domain(family(source)), Type::STREAM, Some(Protocol::TCP))?;
    // Without it the kernel picks the port here, from those that no other socket uses.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SockAddr::from(source))?;
    Ok(socket.into())
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

/// Many UDP sockets, each bound to `address`, which should have port 0.
///
/// # Errors
///
/// What the kernel said about the first that failed; none stays open then.
pub fn udp_sockets(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    (0..count).map(|_| udp_socket(address)).collect()
}

/// First of the UDP source ports: below are those on which servers of cases listen.
const FIRST_UDP_PORT: u16 = 10_240;
/// UDP ports between the first ones of two places.
const PORTS_OF_PLACE: usize = 4_001;
/// UDP ports tried before a place counts as full.
const UDP_TRIES: u16 = 64;

/// The UDP source ports of one place in turn, so that none is used again while conntrack remembers
/// it.
#[derive(Debug)]
pub struct UdpPorts(AtomicU16);

impl Default for UdpPorts {
    fn default() -> Self {
        UdpPorts::of_place(0)
    }
}

impl UdpPorts {
    /// Those of the place of that number.
    ///
    /// Each place begins elsewhere: a node that masquerades keeps the ports of its pods, which
    /// should not be those that it uses itself at that time.
    pub fn of_place(number: usize) -> Self {
        let ports = usize::from(u16::MAX - FIRST_UDP_PORT);
        let first = u16::try_from(number * PORTS_OF_PLACE % ports).unwrap_or_default();
        UdpPorts(AtomicU16::new(FIRST_UDP_PORT + first))
    }

    /// A UDP socket with that source address and the next free port.
    ///
    /// # Errors
    ///
    /// What the kernel said; that the ports are in use where many in a row are.
    pub fn bind(&self, from: IpAddr) -> io::Result<UdpSocket> {
        let mut tries = 0;
        loop {
            match udp_socket(SocketAddr::new(from, self.next())) {
                // A server of the place has this port.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < UDP_TRIES => {
                    tries += 1;
                }
                tried => return tried,
            }
        }
    }

    fn next(&self) -> u16 {
        let port = self.0.fetch_add(1, Ordering::Relaxed);
        if port >= FIRST_UDP_PORT { port } else { port.saturating_add(FIRST_UDP_PORT) }
    }
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
