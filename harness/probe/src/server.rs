//! Servers that answer with their identity, the client they saw and the address they were
//! reached on.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::line::{Answer, DATAGRAM_LIMIT, IDENTITY_LIMIT, Request, is_identity, parse_request};
use crate::stream::{Lines, Next};

/// How long a TCP connection may go without a complete request; before twice that has passed the
/// server closes it.
pub const IDLE_LIMIT: Duration = Duration::from_secs(600);

/// How long a server rests after an error that is not a client's (no descriptors left, for
/// example), unless one of its connections ends before.
const REST_LIMIT: Duration = Duration::from_millis(100);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The identity does not fit into an answer.
    #[error("identity {0:?} is not one word of 1 to {IDENTITY_LIMIT} printable ASCII characters")]
    Identity(String),
    /// A UDP server must know its address, for the answer has to leave from it.
    #[error("udp server {identity} is bound to {address}, not to a concrete address")]
    Wildcard {
        /// Of the server.
        identity: String,
        /// What its socket is bound to.
        address: SocketAddr,
    },
    /// There is no tokio runtime to serve on.
    #[error("no runtime to serve {identity} on")]
    Runtime {
        /// Of the server.
        identity: String,
        /// What tokio says.
        source: tokio::runtime::TryCurrentError,
    },
    /// The socket could not be bound or used.
    #[error("failed to {act} the socket of server {identity}")]
    Socket {
        /// What was tried.
        act: &'static str,
        /// Of the server.
        identity: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Bytes of datagrams that may wait while a server gets no processor; a kernel whose limit is lower
/// gives what it allows, which is twice its default.
const ROOM: usize = 4 << 20;

/// A running identity-echo server.
///
/// Dropping it closes its socket at once: from then on the kernel refuses new clients, the address
/// can be bound again, and no request is answered that is read later. Its accepted connections end
/// with it, as soon as the runtime runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    desk: Arc<Desk>,
    socket: Socket,
    task: AbortHandle,
}

/// What a server answers with, how often it did, and whether it does no more.
#[derive(Debug)]
struct Desk {
    identity: String,
    served: AtomicU64,
    closed: AtomicBool,
}

#[derive(Debug)]
enum Socket {
    Tcp(Shared<TcpListener>),
    Udp(Shared<UdpSocket>),
}

impl Server {
    /// Serves on a listening TCP socket, or one for SCTP of the one-to-one style.
    ///
    /// The socket may be bound to a wildcard address: every connection tells its own.
    /// Whoever sends an HTTP GET, such as a person's curl, gets a page that says who answers.
    /// A client that sends anything but these and requests, more than a line may have, or nothing within
    /// [`IDLE_LIMIT`] is cut off.
    ///
    /// Errors: an unfit identity, no runtime, or a socket that cannot be used.
    pub fn tcp(listener: std::net::TcpListener, identity: String) -> Result<Server, ServerError> {
        let (runtime, desk) = begin(identity)?;
        listener.set_nonblocking(true).map_err(|source| desk_error("prepare", &desk, source))?;
        let listener =
            TcpListener::from_std(listener).map_err(|source| desk_error("watch", &desk, source))?;
        let address = listener.local_addr().map_err(|source| desk_error("name", &desk, source))?;
        let listener = Shared::new(listener);
        let task =
            runtime.spawn(accept_all(listener.clone(), address, Arc::clone(&desk))).abort_handle();
        Ok(Server { address, desk, socket: Socket::Tcp(listener), task })
    }

    /// Serves on a UDP socket bound to a concrete address.
    ///
    /// A datagram that is no request is ignored.
    ///
    /// Errors: a wildcard address, an unfit identity, no runtime, or a socket that cannot be used.
    pub fn udp(socket: std::net::UdpSocket, identity: String) -> Result<Server, ServerError> {
        let (runtime, desk) = begin(identity)?;
        socket.set_nonblocking(true).map_err(|source| desk_error("prepare", &desk, source))?;
        SockRef::from(&socket)
            .set_recv_buffer_size(ROOM)
            .map_err(|source| desk_error("prepare", &desk, source))?;
        let socket =
            UdpSocket::from_std(socket).map_err(|source| desk_error("watch", &desk, source))?;
        let address = socket.local_addr().map_err(|source| desk_error("name", &desk, source))?;
        if address.ip().is_unspecified() {
            return Err(ServerError::Wildcard { identity: desk.identity.clone(), address });
        }
        let socket = Shared::new(socket);
        let work = answer_all(socket.clone(), address, Arc::clone(&desk));
        let task = runtime.spawn(work).abort_handle();
        Ok(Server { address, desk, socket: Socket::Udp(socket), task })
    }

    /// Binds `address` over TCP in the process's own network namespace and serves there.
    ///
    /// Errors: as [`Server::tcp`], and an address that cannot be bound.
    pub fn bind_tcp(address: SocketAddr, identity: String) -> Result<Server, ServerError> {
        match std::net::TcpListener::bind(address) {
            Ok(listener) => Server::tcp(listener, identity),
            Err(source) => Err(ServerError::Socket { act: "bind", identity, source }),
        }
    }

    /// Binds `address` over UDP in the process's own network namespace and serves there.
    ///
    /// Errors: as [`Server::udp`], and an address that cannot be bound.
    pub fn bind_udp(address: SocketAddr, identity: String) -> Result<Server, ServerError> {
        match std::net::UdpSocket::bind(address) {
            Ok(socket) => Server::udp(socket, identity),
            Err(source) => Err(ServerError::Socket { act: "bind", identity, source }),
        }
    }

    /// The address the socket is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The identity it answers with.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.desk.identity
    }

    /// Requests answered so far. A client that has its answer finds itself counted.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.desk.served.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.desk.closed.store(true, Ordering::Release);
        match &self.socket {
            Socket::Tcp(listener) => listener.close(),
            Socket::Udp(socket) => socket.close(),
        }
        self.task.abort();
    }
}

fn begin(identity: String) -> Result<(Handle, Arc<Desk>), ServerError> {
    if !is_identity(&identity) {
        return Err(ServerError::Identity(identity));
    }
    match Handle::try_current() {
        Ok(runtime) => {
            let (served, closed) = (AtomicU64::new(0), AtomicBool::new(false));
            Ok((runtime, Arc::new(Desk { identity, served, closed })))
        }
        Err(source) => Err(ServerError::Runtime { identity, source }),
    }
}

fn desk_error(act: &'static str, desk: &Desk, source: io::Error) -> ServerError {
    ServerError::Socket { act, identity: desk.identity.clone(), source }
}

impl Desk {
    /// What a person sees who asks by `curl`. The status is none that a health check has, so that
    /// nobody takes one for the other.
    fn page(&self, peer: SocketAddr, local: SocketAddr) -> String {
        let body = format!("{} at {local} sees {peer}\n", self.identity);
        format!(
            "HTTP/1.1 421 Misdirected Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    /// The answer to a request from `peer` that arrived on `local`, with the bytes it came with.
    fn answer(
        &self,
        request: Request,
        payload: &[u8],
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Vec<u8> {
        self.served.fetch_add(1, Ordering::Relaxed);
        let answer = Answer { nonce: request.nonce, peer: plain(peer), local: plain(local) };
        let mut bytes = answer.line(&self.identity).into_bytes();
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The answer to a datagram; none if it is no request.
    fn answer_datagram(
        &self,
        datagram: &[u8],
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Option<Vec<u8>> {
        let end = datagram.iter().position(|byte| *byte == b'\n')?;
        let (line, payload) = (datagram.get(..end)?, datagram.get(end + 1..)?);
        let request = parse_request(line)?;
        let whole = usize::try_from(request.size).ok() == Some(payload.len());
        whole.then(|| self.answer(request, payload, peer, local))
    }
}

/// An address as its own family writes it: a socket of both families shows IPv4 clients as
/// IPv4-mapped IPv6 addresses.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A socket that its server can close at any moment, whatever its task waits for.
struct Shared<T>(Arc<Mutex<Option<T>>>);

impl<T> Shared<T> {
    fn new(socket: T) -> Shared<T> {
        Shared(Arc::new(Mutex::new(Some(socket))))
    }

    fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Polls the socket; ready with none once it is closed.
    fn poll<R>(&self, poll: impl FnOnce(&T) -> Poll<R>) -> Poll<Option<R>> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(socket) => poll(socket).map(Some),
            None => Poll::Ready(None),
        }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

async fn accept_all(listener: Shared<TcpListener>, bound: SocketAddr, desk: Arc<Desk>) {
    // Ends with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let accepted =
            std::future::poll_fn(|cx| listener.poll(|listener| listener.poll_accept(cx))).await;
        match accepted {
            None => return,
            Some(Ok((stream, peer))) => {
                connections.spawn(converse(stream, peer, bound, Arc::clone(&desk)));
            }
            // The client gave up before it was accepted.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(Err(_)) => rest(&mut connections).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Waits until a connection ends, for at most [`REST_LIMIT`].
async fn rest(connections: &mut JoinSet<()>) {
    let ended = async {
        if connections.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    };
    // Both results mean the same: try again.
    let _ = timeout(REST_LIMIT, ended).await;
}

/// Answers one connection until it ends, breaks a rule or says nothing any more; dropping it closes
/// it. Of a listener that is bound to a concrete address every connection has that address.
async fn converse(stream: TcpStream, peer: SocketAddr, bound: SocketAddr, desk: Arc<Desk>) {
    let local = match bound.ip().is_unspecified() {
        false => Ok(bound),
        true => stream.local_addr(),
    };
    let Ok(local) = local else { return };
    let mut lines = Lines::new(stream);
    let served = AtomicBool::new(false);
    let serve = async {
        while serve_one(&mut lines, peer, local, &desk).await.is_some() {
            served.store(true, Ordering::Relaxed);
        }
    };
    // One timer for a connection and none for a request: most have one request, and where a look at
    // the clock is a call to the kernel it costs as much as the answer.
    let mut serve = pin!(serve);
    while timeout(IDLE_LIMIT, &mut serve).await.is_err() && served.swap(false, Ordering::Relaxed) {}
}

/// Reads and answers one request; none if the connection is to be closed.
async fn serve_one(
    lines: &mut Lines,
    peer: SocketAddr,
    local: SocketAddr,
    desk: &Desk,
) -> Option<()> {
    let next = lines.next().await.ok()?;
    if desk.closed.load(Ordering::Acquire) {
        return None;
    }
    match next {
        Next::Line(line) if line.starts_with(b"GET ") => {
            // The client's last header has to be read, or closing would cut the answer off.
            last_header(lines).await?;
            lines.send(desk.page(peer, local).as_bytes()).await.ok()?;
            None
        }
        Next::Line(line) => {
            let request = parse_request(&line)?;
            let payload = lines.take(usize::try_from(request.size).ok()?).await.ok()??;
            lines.send(&desk.answer(request, &payload, peer, local)).await.ok()
        }
        Next::TooLong(_) | Next::Ended(_) => None,
    }
}

/// Reads to the end of the headers of an HTTP request.
async fn last_header(lines: &mut Lines) -> Option<()> {
    loop {
        match lines.next().await.ok()? {
            Next::Line(line) if line.trim_ascii().is_empty() => return Some(()),
            Next::Line(_) => {}
            Next::TooLong(_) | Next::Ended(_) => return None,
        }
    }
}

async fn answer_all(socket: Shared<UdpSocket>, address: SocketAddr, desk: Arc<Desk>) {
    let mut room = vec![0u8; DATAGRAM_LIMIT];
    loop {
        let received =
            std::future::poll_fn(|cx| socket.poll(|socket| poll_datagram(socket, cx, &mut room)))
                .await;
        let (length, peer) = match received {
            None => return,
            Some(Ok(received)) => received,
            Some(Err(_)) => {
                rest(&mut JoinSet::new()).await;
                continue;
            }
        };
        let datagram = room.get(..length).unwrap_or_default();
        let Some(answer) = desk.answer_datagram(datagram, peer, address) else {
            continue;
        };
        let sent =
            std::future::poll_fn(|cx| socket.poll(|socket| socket.poll_send_to(cx, &answer, peer)))
                .await;
        // An answer that cannot be sent is lost, as datagrams may be.
        if sent.is_none() {
            return;
        }
    }
}

fn poll_datagram(
    socket: &UdpSocket,
    cx: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<(usize, SocketAddr)>> {
    let mut buffer = ReadBuf::new(room);
    let peer = ready!(socket.poll_recv_from(cx, &mut buffer))?;
    Poll::Ready(Ok((buffer.filled().len(), peer)))
}
