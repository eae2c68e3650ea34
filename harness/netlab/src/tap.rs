//! Counts what arrives in a namespace.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{LinkAddr, recvfrom, setsockopt, sockopt};

use crate::error::Error;
use crate::namespace::Namespace;

/// How many arrivals are remembered.
const REMEMBERED: usize = 65_536;

/// Room for packets that have arrived and are not read yet, in bytes; the kernel may give less.
const BUFFER: usize = 4 << 20;

/// One packet that came in over a link, loopback excepted; multicast is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol number of IANA's register: 1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6, 132 SCTP.
    pub protocol: u8,
    /// Source port; 0 where the protocol has none, and in later fragments.
    pub source_port: u16,
    /// Destination port; 0 where the protocol has none, and in later fragments.
    pub destination_port: u16,
}

/// A moment of a tap, as the number of what had arrived by then: a clock is not asked, which on some
/// kernels takes as long as sending a packet. Without a number it is the tap's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment(u64);

/// Which arrivals are meant; what is `None` is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    /// Source address.
    pub source: Option<IpAddr>,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// Protocol number.
    pub protocol: Option<u8>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
}

impl Filter {
    /// Whatever goes to this address and port, of any protocol.
    pub fn to(destination: IpAddr, port: u16) -> Self {
        Self { destination: Some(destination), destination_port: Some(port), ..Self::default() }
    }

    /// Whether it means this arrival.
    pub fn matches(&self, arrival: &Arrival) -> bool {
        self.source.is_none_or(|wanted| wanted == arrival.source)
            && self.destination.is_none_or(|wanted| wanted == arrival.destination)
            && self.protocol.is_none_or(|wanted| wanted == arrival.protocol)
            && self.source_port.is_none_or(|wanted| wanted == arrival.source_port)
            && self.destination_port.is_none_or(|wanted| wanted == arrival.destination_port)
    }
}

#[derive(Debug, Default)]
struct Log {
    arrivals: VecDeque<Arrival>,
    forgotten: u64,
    failure: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<Log>,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts what arrives in a namespace until it is dropped.
#[derive(Debug)]
pub struct Tap {
    shared: Arc<Shared>,
    // Closing it ends the thread.
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Begins to count what arrives in `namespace` from now on.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn open(namespace: &Namespace) -> Result<Self, Error> {
        let count = |source| Error::Count { namespace: namespace.name().to_owned(), source };
        let socket = namespace.packet_socket()?;
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER).map_err(|errno| count(errno.into()))?;
        let (stopped, stop) = io::pipe().map_err(count)?;
        let shared = Arc::new(Shared::default());
        let log = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("tap {}", namespace.name()))
            .stack_size(128 * 1024)
            .spawn(move || {
                if let Err(errno) = read_all(&socket, &stopped, &log) {
                    log.lock().failure = Some(errno.to_string());
                    log.news.notify_all();
                }
            })
            .map_err(count)?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        self.shared.lock().now()
    }

    /// What arrived since a moment, oldest first.
    pub fn arrivals(&self, filter: &Filter, since: Moment) -> Vec<Arrival> {
        self.shared.lock().since(filter, since).copied().collect()
    }

    /// How many packets arrived since a moment.
    pub fn count(&self, filter: &Filter, since: Moment) -> usize {
        self.shared.lock().since(filter, since).count()
    }

    /// Waits until at least one such packet has arrived since a moment, but not beyond `limit`;
    /// returns how many there are.
    ///
    /// Blocks: at most for `limit`.
    pub fn settle(&self, filter: &Filter, since: Moment, limit: Duration) -> usize {
        let none_yet =
            |log: &mut Log| log.failure.is_none() && log.since(filter, since).next().is_none();
        let waited = self.shared.news.wait_timeout_while(self.shared.lock(), limit, none_yet);
        let (log, _) = waited.unwrap_or_else(PoisonError::into_inner);
        log.since(filter, since).count()
    }

    /// How many arrivals were forgotten to make room for later ones.
    pub fn forgotten(&self) -> u64 {
        self.shared.lock().forgotten
    }

    /// Why counting ended early, if it did; the counts are worth nothing then.
    pub fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
    }
}

impl Log {
    fn since(&self, filter: &Filter, since: Moment) -> impl Iterator<Item = &Arrival> {
        let before = usize::try_from(since.0.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        self.arrivals.iter().skip(before).filter(|arrival| filter.matches(arrival))
    }

    fn now(&self) -> Moment {
        Moment(self.forgotten + self.arrivals.len() as u64)
    }

    fn add(&mut self, arrival: Arrival) {
        if self.arrivals.len() >= REMEMBERED {
            self.arrivals.pop_front();
            self.forgotten += 1;
        }
        self.arrivals.push_back(arrival);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has told its failure through the log.
            let _ = thread.join();
        }
    }
}

fn read_all(socket: &OwnedFd, stopped: &io::PipeReader, shared: &Shared) -> nix::Result<()> {
    // Enough for every header that is looked at; the rest of a packet is cut off.
    let mut packet = [0_u8; 256];
    loop {
        let mut ready = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if ready[1].any().unwrap_or(true) {
            return Ok(());
        }
        loop {
            let (length, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut packet) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                // An interface went down; others may live.
                Err(Errno::ENETDOWN) => continue,
                Err(errno) => return Err(errno),
            };
            let outgoing = from.is_some_and(|from| {
                from.pkttype() == nix::libc::PACKET_OUTGOING
                    || from.hatype() == nix::libc::ARPHRD_LOOPBACK
            });
            if outgoing {
                continue;
            }
            if let Some(arrival) = parse(&packet[..length]) {
                shared.lock().add(arrival);
                shared.news.notify_all();
            }
        }
    }
}

/// Reads an IP packet; `None` for anything else and for multicast.
fn parse(packet: &[u8]) -> Option<Arrival> {
    let (source, destination, protocol, payload) = match packet.first()? >> 4 {
        4 => parse_v4(packet)?,
        6 => parse_v6(packet)?,
        _ => return None,
    };
    if destination.is_multicast() {
        return None;
    }
    let has_ports = matches!(protocol, 6 | 17 | 132);
    let port = |at: usize| {
        let bytes: [u8; 2] = payload?.get(at..at + 2)?.try_into().ok()?;
        has_ports.then(|| u16::from_be_bytes(bytes))
    };
    Some(Arrival {
        source,
        destination,
        protocol,
        source_port: port(0).unwrap_or(0),
        destination_port: port(2).unwrap_or(0),
    })
}

type Parts<'a> = (IpAddr, IpAddr, u8, Option<&'a [u8]>);

fn parse_v4(packet: &[u8]) -> Option<Parts<'_>> {
    let address = |at: usize| {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(bytes)))
    };
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff;
    let payload = if fragment == 0 { packet.get(header..) } else { None };
    Some((address(12)?, address(16)?, *packet.get(9)?, payload))
}

fn parse_v6(packet: &[u8]) -> Option<Parts<'_>> {
    let address = |at: usize| {
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(bytes)))
    };
    let (source, destination) = (address(8)?, address(24)?);
    let mut protocol = *packet.get(6)?;
    let mut payload = packet.get(40..);
    // Hop-by-hop options, routing header, fragment header, destination options.
    while let (0 | 43 | 44 | 60, Some(rest)) = (protocol, payload) {
        let (Some(&next), Some(&length)) = (rest.first(), rest.get(1)) else {
            break;
        };
        let later_fragment = protocol == 44
            && rest.get(2..4).is_some_and(|offset| offset[0] != 0 || offset[1] & 0xf8 != 0);
        let skip = if protocol == 44 { 8 } else { (usize::from(length) + 1) * 8 };
        payload = if later_fragment { None } else { rest.get(skip..) };
        protocol = next;
    }
    Some((source, destination, protocol, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(packet: &[u8]) -> String {
        parse(packet).map_or_else(
            || "nothing".to_owned(),
            |a| {
                format!(
                    "{} {} -> {} {} protocol {}",
                    a.source, a.source_port, a.destination, a.destination_port, a.protocol
                )
            },
        )
    }

    fn v4(protocol: u8, fragment: u16, destination: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 0, 1]);
        packet.extend(destination);
        packet.extend([0x10, 0x00, 0x00, 0x50, 0, 8, 0, 0]);
        packet
    }

    fn v6(headers: &[u8], first: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, first, 64];
        packet.extend("fd00::1".parse::<Ipv6Addr>().expect("address").octets());
        packet.extend("fd00::2".parse::<Ipv6Addr>().expect("address").octets());
        packet.extend(headers);
        packet.extend([0x10, 0x00, 0x00, 0x50, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn packets_are_read() {
        let to = [10, 0, 0, 2];
        assert_eq!(show(&v4(17, 0, to)), "10.0.0.1 4096 -> 10.0.0.2 80 protocol 17");
        assert_eq!(show(&v4(17, 100, to)), "10.0.0.1 0 -> 10.0.0.2 0 protocol 17");
        assert_eq!(show(&v4(1, 0, to)), "10.0.0.1 0 -> 10.0.0.2 0 protocol 1");
        assert_eq!(show(&v4(17, 0, [224, 0, 0, 1])), "nothing");
        assert_eq!(show(&v6(&[], 6)), "fd00::1 4096 -> fd00::2 80 protocol 6");
        let options = [6, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(show(&v6(&options, 60)), "fd00::1 4096 -> fd00::2 80 protocol 6");
        let fragment = [17, 0, 0, 0x08, 0, 0, 0, 0];
        assert_eq!(show(&v6(&fragment, 44)), "fd00::1 0 -> fd00::2 0 protocol 17");
        assert_eq!(show(&[]), "nothing");
        assert_eq!(show(&[0x45, 0]), "nothing");
        assert_eq!(show(&v6(&[], 0)[..41]), "fd00::1 0 -> fd00::2 0 protocol 0");
    }

    #[test]
    fn the_log_is_bounded() {
        let mut log = Log::default();
        let start = log.now();
        let arrival = parse(&v4(17, 0, [10, 0, 0, 2])).expect("a packet");
        for _ in 0..REMEMBERED + 1 {
            log.add(arrival);
        }
        let late = log.now();
        for _ in 0..2 {
            log.add(arrival);
        }
        assert_eq!((log.arrivals.len(), log.forgotten), (REMEMBERED, 3));
        let since = |moment| log.since(&Filter::default(), moment).count();
        assert_eq!((since(start), since(late), since(log.now())), (REMEMBERED, 2, 0));
    }
}
