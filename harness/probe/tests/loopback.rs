//! Clients and servers against each other, and against peers that misbehave, on loopback.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use touchstone_probe::{
    Connection, Server, ServerError, UdpFlow, ask_tcp, ask_udp, connect_tcp, echo_tcp, echo_udp,
    get_http, open_tcp, open_udp,
};
use touchstone_spec::{Asked, Look, Observation, Outcome, Refusal};

/// For answers that must come.
const WAIT: Duration = Duration::from_secs(20);
/// For answers that must not come.
const SHORT: Duration = Duration::from_millis(50);

fn any_v4() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn any_v6() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, 0))
}

async fn tcp(to: SocketAddr, wait: Duration) -> Observation {
    ask_tcp(open_tcp(to, Some(to.ip())).expect("a socket"), to, wait).await
}

async fn udp(to: SocketAddr, wait: Duration) -> Observation {
    ask_udp(open_udp(to, Some(to.ip())).expect("a socket"), to, wait).await
}

fn flow(to: SocketAddr) -> UdpFlow {
    UdpFlow::open(open_udp(to, None).expect("a socket"), to).expect("a flow")
}

fn reached(endpoint: SocketAddr) -> Observation {
    let source = endpoint.ip();
    Observation::Saw(Outcome::Reached { endpoint, source, resent: 0 })
}

fn text(seen: Observation) -> String {
    match seen {
        Observation::Saw(outcome) => outcome.to_string(),
        Observation::ProbeBroke(why) => why,
    }
}

/// A bound TCP socket that does not listen: connecting to it is refused, and nobody else can
/// take its port meanwhile.
fn deaf_tcp(address: SocketAddr) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.bind(&address.into()).expect("bind");
    let at = socket.local_addr().expect("address").as_socket().expect("an IP address");
    (socket, at)
}

/// A UDP socket that hears only itself: datagrams of others meet a closed port.
fn deaf_udp(address: SocketAddr) -> (std::net::UdpSocket, SocketAddr) {
    let socket = std::net::UdpSocket::bind(address).expect("bind");
    let at = socket.local_addr().expect("address");
    socket.connect(at).expect("connect to itself");
    (socket, at)
}

/// Accepts one connection, reads once and hands it to `then`.
fn peer<F, R>(listener: TcpListener, then: F) -> tokio::task::JoinHandle<()>
where
    F: FnOnce(TcpStream, String) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let mut request = vec![0; 1024];
        let length = stream.read(&mut request).await.expect("read");
        let request = String::from_utf8(request[..length].to_vec()).expect("text");
        then(stream, request).await;
    })
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(any_v4()).await.expect("bind");
    let to = listener.local_addr().expect("address");
    (listener, to)
}

/// The answer of an endpoint at `local` to a request line.
fn answer(request: &str, local: &str) -> String {
    format!("{} other 192.0.2.9:9 {local}\n", request.trim_end())
}

#[tokio::test]
async fn tcp_servers_name_themselves_and_their_client() {
    for any in [any_v4(), any_v6()] {
        let server = Server::bind_tcp(any, "web-1".to_owned()).expect("a server");
        assert_eq!(tcp(server.address(), WAIT).await, reached(server.address()));
        assert_eq!((server.identity(), server.served()), ("web-1", 1));
    }
}

#[tokio::test]
async fn udp_servers_name_themselves_and_their_client() {
    for any in [any_v4(), any_v6()] {
        let server = Server::bind_udp(any, "web-1".to_owned()).expect("a server");
        assert_eq!(udp(server.address(), WAIT).await, reached(server.address()));
        assert_eq!((server.identity(), server.served()), ("web-1", 1));
    }
}

#[tokio::test]
async fn a_wildcard_listener_tells_the_address_it_was_reached_on() {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let server = Server::bind_tcp(any, "web-1".to_owned()).expect("a server");
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let to = SocketAddr::new(ip, server.address().port());
        assert_eq!(tcp(to, WAIT).await, reached(to));
    }
}

#[tokio::test]
async fn servers_that_cannot_work_do_not_start() {
    let two_words = Server::bind_tcp(any_v4(), "web 1".to_owned());
    assert!(matches!(two_words, Err(ServerError::Identity(_))), "{two_words:?}");
    let wildcard = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let wildcard = Server::bind_udp(wildcard, "web-1".to_owned());
    assert!(matches!(wildcard, Err(ServerError::Wildcard { .. })), "{wildcard:?}");
}

#[tokio::test]
async fn a_connection_carries_many_questions() {
    let server = Server::bind_tcp(any_v4(), "web-1".to_owned()).expect("a server");
    let to = server.address();
    let fd = open_tcp(to, None).expect("a socket");
    let mut connection = connect_tcp(fd, to, WAIT).await.expect("a connection");
    for _ in 0..1000 {
        assert_eq!(connection.ask(WAIT).await, reached(to));
    }
    assert_eq!(server.served(), 1000);
}

#[tokio::test]
async fn a_flow_carries_many_questions() {
    let server = Server::bind_udp(any_v4(), "web-1".to_owned()).expect("a server");
    let mut flow = flow(server.address());
    for _ in 0..1000 {
        assert_eq!(flow.ask(WAIT).await, reached(server.address()));
    }
    assert_eq!(server.served(), 1000);
}

#[tokio::test]
async fn tcp_refused_by_reset() {
    for any in [any_v4(), any_v6()] {
        let (_deaf, to) = deaf_tcp(any);
        assert_eq!(tcp(to, WAIT).await, Observation::Saw(Outcome::Refused(Refusal::Reset)));
    }
}

#[tokio::test]
async fn udp_refused_by_icmp() {
    for (any, kind, code) in [(any_v4(), 3, 3), (any_v6(), 1, 4)] {
        let (_deaf, to) = deaf_udp(any);
        let refusal = Refusal::Icmp { kind, code, from: Some(to.ip()) };
        assert_eq!(udp(to, WAIT).await, Observation::Saw(Outcome::Refused(refusal)));
    }
}

/// A connection on which a server has answered once.
async fn kept_flow(to: SocketAddr) -> Connection {
    let fd = open_tcp(to, None).expect("a socket");
    let mut kept = connect_tcp(fd, to, WAIT).await.expect("a connection");
    assert_eq!(kept.ask(WAIT).await, reached(to));
    kept
}

#[tokio::test]
async fn a_stopped_server_refuses_at_once() {
    let server = Server::bind_tcp(any_v4(), "web-1".to_owned()).expect("a server");
    let to = server.address();
    let mut kept = kept_flow(to).await;
    drop(server);
    assert_eq!(tcp(to, WAIT).await, Observation::Saw(Outcome::Refused(Refusal::Reset)));
    assert_eq!(kept.ask(WAIT).await, Observation::Saw(Outcome::Reset));

    let server = Server::bind_udp(any_v4(), "web-1".to_owned()).expect("a server");
    let to = server.address();
    drop(server);
    drop(std::net::UdpSocket::bind(to).expect("the address is free again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_answers_no_connection_that_it_had() {
    for _ in 0..200 {
        let server = Server::bind_tcp(any_v4(), "web-1".to_owned()).expect("a server");
        let to = server.address();
        let mut kept = kept_flow(to).await;
        drop(server);
        // At once, before the runtime has had the time to end the connection.
        assert_eq!(kept.ask(WAIT).await, Observation::Saw(Outcome::Reset));
    }
}

#[tokio::test]
async fn silence_is_dropped() {
    let (_accepts_only, to) = listener().await;
    assert_eq!(tcp(to, SHORT).await, Observation::Saw(Outcome::Dropped));
    let silent = UdpSocket::bind(any_v4()).await.expect("bind");
    let to = silent.local_addr().expect("address");
    assert_eq!(udp(to, SHORT).await, Observation::Saw(Outcome::Dropped));
}

/// A listener whose queue of one is taken, so that the kernel drops every SYN.
async fn full_listener() -> (std::net::TcpListener, SocketAddr, TcpStream) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&any_v4().into()).expect("bind");
    socket.listen(0).expect("listen");
    let listener = std::net::TcpListener::from(socket);
    let to = listener.local_addr().expect("address");
    let first = TcpStream::connect(to).await.expect("the queue has room for one");
    (listener, to, first)
}

#[tokio::test]
async fn a_connection_that_is_never_accepted_is_dropped() {
    let (_listener, to, _first) = full_listener().await;
    let fd = open_tcp(to, None).expect("a socket");
    let seen = connect_tcp(fd, to, SHORT).await.map(|_| ());
    assert_eq!(seen, Err(Observation::Saw(Outcome::Dropped)));
}

#[tokio::test]
async fn retransmissions_are_counted() {
    let (listener, to, _first) = full_listener().await;
    let mut attempt = std::pin::pin!(tcp(to, WAIT));
    // The kernel sends a SYN again after one second, and again later.
    let early = timeout(Duration::from_millis(1500), &mut attempt).await;
    assert!(early.is_err(), "{early:?}");
    let _server = Server::tcp(listener, "web-1".to_owned()).expect("a server");
    let seen = attempt.await;
    assert!(
        matches!(seen, Observation::Saw(Outcome::Reached { resent: 1.., .. })),
        "{}",
        text(seen)
    );
}

#[tokio::test]
async fn a_reset_after_the_connection_was_accepted() {
    let (listener, to) = listener().await;
    peer(listener, |stream, _| async move {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    });
    assert_eq!(tcp(to, WAIT).await, Observation::Saw(Outcome::Reset));
}

#[tokio::test]
async fn an_orderly_end_without_an_answer_is_a_reset_too() {
    let (listener, to) = listener().await;
    peer(listener, |stream, _| async move { drop(stream) });
    assert_eq!(tcp(to, WAIT).await, Observation::Saw(Outcome::Reset));
}

#[tokio::test]
async fn foreign_answers_break_the_probe() {
    for (line, shown) in [
        ("SSH-2.0-x\n".to_owned(), "SSH-2.0-x"),
        ("half a line".to_owned(), "half a line"),
        (
            "touchstone/1 0000000000000000 a 192.0.2.9:9 192.0.2.1:1\n".to_owned(),
            "touchstone/1 0000000000000000 a 192.0.2.9:9 192.0.2.1:1",
        ),
        ("x".repeat(600), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"),
    ] {
        let (listener, to) = listener().await;
        peer(listener, |mut stream, _| async move {
            stream.write_all(line.as_bytes()).await.expect("write");
        });
        assert_eq!(
            text(tcp(to, WAIT).await),
            format!("{to} answered \"{shown}\": not a touchstone server")
        );
    }
}

#[tokio::test]
async fn foreign_datagrams_break_the_probe() {
    let other = UdpSocket::bind(any_v4()).await.expect("bind");
    let to = other.local_addr().expect("address");
    tokio::spawn(async move {
        let (_, peer) = other.recv_from(&mut [0; 64]).await.expect("receive");
        other.send_to(b"\x00dns", peer).await.expect("send");
    });
    assert_eq!(
        text(udp(to, WAIT).await),
        format!("{to} answered \"\\x00dns\": not a touchstone server")
    );
}

#[tokio::test]
async fn a_late_answer_on_a_connection_is_not_the_next_one() {
    let (listener, to) = listener().await;
    peer(listener, |mut stream, first| async move {
        let mut second = String::new();
        while !second.ends_with('\n') {
            second.push(char::from(stream.read_u8().await.expect("read")));
        }
        let both = answer(&first, "192.0.2.1:1") + &answer(&second, "192.0.2.2:2");
        stream.write_all(both.as_bytes()).await.expect("write");
        // Stays open until the client leaves.
        let _ = stream.read_u8().await;
    });
    let fd = open_tcp(to, None).expect("a socket");
    let mut connection = connect_tcp(fd, to, WAIT).await.expect("a connection");
    assert_eq!(connection.ask(SHORT).await, Observation::Saw(Outcome::Dropped));
    assert_eq!(text(connection.ask(WAIT).await), "reached 192.0.2.2:2 as 192.0.2.9");
}

#[tokio::test]
async fn a_late_datagram_is_not_the_next_answer() {
    let other = UdpSocket::bind(any_v4()).await.expect("bind");
    let to = other.local_addr().expect("address");
    tokio::spawn(async move {
        let mut requests = Vec::new();
        let mut room = [0; 64];
        for _ in 0..2 {
            let (length, peer) = other.recv_from(&mut room).await.expect("receive");
            requests.push((String::from_utf8(room[..length].to_vec()).expect("text"), peer));
        }
        for ((request, peer), local) in requests.iter().zip(["192.0.2.1:1", "192.0.2.2:2"]) {
            other.send_to(answer(request, local).as_bytes(), peer).await.expect("send");
        }
    });
    let mut flow = flow(to);
    assert_eq!(flow.ask(SHORT).await, Observation::Saw(Outcome::Dropped));
    assert_eq!(text(flow.ask(WAIT).await), "reached 192.0.2.2:2 as 192.0.2.9");
}

#[tokio::test]
async fn a_refused_question_does_not_spoil_the_next_one() {
    let (deaf, to) = deaf_udp(any_v4());
    let mut flow = flow(to);
    let refusal = Refusal::Icmp { kind: 3, code: 3, from: Some(to.ip()) };
    for _ in 0..3 {
        assert_eq!(flow.ask(WAIT).await, Observation::Saw(Outcome::Refused(refusal.clone())));
    }
    drop(deaf);
    let _server = Server::bind_udp(to, "web-1".to_owned()).expect("a server");
    assert_eq!(flow.ask(WAIT).await, reached(to));
}

#[tokio::test]
async fn a_socket_of_the_wrong_family_is_the_probes_own_trouble() {
    let fd = open_tcp(any_v6(), None).expect("a socket");
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let seen = ask_tcp(fd, to, WAIT).await;
    assert!(matches!(seen, Observation::ProbeBroke(_)), "{seen:?}");
}

#[tokio::test]
async fn a_request_without_end_is_cut_off() {
    let server = Server::bind_tcp(any_v4(), "web-1".to_owned()).expect("a server");
    let mut client = TcpStream::connect(server.address()).await.expect("connect");
    client.write_all(&[b'x'; 2000]).await.expect("write");
    // Ends by reset, since the server leaves bytes unread, or orderly.
    let mut answer = Vec::new();
    let _ = timeout(WAIT, client.read_to_end(&mut answer)).await.expect("the server closes");
    assert_eq!((answer.len(), server.served()), (0, 0));
}

#[tokio::test]
async fn a_wrong_request_is_cut_off() {
    let server = Server::bind_tcp(any_v4(), "web-1".to_owned()).expect("a server");
    let mut client = TcpStream::connect(server.address()).await.expect("connect");
    client.write_all(b"HELLO\r\n").await.expect("write");
    let mut answer = Vec::new();
    let end = timeout(WAIT, client.read_to_end(&mut answer)).await.expect("the server closes");
    assert_eq!((end.expect("an orderly end"), server.served()), (0, 0));
}

/// The clock of this test runs as fast as there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn silence_is_cut_off() {
    let server = Server::bind_tcp(any_v4(), "web-1".to_owned()).expect("a server");
    let mut client = TcpStream::connect(server.address()).await.expect("connect");
    let mut answer = Vec::new();
    let limit = touchstone_probe::IDLE_LIMIT * 2;
    let end = timeout(limit, client.read_to_end(&mut answer)).await.expect("the server closes");
    assert_eq!(end.expect("an orderly end"), 0);
}

#[tokio::test]
async fn a_datagram_that_is_no_request_is_ignored() {
    let server = Server::bind_udp(any_v4(), "web-1".to_owned()).expect("a server");
    let client = UdpSocket::bind(any_v4()).await.expect("bind");
    client.send_to(&[b'x'; 2000], server.address()).await.expect("send");
    client.send_to(b"", server.address()).await.expect("send");
    client.send_to(b"touchstone/1 00000000000000ff", server.address()).await.expect("send");
    assert_eq!(udp(server.address(), WAIT).await, reached(server.address()));
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn many_bytes_come_back() {
    let server = Server::bind_tcp(any_v4(), "web-1".to_owned()).expect("a server");
    let fd = open_tcp(server.address(), None).expect("a socket");
    let seen = echo_tcp(fd, server.address(), 1_000_000, WAIT).await;
    assert_eq!(seen, reached(server.address()));
    let server = Server::bind_udp(any_v6(), "web-1".to_owned()).expect("a server");
    let fd = open_udp(server.address(), Some(server.address().ip())).expect("a socket");
    let seen = echo_udp(fd, server.address(), 20_000, WAIT).await;
    assert_eq!(seen, reached(server.address()));
}

fn path(path: &str) -> Asked {
    Asked { path: path.to_owned(), looks: Vec::new() }
}

#[tokio::test]
async fn parts_of_an_answer() {
    let (listener, to) = listener().await;
    peer(listener, move |mut stream, _| async move {
        let answer = "HTTP/1.1 200 OK\r\nX-Weight: 2\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        stream.write_all(answer.as_bytes()).await.expect("write");
    });
    let looks = vec![
        Look::Header("x-weight".to_owned()),
        Look::Json("a".to_owned()),
        Look::Json("b".to_owned()),
    ];
    let fd = open_tcp(to, None).expect("a socket");
    let seen = get_http(fd, to, &Asked { path: "/".to_owned(), looks }, WAIT).await;
    assert_eq!(text(seen), "http 200: header x-weight is \"2\", json a is \"1\"");
}

#[tokio::test]
async fn health_checks() {
    for (status, body, want) in [
        ("200 OK", r#"{"localEndpoints":2}"#, "http 200 (2 local endpoints)"),
        ("503 Service Unavailable", r#"{"localEndpoints":0}"#, "http 503 (0 local endpoints)"),
        ("404 Not Found", "no", "http 404"),
    ] {
        let (listener, to) = listener().await;
        peer(listener, move |mut stream, request| async move {
            assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request:?}");
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all((head + body).as_bytes()).await.expect("write");
            // Stays open: the client must not wait for the end.
            let _ = stream.read_u8().await;
        });
        let fd = open_tcp(to, None).expect("a socket");
        assert_eq!(text(get_http(fd, to, &path("/healthz"), WAIT).await), want);
    }
}

#[tokio::test]
async fn health_checks_that_go_wrong() {
    let (_deaf, to) = deaf_tcp(any_v4());
    let fd = open_tcp(to, None).expect("a socket");
    assert_eq!(text(get_http(fd, to, &path("/"), WAIT).await), "refused (reset)");

    let fd = open_tcp(to, None).expect("a socket");
    assert_eq!(
        text(get_http(fd, to, &path("/a b"), WAIT).await),
        format!("failed to ask {to}: \"/a b\" is not a path")
    );

    let server = Server::bind_tcp(any_v4(), "web-1".to_owned()).expect("a server");
    let fd = open_tcp(server.address(), None).expect("a socket");
    // Not the 200 of a health check: this is no page of a proxy.
    assert_eq!(text(get_http(fd, server.address(), &path("/"), WAIT).await), "http 421");

    let (listener, to) = listener().await;
    peer(listener, |mut stream, _| async move {
        stream.write_all(b"SSH-2.0").await.expect("write");
    });
    let fd = open_tcp(to, None).expect("a socket");
    assert_eq!(
        text(get_http(fd, to, &path("/"), WAIT).await),
        format!("{to} answered \"SSH-2.0\": not an HTTP server")
    );
}

#[tokio::test]
async fn a_person_s_curl_is_told_who_answers() {
    let server = Server::bind_tcp(any_v4(), "web/a".to_owned()).expect("serves");
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    let request = b"GET / HTTP/1.1\r\nHost: web\r\nAccept: */*\r\n\r\n";
    stream.write_all(request).await.expect("sends");
    let mut page = String::new();
    let read = timeout(WAIT, stream.read_to_string(&mut page)).await;
    read.expect("in time").expect("reads");
    let own = stream.local_addr().expect("an address");
    let body = format!("web/a at {} sees {own}\n", server.address());
    assert!(page.starts_with("HTTP/1.1 421 Misdirected Request\r\n"), "{page}");
    assert!(
        page.ends_with(&format!(
            "content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ))
    );
    // Headers that never end are no request.
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("sends");
    stream.shutdown().await.expect("ends");
    let mut page = String::new();
    let read = timeout(WAIT, stream.read_to_string(&mut page)).await;
    read.expect("in time").expect("reads");
    assert_eq!(page, "");
}
