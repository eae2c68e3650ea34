//! Clients over UDP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::Socket;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use touchstone_spec::{Observation, Outcome};

use crate::errors::{
    ErrorQueue, Queued, TOUCHSTONE, broke, failed, foreign, meaning_of_cause, meaning_of_errno,
    next_queued, set_error_queue,
};
use crate::line::{Answer, DATAGRAM_LIMIT, Nonce, Request, parse_request};

/// How often sending is tried when the socket still holds an error of an earlier datagram.
const SEND_TRIES: usize = 3;

/// A UDP socket connected to one address, for many questions from one source port.
#[derive(Debug)]
pub struct UdpFlow {
    to: SocketAddr,
    socket: UdpSocket,
}

/// Asks once from an unconnected, perhaps bound UDP socket and waits at most `wait`.
///
/// One datagram is sent, never a second one. Only an answer from `to` itself is heard.
pub async fn ask_udp(fd: OwnedFd, to: SocketAddr, wait: Duration) -> Observation {
    echo_udp(fd, to, 0, wait).await
}

/// Asks as [`ask_udp`] does, with `size` bytes in the datagram that the server has to send back.
///
/// Bytes that come back changed break the probe.
pub async fn echo_udp(fd: OwnedFd, to: SocketAddr, size: u32, wait: Duration) -> Observation {
    match UdpFlow::open(fd, to) {
        Ok(mut flow) => flow.ask_with(size, wait).await,
        Err(seen) => seen,
    }
}

/// What a socket has to say.
enum Heard {
    /// A datagram.
    Datagram(Vec<u8>),
    /// An entry of the error queue.
    Queued(Queued),
    /// An error number.
    Errno(Errno),
}

impl UdpFlow {
    /// Connects an unconnected, perhaps bound UDP socket to `to`; nothing is sent.
    ///
    /// Errors: `Unreachable` or `Refused` if the client's node has no route or forbids it, or that
    /// the probe broke.
    pub fn open(fd: OwnedFd, to: SocketAddr) -> Result<UdpFlow, Observation> {
        const ACT: &str = "connect to";
        let socket = Socket::from(fd);
        socket
            .set_nonblocking(true)
            .and_then(|()| set_error_queue(&socket, to, ErrorQueue::On))
            .map_err(|error| broke("prepare the socket for", to, error))?;
        socket.connect(&to.into()).map_err(|error| failed(ACT, to, &error, None))?;
        let socket = UdpSocket::from_std(socket.into()).map_err(|error| broke(ACT, to, error))?;
        Ok(UdpFlow { to, socket })
    }

    /// Sends one datagram and waits at most `wait` for its answer.
    ///
    /// Late answers to earlier questions, and ICMP errors about them, are passed over.
    pub async fn ask(&mut self, wait: Duration) -> Observation {
        self.ask_with(0, wait).await
    }

    async fn ask_with(&mut self, size: u32, wait: Duration) -> Observation {
        timeout(wait, self.exchange(size)).await.unwrap_or(Observation::Saw(Outcome::Dropped))
    }

    async fn exchange(&mut self, size: u32) -> Observation {
        let request = Request::fresh(size);
        let nonce = request.nonce;
        if let Err(errno) = self.send(&request.bytes()) {
            return failed("send to", self.to, &errno.into(), None);
        }
        loop {
            let heard = match self.hear().await {
                Ok(heard) => heard,
                Err(error) => return broke("read from", self.to, error),
            };
            match heard {
                Heard::Datagram(datagram) => match answer_of(&datagram) {
                    Some((answer, payload)) if answer.nonce == nonce => {
                        if payload != request.payload() {
                            return broke("read from", self.to, "the bytes came back changed");
                        }
                        return Observation::Saw(Outcome::Reached {
                            endpoint: answer.local,
                            source: answer.peer.ip(),
                            resent: 0,
                        });
                    }
                    Some(_late) => {}
                    None => return foreign(self.to, TOUCHSTONE, &datagram),
                },
                Heard::Queued(queued) => {
                    if concerns(&queued, nonce)
                        && let Some(outcome) = meaning_of_cause(queued.cause)
                    {
                        return Observation::Saw(outcome);
                    }
                }
                // Every such number comes with an entry in the queue, which says more and whom it
                // concerns.
                Heard::Errno(errno) if meaning_of_errno(errno).is_some() => {}
                Heard::Errno(errno) => return broke("read from", self.to, errno),
            }
        }
    }

    /// Sends one datagram, without waiting: a full send buffer is the probe's own trouble.
    ///
    /// An error that an earlier datagram left behind is reported by the next send, which then
    /// sends nothing: hence more than one try.
    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        let mut tries = 1;
        loop {
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(errno) if tries == SEND_TRIES || !may_be_left_behind(errno) => {
                    return Err(errno);
                }
                Err(_) => tries += 1,
            }
        }
    }

    async fn hear(&self) -> io::Result<Heard> {
        loop {
            self.socket.ready(Interest::READABLE | Interest::ERROR).await?;
            // One after the other: tokio's `try_io` does nothing at all for a joined interest.
            let datagram = self.socket.try_io(Interest::READABLE, || receive(&self.socket));
            if let Some(heard) = unless_it_would_block(datagram)? {
                return Ok(heard);
            }
            let queued = self.socket.try_io(Interest::ERROR, || {
                next_queued(&self.socket)?.ok_or(io::ErrorKind::WouldBlock.into())
            });
            if let Some(queued) = unless_it_would_block(queued)? {
                return Ok(Heard::Queued(queued));
            }
        }
    }
}

fn receive(socket: &UdpSocket) -> io::Result<Heard> {
    let mut datagram = vec![0u8; DATAGRAM_LIMIT];
    match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => {
            datagram.truncate(length);
            Ok(Heard::Datagram(datagram))
        }
        Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        Err(errno) => Ok(Heard::Errno(errno)),
    }
}

fn unless_it_would_block<T>(tried: io::Result<T>) -> io::Result<Option<T>> {
    match tried {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer, and the bytes that came back with it.
fn answer_of(datagram: &[u8]) -> Option<(Answer, &[u8])> {
    let end = datagram.iter().position(|byte| *byte == b'\n')?;
    Some((Answer::parse(datagram.get(..end)?)?, datagram.get(end + 1..)?))
}

/// Whether an ICMP error is about the datagram with this nonce; one that quotes too little to
/// tell is taken to be.
fn concerns(queued: &Queued, nonce: Nonce) -> bool {
    let end = queued.quoted.iter().position(|byte| *byte == b'\n');
    let quoted = end.and_then(|end| queued.quoted.get(..end)).and_then(parse_request);
    quoted.is_none_or(|quoted| quoted.nonce == nonce)
}

/// A send that the client's own node refuses (EPERM) has met the rules and must not be repeated.
fn may_be_left_behind(errno: Errno) -> bool {
    errno != Errno::EPERM && meaning_of_errno(errno).is_some()
}
