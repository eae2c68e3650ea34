//! Clients over TCP, and over SCTP sockets of the one-to-one style, which behave alike.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use socket2::Socket;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;
use touchstone_spec::{Observation, Outcome};

use crate::errors::{
    ErrorQueue, Queued, TOUCHSTONE, broke, errno_of, failed, foreign, meaning_of_cause,
    next_queued, set_error_queue,
};
use crate::line::{Answer, Nonce, Request};
use crate::stream::{Lines, Next};

/// An accepted connection on which a server can be asked again and again.
///
/// Dropping it resets the connection, so that neither side keeps it in TIME_WAIT.
#[derive(Debug)]
pub struct Connection {
    to: SocketAddr,
    lines: Lines,
    /// Asked and not answered: their answers may still come, late.
    open: BTreeSet<Nonce>,
    resent: Resent,
}

/// What the kernel tells of retransmissions.
#[derive(Debug, Clone, Copy)]
enum Resent {
    /// So many were reported so far.
    Counted(u32),
    /// Nothing: SCTP has no such account of a connection.
    Untold,
}

/// Connects an unconnected, non-blocking, perhaps bound TCP socket to `to`, for at most `wait`.
///
/// Errors: what was seen instead of an accepted connection (`Refused`, `Unreachable`, `Dropped`,
/// `Reset`), or that the probe broke.
pub async fn connect_tcp(
    fd: OwnedFd,
    to: SocketAddr,
    wait: Duration,
) -> Result<Connection, Observation> {
    connect_within(fd, to, Resent::Counted(0), wait).await
}

/// Connects an SCTP socket of the one-to-one style as [`connect_tcp`] does.
///
/// Retransmissions are not seen: `resent` of its answers is 0.
pub async fn connect_sctp(
    fd: OwnedFd,
    to: SocketAddr,
    wait: Duration,
) -> Result<Connection, Observation> {
    connect_within(fd, to, Resent::Untold, wait).await
}

async fn connect_within(
    fd: OwnedFd,
    to: SocketAddr,
    resent: Resent,
    wait: Duration,
) -> Result<Connection, Observation> {
    let dropped = Err(Observation::Saw(Outcome::Dropped));
    timeout(wait, connect(fd, to, resent)).await.unwrap_or(dropped)
}

/// Connects as [`connect_tcp`] does, asks once and resets the connection; all of it takes `wait`
/// at most.
///
/// `Dropped` means that no answer came, whether or not the connection was accepted.
pub async fn ask_tcp(fd: OwnedFd, to: SocketAddr, wait: Duration) -> Observation {
    echo_tcp(fd, to, 0, wait).await
}

/// Asks as [`ask_tcp`] does, with `size` bytes that the server has to send back.
///
/// An ordinary question comes first on the connection, and the retransmissions up to its answer
/// are counted; those of many bytes are how TCP finds its speed.
/// Bytes that come back changed break the probe; a connection that ends before all of them came
/// is `Reset`.
pub async fn echo_tcp(fd: OwnedFd, to: SocketAddr, size: u32, wait: Duration) -> Observation {
    echo_within(fd, to, Resent::Counted(0), size, wait).await
}

/// Asks over SCTP as [`echo_tcp`] does, on a socket as for [`connect_sctp`].
pub async fn echo_sctp(fd: OwnedFd, to: SocketAddr, size: u32, wait: Duration) -> Observation {
    echo_within(fd, to, Resent::Untold, size, wait).await
}

async fn echo_within(
    fd: OwnedFd,
    to: SocketAddr,
    resent: Resent,
    size: u32,
    wait: Duration,
) -> Observation {
    let attempt = async {
        match connect(fd, to, resent).await {
            Ok(mut connection) => connection.echo(size).await,
            Err(seen) => seen,
        }
    };
    timeout(wait, attempt).await.unwrap_or(Observation::Saw(Outcome::Dropped))
}

impl Connection {
    /// Asks on this connection and waits at most `wait` for the answer.
    ///
    /// `resent` counts the retransmissions since the previous question; the first question counts
    /// those of connecting too. A question that found no answer in time leaves the connection
    /// usable: its late answer is never taken for that of another. A connection that the other
    /// side has ended, orderly or not, is `Reset`.
    pub async fn ask(&mut self, wait: Duration) -> Observation {
        timeout(wait, self.exchange(0)).await.unwrap_or(Observation::Saw(Outcome::Dropped))
    }

    async fn echo(&mut self, size: u32) -> Observation {
        let first = self.exchange(0).await;
        if size == 0 || !matches!(first, Observation::Saw(Outcome::Reached { .. })) {
            return first;
        }
        match self.exchange(size).await {
            Observation::Saw(Outcome::Reached { .. }) => first,
            other @ (Observation::Saw(_) | Observation::ProbeBroke(_)) => other,
        }
    }

    async fn exchange(&mut self, size: u32) -> Observation {
        let request = Request::fresh(size);
        let nonce = request.nonce;
        self.open.insert(nonce);
        if let Err(error) = self.lines.send(&request.bytes()).await {
            return failed("send to", self.to, &error, None);
        }
        loop {
            let line = match self.lines.next().await {
                Ok(Next::Line(line)) => line,
                Ok(Next::Ended(rest)) if rest.is_empty() => {
                    return Observation::Saw(Outcome::Reset);
                }
                Ok(Next::Ended(rest) | Next::TooLong(rest)) => {
                    return foreign(self.to, TOUCHSTONE, &rest);
                }
                Err(error) => return failed("read from", self.to, &error, None),
            };
            let Some(answer) = Answer::parse(&line) else {
                return foreign(self.to, TOUCHSTONE, &line);
            };
            if !self.open.remove(&answer.nonce) {
                return foreign(self.to, TOUCHSTONE, &line);
            }
            if answer.nonce == nonce {
                return match self.lines.take(usize::try_from(size).unwrap_or(usize::MAX)).await {
                    Ok(Some(payload)) if payload == request.payload() => self.reached(&answer),
                    Ok(Some(_)) => broke("read from", self.to, "the bytes came back changed"),
                    Ok(None) => Observation::Saw(Outcome::Reset),
                    Err(error) => failed("read from", self.to, &error, None),
                };
            }
        }
    }

    fn reached(&mut self, answer: &Answer) -> Observation {
        let resent = match self.resent {
            Resent::Untold => 0,
            Resent::Counted(before) => match touchstone_sys::tcp_info(self.lines.stream()) {
                Ok(info) => {
                    self.resent = Resent::Counted(info.total_retrans);
                    info.total_retrans.saturating_sub(before)
                }
                Err(error) => return broke("count the retransmissions to", self.to, error),
            },
        };
        let source = answer.peer.ip();
        Observation::Saw(Outcome::Reached { endpoint: answer.local, source, resent })
    }
}

async fn connect(fd: OwnedFd, to: SocketAddr, resent: Resent) -> Result<Connection, Observation> {
    let stream = establish(fd, to).await?;
    Ok(Connection { to, lines: Lines::new(stream), open: BTreeSet::new(), resent })
}

/// Connects and returns the stream, which resets its connection when dropped.
pub(crate) async fn establish(fd: OwnedFd, to: SocketAddr) -> Result<TcpStream, Observation> {
    const ACT: &str = "connect to";
    let socket = Socket::from(fd);
    socket
        .set_linger(Some(Duration::ZERO))
        .and_then(|()| set_error_queue(&socket, to, ErrorQueue::On))
        .map_err(|error| broke("prepare the socket for", to, error))?;
    if let Err(error) = socket.connect(&to.into())
        && errno_of(&error) != Errno::EINPROGRESS
    {
        let queued = next_queued(&socket).unwrap_or(None);
        return Err(failed(ACT, to, &error, queued));
    }
    // Only now: a socket that is not yet connecting reports a hang-up to epoll.
    let stream = TcpStream::from_std(socket.into()).map_err(|error| broke(ACT, to, error))?;
    loop {
        // An error alone counts as writable too: its side of the stream is closed.
        let interest = Interest::WRITABLE;
        let ready = stream.ready(interest).await.map_err(|error| broke(ACT, to, error))?;
        match stream.try_io(interest, || progress(&stream)) {
            Ok(Progress::Connected) => break,
            Ok(Progress::Failed { error, queued }) => return Err(failed(ACT, to, &error, queued)),
            Ok(Progress::Rejected(outcome)) => return Err(Observation::Saw(outcome)),
            // A closed state stays set and would make this loop spin.
            Err(_) if ready.is_write_closed() => {
                return Err(broke(ACT, to, "the socket reports an error and does not name it"));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(broke(ACT, to, error)),
        }
    }
    // From here on the kernel recovers from ICMP errors by itself, as it does for every ordinary
    // client; with the queue on it would hand them to us as if they were final.
    set_error_queue(&stream, to, ErrorQueue::Off).map_err(|error| broke(ACT, to, error))?;
    Ok(stream)
}

/// How far a connection attempt is.
enum Progress {
    Connected,
    /// The kernel gave up.
    Failed {
        error: io::Error,
        queued: Option<Queued>,
    },
    /// Somebody said no although the kernel would try again: an ICMP error that arrives while the
    /// SYN is still being sent, as a rule of the client's own node sends it, is only queued.
    Rejected(Outcome),
}

fn progress(stream: &TcpStream) -> io::Result<Progress> {
    if stream.peer_addr().is_ok() {
        return Ok(Progress::Connected);
    }
    let error = stream.take_error()?;
    let queued = next_queued(stream)?;
    if let Some(error) = error {
        return Ok(Progress::Failed { error, queued });
    }
    match queued.and_then(|queued| meaning_of_cause(queued.cause)) {
        Some(outcome) => Ok(Progress::Rejected(outcome)),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}
