//! Wait for what the kernel does a moment after it has said yes.

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, State};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::{Failed, answer, message};
use crate::plan::Family;

/// How long each of them may take. A millisecond is usual, and seconds are where dozens of labs are
/// made while others end: the worker waits for the one lock of all of the kernel's links.
const LIMIT: Duration = Duration::from_secs(30);

/// After how long of silence it asks again: what was told may have been lost.
const AGAIN: Duration = Duration::from_millis(500);

/// The multicast groups that tell about links and about IPv6 routes, as bits.
const GROUPS: u32 = 1 << 0 | 1 << 10;

/// Something that comes true by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// An interface carries packets.
    ///
    /// The kernel opens one end of a veth pair for sending a moment after both are up, and drops
    /// what is sent before; a first SYN would be lost and cost a second.
    Carrier(u32),
    /// Packets to an IPv6 address are taken for this host's own.
    ///
    /// The kernel leaves this to a worker, even without duplicate address detection; packets
    /// that come before are lost.
    Local(Ipv6Addr),
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::Carrier(index) => write!(f, "see interface {index} carry"),
            Awaited::Local(address) => write!(f, "see address {address} in use"),
        }
    }
}

/// Waits until all of them are true in the namespace of this thread.
///
/// # Errors
///
/// One of them did not come true in time, or what the kernel said.
pub(crate) fn settle(all: &[Awaited]) -> Result<(), Failed> {
    let Some(first) = all.first() else {
        return Ok(());
    };
    let failed = |awaited: &Awaited, source| Failed { act: awaited.to_string(), source };
    let socket = listen().map_err(|source| failed(first, source))?;
    all.iter()
        .try_for_each(|awaited| wait(&socket, awaited).map_err(|source| failed(awaited, source)))
}

fn listen() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    Ok(socket)
}

/// Asks, and then listens until it is true: so no change is missed.
fn wait(socket: &OwnedFd, awaited: &Awaited) -> io::Result<()> {
    let start = Instant::now();
    ask(socket, awaited)?;
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let left = LIMIT.saturating_sub(start.elapsed());
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(left.min(AGAIN)).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, patience) {
            Ok(0) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) => {
                ask(socket, awaited)?;
                continue;
            }
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            // More was told than there is room for; perhaps this, too.
            Err(Errno::ENOBUFS) => {
                ask(socket, awaited)?;
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        let mut rest = &buffer[..length];
        // A refusal means that there is no such thing yet.
        while let Some((_, _, next)) = answer(rest) {
            if tells(rest, awaited) {
                return Ok(());
            }
            rest = next;
        }
    }
}

fn ask(socket: &OwnedFd, awaited: &Awaited) -> io::Result<()> {
    let body = match awaited {
        Awaited::Carrier(index) => {
            let mut link = LinkMessage::default();
            link.header.index = *index;
            RouteNetlinkMessage::GetLink(link)
        }
        Awaited::Local(address) => {
            let mut route = RouteMessage::default();
            route.header.address_family = message::family(Family::V6);
            route.header.destination_prefix_length = Family::V6.bits();
            route.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet6(*address))];
            RouteNetlinkMessage::GetRoute(route)
        }
    };
    let mut question = NetlinkMessage::from(body);
    question.header.flags = NLM_F_REQUEST;
    question.finalize();
    let mut bytes = vec![0_u8; question.buffer_len()];
    question.serialize(&mut bytes);
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    Ok(())
}

/// Whether this message says that it is true.
fn tells(message: &[u8], awaited: &Awaited) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
        return false;
    };
    let NetlinkPayload::InnerMessage(message) = message.payload else {
        return false;
    };
    match awaited {
        Awaited::Carrier(index) => {
            let RouteNetlinkMessage::NewLink(link) = message else {
                return false;
            };
            let up = LinkAttribute::OperState(State::Up);
            link.header.index == *index && link.attributes.contains(&up)
        }
        Awaited::Local(address) => {
            let RouteNetlinkMessage::NewRoute(route) = message else {
                return false;
            };
            let to = RouteAttribute::Destination(RouteAddress::Inet6(*address));
            route.header.kind == RouteType::Local && route.attributes.contains(&to)
        }
    }
}
