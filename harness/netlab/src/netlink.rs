//! Links, addresses, routes, rules and neighbour entries, changed in batches.
//!
//! The only place that knows the netlink crates.
//! Many messages go to the kernel with one call; it handles them in order and answers the last
//! one and every one that failed.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily as SocketFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind,
    recv, send, socket,
};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};

use crate::plan::{Family, Prefix};

/// Index of the loopback interface in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// The main routing table.
pub(crate) const MAIN_TABLE: u8 = RouteHeader::RT_TABLE_MAIN;

/// The table of addresses that this host takes for its own.
const LOCAL_TABLE: u8 = 255;

/// A link-layer address.
pub(crate) type Mac = [u8; 6];

/// One end of a veth pair. The index is chosen by us, so that nothing has to be asked for.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mac: Mac,
}

/// One change. `Display` completes the sentence "failed to …".
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Make a veth pair with the near end up; the far end lies in the namespace of this
    /// descriptor and must be set up there.
    Veth {
        near: End,
        far: End,
        far_namespace: RawFd,
        mtu: Option<u32>,
    },
    /// Set an interface up.
    Up { index: u32 },
    /// Change an interface's MTU.
    Mtu { index: u32, mtu: u32 },
    /// Send packets for a range no longer to this interface.
    DeleteRoute { to: Prefix, index: u32 },
    /// Give an interface an address, without a route to its range.
    Address { index: u32, prefix: Prefix },
    /// Send packets for a range to a gateway, or, without one, straight to an interface.
    Route {
        to: Prefix,
        via: Option<IpAddr>,
        index: u32,
        source: Option<IpAddr>,
        table: u8,
    },
    /// Take packets for a range as this host's own.
    LocalRoute { to: Prefix },
    /// Let packets from an interface use a table.
    Rule {
        priority: u32,
        interface: String,
        from: Option<Prefix>,
        to: Option<Prefix>,
        table: u8,
    },
    /// Say for good which link-layer address a neighbour has.
    Neighbour {
        index: u32,
        address: IpAddr,
        mac: Mac,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Veth { near, far, .. } => {
                write!(f, "create veth {} with peer {}", near.name, far.name)
            }
            Change::Up { index } => write!(f, "set interface {index} up"),
            Change::Mtu { index, mtu } => write!(f, "set the MTU of interface {index} to {mtu}"),
            Change::DeleteRoute { to, index } => {
                write!(f, "delete the route to {to} on interface {index}")
            }
            Change::Address { index, prefix } => {
                write!(f, "add address {prefix} to interface {index}")
            }
            Change::Route {
                to,
                via: Some(via),
                index,
                table,
                ..
            } => {
                write!(
                    f,
                    "add route to {to} via {via} on interface {index} in table {table}"
                )
            }
            Change::Route {
                to,
                via: None,
                index,
                table,
                ..
            } => {
                write!(f, "add route to {to} on interface {index} in table {table}")
            }
            Change::LocalRoute { to } => write!(f, "add local route to {to}"),
            Change::Rule {
                priority,
                interface,
                table,
                ..
            } => {
                write!(
                    f,
                    "add rule {priority} from interface {interface} to table {table}"
                )
            }
            Change::Neighbour { index, address, .. } => {
                write!(f, "add neighbour {address} to interface {index}")
            }
        }
    }
}

/// A change that was refused.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) act: String,
    pub(crate) source: io::Error,
}

/// Bytes of messages sent with one call; well under the smallest send buffer.
const BATCH: usize = 32 * 1024;

/// Makes all changes in the namespace of this thread, in order.
///
/// A refused change does not keep the later ones from being made.
///
/// # Errors
///
/// The first change that was refused.
pub(crate) fn apply(changes: &[Change]) -> Result<(), Failed> {
    let talk = |source: io::Error| Failed {
        act: "talk to the kernel's netlink".into(),
        source,
    };
    let socket = socket(
        SocketFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .map_err(|errno| talk(errno.into()))?;
    let mut rest = changes;
    let mut number = 0_u32;
    let mut first_failure = None;
    while !rest.is_empty() {
        let start = number;
        let (bytes, count) = encode(rest, start);
        let (batch, later) = rest.split_at(count);
        rest = later;
        number += count as u32;
        send(socket.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(|errno| talk(errno.into()))?;
        let failures = answers(socket.as_raw_fd(), number - 1).map_err(talk)?;
        if let Some((sequence, source)) = failures.into_iter().next() {
            let act = sequence
                .checked_sub(start)
                .and_then(|index| batch.get(index as usize))
                .map_or_else(|| "match the kernel's answer".to_owned(), Change::to_string);
            first_failure.get_or_insert(Failed { act, source });
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// As many changes as fit into one call; only the last is to be answered.
fn encode(changes: &[Change], first_number: u32) -> (Vec<u8>, usize) {
    let mut bytes = Vec::with_capacity(BATCH);
    let mut last = 0;
    let mut count = 0;
    for change in changes {
        let (message, flags) = message(change);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = first_number + count as u32;
        message.finalize();
        let start = bytes.len();
        let padded = message.buffer_len().next_multiple_of(4);
        if start > 0 && start + padded > BATCH {
            break;
        }
        bytes.resize(start + padded, 0);
        message.serialize(&mut bytes[start..]);
        last = start;
        count += 1;
    }
    // struct nlmsghdr: length (4 bytes), type (2), flags (2), sequence (4), port (4).
    if let Some(flags) = bytes.get_mut(last + 6..last + 8) {
        let asked = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&asked.to_ne_bytes());
    }
    (bytes, count)
}

/// Reads answers until the one with number `last`; returns the refusals.
fn answers(socket: RawFd, last: u32) -> io::Result<Vec<(u32, io::Error)>> {
    let mut failures = Vec::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let length = recv(socket, &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((sequence, error, next)) = answer(rest) {
            if let Some(error) = error {
                failures.push((sequence, error));
            }
            if sequence == last {
                return Ok(failures);
            }
            rest = next;
        }
    }
}

/// The first answer in `bytes`: its number, the refusal if it is one, and what follows.
fn answer(bytes: &[u8]) -> Option<(u32, Option<io::Error>, &[u8])> {
    const ERROR: u16 = 2;
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let length = word(0)? as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = word(8)?;
    let errno = if kind == ERROR { word(16)? as i32 } else { 0 };
    let error = (errno != 0).then(|| io::Error::from_raw_os_error(-errno));
    let next = bytes
        .get(length.next_multiple_of(4).max(16)..)
        .unwrap_or_default();
    Some((sequence, error, next))
}

/// How long [`settle_carriers`] may take for each interface; it needs a millisecond as a rule.
pub(crate) const CARRIER_LIMIT: Duration = Duration::from_secs(5);

/// Waits until interfaces of this thread's namespace carry packets.
///
/// The kernel opens one end of a veth pair for sending a moment after both are up, and drops what
/// is sent before; a first SYN would be lost and cost a second.
///
/// # Errors
///
/// One of them did not within `limit`, or what the kernel said.
pub(crate) fn settle_carriers(indexes: &[u32], limit: Duration) -> Result<(), Failed> {
    let failed = |index: u32| {
        move |source| Failed {
            act: format!("see interface {index} carry"),
            source,
        }
    };
    let Some(&first) = indexes.first() else {
        return Ok(());
    };
    let socket = listen_to_links().map_err(failed(first))?;
    indexes
        .iter()
        .try_for_each(|&index| settle_carrier(&socket, index, limit).map_err(failed(index)))
}

fn listen_to_links() -> io::Result<OwnedFd> {
    /// The multicast group that tells about links, as a bit.
    const LINKS: u32 = 1;
    let socket = socket(
        SocketFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
    Ok(socket)
}

/// Asks, and then listens until the interface carries: so no change is missed.
fn settle_carrier(socket: &OwnedFd, index: u32, limit: Duration) -> io::Result<()> {
    let start = Instant::now();
    let mut question = LinkMessage::default();
    question.header.index = index;
    let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetLink(question));
    question.header.flags = NLM_F_REQUEST;
    question.finalize();
    let mut bytes = vec![0_u8; question.buffer_len()];
    question.serialize(&mut bytes);
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((_, error, next)) = answer(rest) {
            if let Some(error) = error {
                return Err(error);
            }
            if carries(rest, index) {
                return Ok(());
            }
            rest = next;
        }
    }
}

/// Whether this message says that the interface is up and carries.
fn carries(message: &[u8], index: u32) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
        return false;
    };
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload else {
        return false;
    };
    link.header.index == index
        && link
            .attributes
            .contains(&LinkAttribute::OperState(State::Up))
}

fn message(change: &Change) -> (RouteNetlinkMessage, u16) {
    let new = NLM_F_CREATE | NLM_F_EXCL;
    let replace = NLM_F_CREATE | NLM_F_REPLACE;
    match change {
        Change::Veth {
            near,
            far,
            far_namespace,
            mtu,
        } => {
            let mut peer = link_end(LinkMessage::default(), far, *mtu);
            peer.attributes.push(LinkAttribute::NetNsFd(*far_namespace));
            let mut link = link_end(link_up(near.index), near, *mtu);
            link.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]));
            (RouteNetlinkMessage::NewLink(link), new)
        }
        Change::Up { index } => (RouteNetlinkMessage::SetLink(link_up(*index)), 0),
        Change::Mtu { index, mtu } => {
            let mut link = LinkMessage::default();
            link.header.index = *index;
            link.attributes.push(LinkAttribute::Mtu(*mtu));
            (RouteNetlinkMessage::SetLink(link), 0)
        }
        Change::DeleteRoute { to, index } => {
            let mut route = route(to, None, *index, None, MAIN_TABLE);
            route.header.scope = RouteScope::NoWhere;
            (RouteNetlinkMessage::DelRoute(route), 0)
        }
        Change::Address { index, prefix } => (
            RouteNetlinkMessage::NewAddress(address(*index, prefix)),
            new,
        ),
        Change::Route {
            to,
            via,
            index,
            source,
            table,
        } => (
            RouteNetlinkMessage::NewRoute(route(to, *via, *index, *source, *table)),
            replace,
        ),
        Change::LocalRoute { to } => {
            let mut route = route(to, None, LOOPBACK, None, LOCAL_TABLE);
            route.header.kind = RouteType::Local;
            route.header.scope = RouteScope::Host;
            (RouteNetlinkMessage::NewRoute(route), replace)
        }
        Change::Rule {
            priority,
            interface,
            from,
            to,
            table,
        } => {
            let rule = rule(*priority, interface, from.as_ref(), to.as_ref(), *table);
            (RouteNetlinkMessage::NewRule(rule), new)
        }
        Change::Neighbour {
            index,
            address,
            mac,
        } => (
            RouteNetlinkMessage::NewNeighbour(neighbour(*index, *address, *mac)),
            replace,
        ),
    }
}

fn link_up(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn link_end(mut link: LinkMessage, end: &End, mtu: Option<u32>) -> LinkMessage {
    link.header.index = end.index;
    link.attributes
        .push(LinkAttribute::IfName(end.name.clone()));
    link.attributes
        .push(LinkAttribute::Address(end.mac.to_vec()));
    link.attributes.extend(mtu.map(LinkAttribute::Mtu));
    link
}

fn address(index: u32, prefix: &Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(prefix.family());
    message.header.prefix_len = prefix.length;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    // The long flags replace the short ones of the header.
    message.attributes = vec![
        AddressAttribute::Local(prefix.address),
        AddressAttribute::Address(prefix.address),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
    ];
    message
}

fn route(
    to: &Prefix,
    via: Option<IpAddr>,
    index: u32,
    source: Option<IpAddr>,
    table: u8,
) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.family());
    message.header.destination_prefix_length = to.length;
    message.header.table = table;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    if to.length > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(to.address.into()));
    }
    match via {
        Some(gateway) => {
            // The gateway need not be an address of any known range: its neighbour entry says
            // all there is to know.
            message.header.flags = RouteFlags::Onlink;
            message
                .attributes
                .push(RouteAttribute::Gateway(gateway.into()));
        }
        None => match to.family() {
            Family::V4 => message.header.scope = RouteScope::Link,
            Family::V6 => {}
        },
    }
    message
        .attributes
        .extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn rule(
    priority: u32,
    interface: &str,
    from: Option<&Prefix>,
    to: Option<&Prefix>,
    table: u8,
) -> RuleMessage {
    let mut message = RuleMessage::default();
    let any = from.or(to).map_or(Family::V4, Prefix::family);
    message.header.family = family(any);
    message.header.action = RuleAction::ToTable;
    message.header.table = table;
    message.attributes.push(RuleAttribute::Priority(priority));
    message
        .attributes
        .push(RuleAttribute::Iifname(interface.to_owned()));
    if let Some(from) = from {
        message.header.src_len = from.length;
        message.attributes.push(RuleAttribute::Source(from.address));
    }
    if let Some(to) = to {
        message.header.dst_len = to.length;
        message
            .attributes
            .push(RuleAttribute::Destination(to.address));
    }
    message
}

fn neighbour(index: u32, address: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(Family::of(address));
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(address.into()),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_at_its_size_and_asks_once() {
        let changes = vec![Change::Up { index: LOOPBACK }; 2000];
        let (bytes, count) = encode(&changes, 7);
        assert!(count > 500 && count < 2000, "{count}");
        assert!(bytes.len() <= BATCH);
        let mut rest = &bytes[..];
        let mut asked = Vec::new();
        while rest.len() >= 16 {
            let flags = u16::from_ne_bytes([rest[6], rest[7]]);
            let (sequence, error, next) = answer(rest).expect("a message");
            assert!(error.is_none());
            if flags & NLM_F_ACK != 0 {
                asked.push(sequence);
            }
            rest = next;
        }
        assert_eq!(asked, [7 + count as u32 - 1]);
    }

    #[test]
    fn a_refusal_is_read() {
        let mut bytes = Vec::new();
        bytes.extend(36_u32.to_ne_bytes());
        bytes.extend(2_u16.to_ne_bytes());
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(5_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend((-17_i32).to_ne_bytes());
        bytes.resize(36, 0);
        let (sequence, error, rest) = answer(&bytes).expect("an answer");
        assert_eq!((sequence, rest.len()), (5, 0));
        assert_eq!(error.and_then(|error| error.raw_os_error()), Some(17));
        assert!(answer(&bytes[..10]).is_none());
    }
}
