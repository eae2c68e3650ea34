//! Links, addresses, routes, rules and neighbour entries, changed in batches.
//!
//! The only place that knows the netlink crates.
//! Many messages go to the kernel with one call; it handles them in order and answers the last
//! one and every one that failed.

mod message;
mod settle;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use rtnetlink::packet_core::NLM_F_ACK;

use crate::plan::Prefix;
use message::message;
pub(crate) use settle::{Awaited, settle};

/// Index of the loopback interface in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// The main routing table.
pub(crate) const MAIN_TABLE: u8 = 254;

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
    Veth { near: End, far: End, far_namespace: RawFd, mtu: Option<u32> },
    /// Make a bridge, up.
    Bridge { link: End },
    /// Make an interface a port of a bridge.
    Port { index: u32, bridge: u32 },
    /// Set an interface up.
    Up { index: u32 },
    /// Change an interface's MTU.
    Mtu { index: u32, mtu: u32 },
    /// Send packets for a range no longer to this interface.
    DeleteRoute { to: Prefix, index: u32 },
    /// Give an interface an address, without a route to its range.
    Address { index: u32, prefix: Prefix },
    /// Send packets for a range to a gateway, or, without one, straight to an interface.
    Route { to: Prefix, via: Option<IpAddr>, index: u32, source: Option<IpAddr>, table: u8 },
    /// Take packets for a range as this host's own.
    LocalRoute { to: Prefix },
    /// Let packets from an interface use a table.
    Rule { priority: u32, interface: String, from: Option<Prefix>, to: Option<Prefix>, table: u8 },
    /// Say for good which link-layer address a neighbour has.
    Neighbour { index: u32, address: IpAddr, mac: Mac },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Veth { near, far, .. } => {
                write!(f, "create veth {} with peer {}", near.name, far.name)
            }
            Change::Bridge { link } => write!(f, "create bridge {}", link.name),
            Change::Port { index, bridge } => {
                write!(f, "make interface {index} a port of bridge {bridge}")
            }
            Change::Up { index } => write!(f, "set interface {index} up"),
            Change::Mtu { index, mtu } => write!(f, "set the MTU of interface {index} to {mtu}"),
            Change::DeleteRoute { to, index } => {
                write!(f, "delete the route to {to} on interface {index}")
            }
            Change::Address { index, prefix } => {
                write!(f, "add address {prefix} to interface {index}")
            }
            Change::Route { to, via: Some(via), index, table, .. } => {
                write!(f, "add route to {to} via {via} on interface {index} in table {table}")
            }
            Change::Route { to, via: None, index, table, .. } => {
                write!(f, "add route to {to} on interface {index} in table {table}")
            }
            Change::LocalRoute { to } => write!(f, "add local route to {to}"),
            Change::Rule { priority, interface, table, .. } => {
                write!(f, "add rule {priority} from interface {interface} to table {table}")
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

/// Makes all changes in the namespace of this thread, in order, and waits until the addresses
/// among them are in use.
///
/// A refused change does not keep the later ones from being made.
///
/// # Errors
///
/// The first change that was refused.
pub(crate) fn apply(changes: &[Change]) -> Result<(), Failed> {
    let talk = |source: io::Error| Failed { act: "talk to the kernel's netlink".into(), source };
    let socket = socket(
        AddressFamily::Netlink,
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
    match first_failure {
        Some(failed) => Err(failed),
        None => settle(&changes.iter().filter_map(awaited).collect::<Vec<_>>()),
    }
}

/// What has to be waited for after a change.
fn awaited(change: &Change) -> Option<Awaited> {
    match change {
        Change::Address { prefix, .. } => match prefix.address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(Awaited::Local(address)),
        },
        Change::Veth { .. }
        | Change::Bridge { .. }
        | Change::Port { .. }
        | Change::Up { .. }
        | Change::Mtu { .. }
        | Change::DeleteRoute { .. }
        | Change::Route { .. }
        | Change::LocalRoute { .. }
        | Change::Rule { .. }
        | Change::Neighbour { .. } => None,
    }
}

/// As many changes as fit into one call; only the last is to be answered.
fn encode(changes: &[Change], first_number: u32) -> (Vec<u8>, usize) {
    let mut bytes = Vec::with_capacity(BATCH);
    let mut last = 0;
    let mut count = 0;
    for change in changes {
        let message = message(change, first_number + count as u32);
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
    let next = bytes.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
    Some((sequence, error, next))
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
