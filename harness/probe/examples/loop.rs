//! Asks servers on loopback over and over and prints how many questions per second that makes.

use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use touchstone_probe::{Server, UdpFlow, ask_tcp, ask_udp, connect_tcp, open_tcp, open_udp};
use touchstone_spec::{Observation, Outcome};

const WAIT: Duration = Duration::from_secs(5);
const QUESTIONS: usize = 20_000;

#[derive(Debug, Clone, Copy)]
enum Way {
    TcpEach,
    TcpKept,
    UdpEach,
    UdpKept,
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let tcp = Server::bind_tcp(any, "tcp".to_owned())?;
        let udp = Server::bind_udp(any, "udp".to_owned())?;
        for (way, to) in [
            (Way::TcpEach, tcp.address()),
            (Way::TcpKept, tcp.address()),
            (Way::UdpEach, udp.address()),
            (Way::UdpKept, udp.address()),
        ] {
            for clients in [1, 64] {
                measure(way, to, clients).await?;
            }
        }
        Ok(())
    })
}

async fn measure(way: Way, to: SocketAddr, clients: usize) -> Result<(), Box<dyn Error>> {
    let left = Arc::new(AtomicUsize::new(QUESTIONS));
    let begin = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let left = Arc::clone(&left);
        all.spawn(async move { ask_until_none_is_left(way, to, &left).await });
    }
    for seen in all.join_all().await {
        seen.map_err(|seen| format!("{way:?}: {seen:?}"))?;
    }
    let rate = QUESTIONS as f64 / begin.elapsed().as_secs_f64();
    writeln!(std::io::stdout(), "{way:?} with {clients:>2} clients: {rate:>7.0} per second")?;
    Ok(())
}

async fn ask_until_none_is_left(
    way: Way,
    to: SocketAddr,
    left: &AtomicUsize,
) -> Result<(), Observation> {
    let no_socket = |error: std::io::Error| Observation::ProbeBroke(error.to_string());
    let mut connection = match way {
        Way::TcpKept => Some(connect_tcp(open_tcp(to, None).map_err(no_socket)?, to, WAIT).await?),
        Way::TcpEach | Way::UdpEach | Way::UdpKept => None,
    };
    let mut flow = match way {
        Way::UdpKept => Some(UdpFlow::open(open_udp(to, None).map_err(no_socket)?, to)?),
        Way::TcpEach | Way::TcpKept | Way::UdpEach => None,
    };
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        let seen = if let Some(connection) = &mut connection {
            connection.ask(WAIT).await
        } else if let Some(flow) = &mut flow {
            flow.ask(WAIT).await
        } else if let Way::TcpEach = way {
            ask_tcp(open_tcp(to, None).map_err(no_socket)?, to, WAIT).await
        } else {
            ask_udp(open_udp(to, None).map_err(no_socket)?, to, WAIT).await
        };
        let Observation::Saw(Outcome::Reached { .. }) = seen else {
            return Err(seen);
        };
    }
    Ok(())
}
