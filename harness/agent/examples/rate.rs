//! How many connections one agent makes in a second: `cargo run --release -p touchstone-agent
//! --example rate [SECONDS] [PROBES IN FLIGHT]`.
//!
//! The agent runs as a process of its own, as it does in a pod, and probes an identity server of
//! the same process over loopback; each probe is a connection, a question, its answer, a reset.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use touchstone_agent::Agent;
use touchstone_agent::protocol::digest;
use touchstone_spec::{
    Client, ClientKind, Flow, FrontendKind, Observation, Outcome, Protocol, ServerWish,
};

const WAIT: Duration = Duration::from_secs(3);
const TOKEN: &str = "rate";

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().map_or(Ok(5), |text| text.parse())?;
    let in_flight: usize = args.next().map_or(Ok(256), |text| text.parse())?;

    let program = std::env::current_exe()?.with_file_name("../touchstone-agent");
    let place = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free_port()?);
    let mut child = std::process::Command::new(&program)
        .args([place.to_string(), digest(TOKEN)])
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("{}: {error}; build it first", program.display()))?;
    let stream = loop {
        match TcpStream::connect(place).await {
            Ok(stream) => break stream,
            Err(error) if child.try_wait()?.is_some() => return Err(error.into()),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    stream.set_nodelay(true)?;
    let agent = Agent::greet(stream, "agent", TOKEN).await?;

    let (address, port) = (IpAddr::V4(Ipv4Addr::LOCALHOST), free_port()?);
    let place = "agent".to_owned();
    let wish = ServerWish { place: place.clone(), address, port, protocol: Protocol::Tcp };
    let servers = agent.serve(vec![wish]).await?;
    let flow = Flow {
        client: Client { kind: ClientKind::Pod, place, node: None, address },
        via: None,
        to: SocketAddr::new(address, port),
        protocol: Protocol::Tcp,
        frontend: FrontendKind::Direct,
        question: None,
        size: 0,
        source_port: None,
        http: None,
        text: "agent → itself".to_owned(),
    };

    let began = Instant::now();
    let limit = Duration::from_secs(seconds);
    let mut probes: FuturesUnordered<_> =
        (0..in_flight).map(|_| agent.probe(&flow, WAIT)).collect();
    let (mut reached, mut other) = (0_u64, 0_u64);
    while let Some(saw) = probes.next().await {
        match saw {
            Observation::Saw(Outcome::Reached { resent: 0, .. }) => reached += 1,
            Observation::Saw(_) | Observation::ProbeBroke(_) => other += 1,
        }
        if began.elapsed() < limit {
            probes.push(agent.probe(&flow, WAIT));
        }
    }
    let took = began.elapsed();
    #[expect(clippy::print_stdout, reason = "an example that prints figures")]
    {
        println!(
            "{:.0} connections/s: {reached} reached, {other} otherwise, {in_flight} in flight, \
             {:.1} s",
            reached as f64 / took.as_secs_f64(),
            took.as_secs_f64()
        );
    }
    drop(probes);
    drop(servers);
    drop(agent);
    child.kill()?;
    child.wait()?;
    Ok(())
}
