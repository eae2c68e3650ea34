//! An agent on loopback: what it does for its run, and for nobody else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use touchstone_agent::protocol::{FRAME_LIMIT, Greeting, Hello, VERSION, digest, frame, read};
use touchstone_agent::{Agent, AgentError, Limits, serve};
use touchstone_spec::{
    Client, ClientKind, Flow, FrontendKind, Observation, Outcome, Protocol, ServerWish,
};

const TOKEN: &str = "the token of this run";
/// Long enough for a busy machine.
const WAIT: Duration = Duration::from_secs(5);
/// Time that an agent has to end, where it must.
const END: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

/// An agent on a free port.
async fn start(limits: Limits) -> Running {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(serve(listener, digest(TOKEN), limits));
    Running { address, task }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    async fn greet(&self) -> Agent {
        Agent::greet(self.connect().await, "a1", TOKEN).await.expect("a welcome")
    }
}

/// A free port of loopback, as far as anybody can tell.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn wish(port: u16, protocol: Protocol) -> ServerWish {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    ServerWish { place: "pod-1".to_owned(), address, port, protocol }
}

fn flow(port: u16, protocol: Protocol) -> Flow {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Flow {
        client: Client { kind: ClientKind::Pod, place: "pod-1".to_owned(), node: None, address },
        via: None,
        to: SocketAddr::new(address, port),
        protocol,
        frontend: FrontendKind::Direct,
        question: None,
        size: 0,
        source_port: None,
        http: None,
        text: "pod-1 → itself".to_owned(),
    }
}

fn endpoint(saw: &Observation) -> Option<SocketAddr> {
    match saw {
        Observation::Saw(Outcome::Reached { endpoint, .. }) => Some(*endpoint),
        Observation::Saw(_) | Observation::ProbeBroke(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_asked_and_closed() {
    let running = start(Limits::default()).await;
    let agent = running.greet().await;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let port = free_port();
        let flow = flow(port, protocol);
        let servers = agent.serve(vec![wish(port, protocol)]).await.expect("servers");
        let probes = (0..200).map(|_| agent.probe(&flow, WAIT));
        let mut answered = 0;
        for saw in join_all(probes).await {
            assert_eq!(endpoint(&saw), Some(flow.to), "{saw:?}");
            answered += 1;
        }
        assert_eq!(answered, 200);
        drop(servers);
        let saw = agent.probe(&flow, WAIT).await;
        assert!(matches!(saw, Observation::Saw(Outcome::Refused(_))), "{saw:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_are_kept() {
    let running = start(Limits::default()).await;
    let agent = running.greet().await;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let port = free_port();
        let flow = flow(port, protocol);
        let servers = agent.serve(vec![wish(port, protocol)]).await.expect("servers");
        let mut kept = agent.open(&flow, WAIT).await.expect("a flow");
        for _ in 0..3 {
            let saw = kept.ask(WAIT).await;
            assert_eq!(endpoint(&saw), Some(flow.to), "{saw:?}");
        }
        drop(servers);
        let saw = kept.ask(Duration::from_millis(300)).await;
        assert_eq!(endpoint(&saw), None, "{saw:?}");
        let refused = agent.open(&flow, WAIT).await;
        if protocol == Protocol::Tcp {
            let saw = refused.expect_err("nobody listens");
            assert!(matches!(saw, Observation::Saw(Outcome::Refused(_))), "{saw:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_and_nothing_listens() {
    let running = start(Limits::default()).await;
    let agent = running.greet().await;
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address.port())).expect("an address");
    let free = free_port();
    let wishes = vec![wish(free, Protocol::Tcp), wish(taken.1, Protocol::Tcp)];
    let why = agent.serve(wishes).await.expect_err("the port is taken");
    assert!(why.contains(&format!("127.0.0.1:{}", taken.1)), "{why}");
    let saw = agent.probe(&flow(free, Protocol::Tcp), WAIT).await;
    assert!(matches!(saw, Observation::Saw(Outcome::Refused(_))), "{saw:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_those_that_others_see() {
    let running = start(Limits::default()).await;
    let addresses = running.greet().await.look().await.expect("a place").addresses;
    assert!(addresses.iter().all(|(_, ip)| !ip.is_loopback()), "{addresses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_is_refused() {
    let running = start(Limits::default()).await;
    for token in ["", "the token of that run", &digest(TOKEN)] {
        let refused = Agent::greet(running.connect().await, "a1", token).await;
        let error = refused.expect_err("a refusal").to_string();
        assert!(error.contains("the agent a1 refused the connection: the token"), "{error}");
    }
    running.greet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_refused_with_the_remedy() {
    let running = start(Limits::default()).await;
    let mut stream = running.connect().await;
    let hello = Hello { version: VERSION + 1, token: TOKEN.to_owned() };
    stream.write_all(&frame(&hello).expect("a frame")).await.expect("sent");
    let greeting = read::<Greeting>(&mut stream, FRAME_LIMIT).await.expect("an answer");
    let Some(Greeting::Refused { why }) = greeting else { panic!("{greeting:?}") };
    assert!(why.contains("use the agent image of the same touchstone"), "{why}");
    ended(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_huge_frames_before_the_greeting() {
    let running = start(Limits::default()).await;
    let mut long = 5000_u32.to_be_bytes().to_vec();
    long.extend(vec![b'x'; 100]);
    let mut wrong = 7_u32.to_be_bytes().to_vec();
    wrong.extend(b"nothing");
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 64], vec![0; 64], long, wrong] {
        let mut stream = running.connect().await;
        stream.write_all(&bytes).await.expect("sent");
        // Whatever it says, it is no welcome, and then it is over.
        let mut heard = Vec::new();
        let _ = timeout(END, stream.read_to_end(&mut heard)).await.expect("an end");
        assert!(!String::from_utf8_lossy(&heard).contains("welcome"), "{bytes:?}");
    }
    running.greet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_huge_frames_after_the_greeting() {
    let running = start(Limits::default()).await;
    let huge = u32::try_from(FRAME_LIMIT + 1).expect("a length").to_be_bytes().to_vec();
    let mut wrong = 7_u32.to_be_bytes().to_vec();
    wrong.extend(b"nothing");
    for bytes in [huge, wrong] {
        let mut stream = running.connect().await;
        let hello = Hello { version: VERSION, token: TOKEN.to_owned() };
        stream.write_all(&frame(&hello).expect("a frame")).await.expect("sent");
        let greeting = read::<Greeting>(&mut stream, FRAME_LIMIT).await.expect("an answer");
        assert!(matches!(greeting, Some(Greeting::Welcome)), "{greeting:?}");
        stream.write_all(&bytes).await.expect("sent");
        ended(&mut stream).await;
    }
    running.greet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_opened_ends_with_it() {
    let running = start(Limits::default()).await;
    let port = free_port();
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let mut line = running.connect().await;
    let cut = tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut theirs, &mut line).await;
    });
    let first = Agent::greet(ours, "a1", TOKEN).await.expect("a welcome");
    let servers = first.serve(vec![wish(port, Protocol::Tcp)]).await.expect("servers");
    let second = running.greet().await;
    let flow = flow(port, Protocol::Tcp);
    assert!(endpoint(&second.probe(&flow, WAIT).await).is_some());
    drop(first);
    assert!(endpoint(&second.probe(&flow, WAIT).await).is_some(), "somebody holds the servers");
    // The connection ends without a word: the servers are never told to close.
    cut.abort();
    let closed = async { while endpoint(&second.probe(&flow, WAIT).await).is_some() {} };
    timeout(END, closed).await.expect("the servers end");
    drop(servers);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_breaks_probes_and_says_so() {
    let running = start(Limits::default()).await;
    let agent = running.greet().await;
    let port = free_port();
    let _servers = agent.serve(vec![wish(port, Protocol::Tcp)]).await.expect("servers");
    let mut kept = agent.open(&flow(port, Protocol::Tcp), WAIT).await.expect("a flow");
    let began = std::time::Instant::now();
    running.task.abort();
    // An abort only asks: what is still answered was under way.
    let broke = async {
        loop {
            let saw = kept.ask(WAIT).await;
            if endpoint(&saw).is_none() {
                break saw;
            }
        }
    };
    let saw = timeout(END, broke).await.expect("an end");
    assert!(matches!(&saw, Observation::ProbeBroke(why) if why.contains("a1")), "{saw:?}");
    let saw = agent.probe(&flow(port, Protocol::Tcp), WAIT).await;
    assert!(matches!(&saw, Observation::ProbeBroke(why) if why.contains("a1")), "{saw:?}");
    assert!(agent.gone().expect("it is gone").contains("a1"));
    assert!(agent.serve(vec![wish(free_port(), Protocol::Tcp)]).await.is_err());
    assert!(began.elapsed() < END, "nobody waits for the dead: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_ends_when_nobody_talks_to_it() {
    let short = Duration::from_millis(200);
    let limits = Limits { first: short, alone: short, hello: short, silence: short };
    let never = start(limits).await;
    timeout(END, never.task).await.expect("an end").expect("no panic").expect("no error");

    let limits = Limits { first: END, ..limits };
    let once = start(limits).await;
    let agent = once.greet().await;
    drop(agent);
    timeout(END, once.task).await.expect("an end").expect("no panic").expect("no error");

    // Whoever says nothing holds nothing.
    let silent = start(limits).await;
    let mut stream = silent.connect().await;
    let hello = Hello { version: VERSION, token: TOKEN.to_owned() };
    stream.write_all(&frame(&hello).expect("a frame")).await.expect("sent");
    timeout(END, silent.task).await.expect("an end").expect("no panic").expect("no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_agent_there() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    drop(tokio::spawn(async move {
        let _ = theirs.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        let _ = theirs.read_to_end(&mut Vec::new()).await;
    }));
    let error = Agent::greet(ours, "a1", TOKEN).await.expect_err("no agent");
    assert!(matches!(error, AgentError::Connection { .. }), "{error}");
    let (ours, theirs) = tokio::io::duplex(1024);
    drop(theirs);
    assert!(Agent::greet(ours, "a1", TOKEN).await.is_err());
}

/// The peer ends the connection.
async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(END, stream.read_to_end(&mut rest)).await.expect("an end");
}
