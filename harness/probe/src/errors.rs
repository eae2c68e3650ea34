//! What the kernel's errors mean: error numbers, and the error queue of a socket, which tells an
//! ICMP error from a reset and names who sent it.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use touchstone_spec::{Family, Observation, Outcome, Refusal};

/// Bytes of the refused packet that are kept: enough for a request.
const QUOTE_LIMIT: usize = 64;

/// Who should have answered.
pub(crate) const TOUCHSTONE: &str = "a touchstone server";

/// One entry of a socket's error queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) cause: Cause,
    /// Beginning of the packet that caused the error, after its UDP header or from its TCP
    /// header on; empty where the sender of the error did not quote it.
    pub(crate) quoted: Vec<u8>,
}

/// Where a queued error came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// An ICMP error.
    Icmp { kind: u8, code: u8, from: Option<IpAddr> },
    /// An ICMPv6 error.
    Icmp6 { kind: u8, code: u8, from: Option<IpAddr> },
    /// The client's own kernel.
    Local(Errno),
}

/// Whether a socket keeps ICMP errors in its error queue (and reports all of them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorQueue {
    On,
    Off,
}

/// Switches the error queue of a socket that talks to `to`; off also empties it.
pub(crate) fn set_error_queue(
    socket: impl AsFd,
    to: SocketAddr,
    queue: ErrorQueue,
) -> io::Result<()> {
    let on = match queue {
        ErrorQueue::On => true,
        ErrorQueue::Off => false,
    };
    match Family::of(to.ip()) {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &on)?,
        Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &on)?,
    }
    Ok(())
}

/// Takes the oldest entry of a socket's error queue; none if the queue is empty.
/// Never blocks.
pub(crate) fn next_queued(socket: impl AsFd) -> io::Result<Option<Queued>> {
    let mut quote = [0u8; QUOTE_LIMIT];
    let mut control = nix::cmsg_space!([u8; 256]);
    let (cause, length) = {
        let mut parts = [IoSliceMut::new(&mut quote)];
        let message = match recvmsg::<SockaddrStorage>(
            socket.as_fd().as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        (message.cmsgs()?.find_map(cause_of), message.bytes)
    };
    let quoted = quote.get(..length).unwrap_or(&quote).to_vec();
    Ok(cause.map(|cause| Queued { cause, quoted }))
}

fn cause_of(message: ControlMessageOwned) -> Option<Cause> {
    let (error, from) = if let ControlMessageOwned::Ipv4RecvErr(error, from) = message {
        (error, from.map(|from| IpAddr::from(from.sin_addr.s_addr.to_ne_bytes())))
    } else if let ControlMessageOwned::Ipv6RecvErr(error, from) = message {
        (error, from.map(|from| IpAddr::from(from.sin6_addr.s6_addr)))
    } else {
        return None;
    };
    let (kind, code) = (error.ee_type, error.ee_code);
    let errno = i32::try_from(error.ee_errno).unwrap_or(0);
    Some(match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => Cause::Icmp { kind, code, from },
        libc::SO_EE_ORIGIN_ICMP6 => Cause::Icmp6 { kind, code, from },
        _local => Cause::Local(Errno::from_raw(errno)),
    })
}

/// What an entry of the error queue means for the attempt; none if it says nothing about the
/// network.
pub(crate) fn meaning_of_cause(cause: Cause) -> Option<Outcome> {
    match cause {
        // Network and host unreachable, source route failed, network and host unknown, source
        // isolated, and both again "for this type of service" tell of missing routes (RFC 792,
        // RFC 1122 section 3.2.2.1); the other codes of type 3 say no.
        Cause::Icmp { kind: 3, code: 0 | 1 | 5..=8 | 11 | 12, from: _ } => {
            Some(Outcome::Unreachable)
        }
        Cause::Icmp { kind: 3, code, from } => {
            Some(Outcome::Refused(Refusal::Icmp { kind: 3, code, from }))
        }
        Cause::Icmp { kind: _, code: _, from: _ } => Some(Outcome::Unreachable),
        // Administratively prohibited, port unreachable, policy, reject route (RFC 4443 3.1).
        Cause::Icmp6 { kind: 1, code: code @ (1 | 4..=6), from } => {
            Some(Outcome::Refused(Refusal::Icmp { kind: 1, code, from }))
        }
        Cause::Icmp6 { kind: _, code: _, from: _ } => Some(Outcome::Unreachable),
        Cause::Local(errno) => meaning_of_errno(errno),
    }
}

/// What an error number means for the attempt; none if it tells of a want of the probe itself.
///
/// Numbers of refusals stand for a reset "or a kind that could not be told": ask the error queue
/// first.
pub(crate) fn meaning_of_errno(errno: Errno) -> Option<Outcome> {
    // A rule, or a route of type prohibit; from elsewhere EACCES comes with a queue entry.
    const OWN_NODE: [Errno; 2] = [Errno::EPERM, Errno::EACCES];
    // The last two are what the kernel makes of ICMP errors that say no.
    const REFUSED: [Errno; 3] = [Errno::ECONNREFUSED, Errno::ENOPROTOOPT, Errno::EPROTO];
    const UNREACHABLE: [Errno; 4] =
        [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EHOSTDOWN, Errno::ENONET];
    const RESET: [Errno; 3] = [Errno::ECONNRESET, Errno::EPIPE, Errno::ECONNABORTED];
    if OWN_NODE.contains(&errno) {
        Some(Outcome::Refused(Refusal::OwnNode))
    } else if REFUSED.contains(&errno) {
        Some(Outcome::Refused(Refusal::Reset))
    } else if UNREACHABLE.contains(&errno) {
        Some(Outcome::Unreachable)
    } else if RESET.contains(&errno) {
        Some(Outcome::Reset)
    } else if errno == Errno::ETIMEDOUT {
        Some(Outcome::Dropped)
    } else {
        None
    }
}

/// The error number of an I/O error; unknown if it has none.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// What the failure of `act` towards `to` says.
/// The error queue, where it has an entry, knows more than the error number.
pub(crate) fn failed(
    act: &'static str,
    to: SocketAddr,
    error: &io::Error,
    queued: Option<Queued>,
) -> Observation {
    let meaning = queued
        .and_then(|queued| meaning_of_cause(queued.cause))
        .or_else(|| meaning_of_errno(errno_of(error)));
    match meaning {
        Some(outcome) => Observation::Saw(outcome),
        None => broke(act, to, error),
    }
}

/// The probe itself failed in `act` towards `to`.
pub(crate) fn broke(act: &'static str, to: SocketAddr, error: impl fmt::Display) -> Observation {
    Observation::ProbeBroke(format!("failed to {act} {to}: {error}"))
}

/// Somebody answered who is not `wanted`.
pub(crate) fn foreign(to: SocketAddr, wanted: &'static str, answer: &[u8]) -> Observation {
    const SHOWN: usize = 60;
    let (shown, more) = match answer.get(..SHOWN) {
        Some(beginning) => (beginning, "…"),
        None => (answer, ""),
    };
    Observation::ProbeBroke(format!(
        "{to} answered \"{}{more}\": not {wanted}",
        shown.escape_ascii()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(outcome: Option<Outcome>) -> String {
        outcome.map_or_else(|| "the probe's own".to_owned(), |outcome| outcome.to_string())
    }

    fn icmp(kind: u8, code: u8) -> String {
        let from = Some(IpAddr::from([192, 0, 2, 1]));
        show(meaning_of_cause(Cause::Icmp { kind, code, from }))
    }

    fn icmp6(kind: u8, code: u8) -> String {
        show(meaning_of_cause(Cause::Icmp6 { kind, code, from: None }))
    }

    #[test]
    fn icmp_errors() {
        assert_eq!(icmp(3, 0), "unreachable");
        assert_eq!(icmp(3, 1), "unreachable");
        assert_eq!(icmp(3, 2), "refused (icmp 3/2 from 192.0.2.1)");
        assert_eq!(icmp(3, 3), "refused (icmp 3/3 from 192.0.2.1)");
        assert_eq!(icmp(3, 9), "refused (icmp 3/9 from 192.0.2.1)");
        assert_eq!(icmp(3, 10), "refused (icmp 3/10 from 192.0.2.1)");
        assert_eq!(icmp(3, 13), "refused (icmp 3/13 from 192.0.2.1)");
        assert_eq!(icmp(11, 0), "unreachable");
    }

    #[test]
    fn icmpv6_errors() {
        assert_eq!(icmp6(1, 0), "unreachable");
        assert_eq!(icmp6(1, 1), "refused (icmp 1/1)");
        assert_eq!(icmp6(1, 3), "unreachable");
        assert_eq!(icmp6(1, 4), "refused (icmp 1/4)");
        assert_eq!(icmp6(1, 5), "refused (icmp 1/5)");
        assert_eq!(icmp6(1, 6), "refused (icmp 1/6)");
        assert_eq!(icmp6(3, 0), "unreachable");
    }

    #[test]
    fn error_numbers() {
        let check = |errno, want: &str| assert_eq!(show(meaning_of_errno(errno)), want, "{errno}");
        check(Errno::ECONNREFUSED, "refused (reset)");
        check(Errno::EPERM, "refused (by the client's own node)");
        check(Errno::EACCES, "refused (by the client's own node)");
        check(Errno::ENETUNREACH, "unreachable");
        check(Errno::EHOSTUNREACH, "unreachable");
        check(Errno::ECONNRESET, "reset");
        check(Errno::EPIPE, "reset");
        check(Errno::ETIMEDOUT, "dropped");
        check(Errno::EMFILE, "the probe's own");
        check(Errno::EADDRNOTAVAIL, "the probe's own");
        check(Errno::ENOBUFS, "the probe's own");
    }

    #[test]
    fn the_queue_knows_more_than_the_number() {
        let to = SocketAddr::from(([192, 0, 2, 7], 80));
        let refused = io::Error::from(Errno::ECONNREFUSED);
        let cause = Cause::Icmp { kind: 3, code: 3, from: None };
        let queued = Some(Queued { cause, quoted: Vec::new() });
        assert_eq!(
            failed("connect to", to, &refused, queued),
            Observation::Saw(Outcome::Refused(Refusal::Icmp { kind: 3, code: 3, from: None }))
        );
        assert_eq!(
            failed("connect to", to, &io::Error::from(Errno::EMFILE), None),
            Observation::ProbeBroke(
                "failed to connect to 192.0.2.7:80: Too many open files (os error 24)".to_owned()
            )
        );
    }

    #[test]
    fn foreign_answers_are_shown_in_short() {
        let to = SocketAddr::from(([192, 0, 2, 7], 80));
        assert_eq!(
            foreign(to, TOUCHSTONE, b"SSH-2.0\r"),
            Observation::ProbeBroke(
                "192.0.2.7:80 answered \"SSH-2.0\\r\": not a touchstone server".to_owned()
            )
        );
    }
}
