//! Servers of endpoints, in the places where they stand.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use touchstone_netlab::{Namespace, sockets};
use touchstone_probe::Server;
use touchstone_spec::{Protocol, ServerWish};

use super::places::Places;
use crate::ClusterError;

/// How long an address may stay in use after its last server is gone. A program that is just being
/// started has a copy of every socket until it executes.
const FREE_LIMIT: Duration = Duration::from_secs(3);
/// Between two looks whether it is free.
const FREE_INTERVAL: Duration = Duration::from_millis(5);

/// Makes identity servers listen in their places.
pub(super) async fn listen(
    places: &Places,
    wishes: &[ServerWish],
) -> Result<Vec<Server>, ClusterError> {
    let mut servers = Vec::new();
    for wish in wishes {
        let failed = |why: String| {
            ClusterError::new(
                format!(
                    "failed to listen on {} {} in {}",
                    wish.protocol,
                    SocketAddr::new(wish.address, wish.port),
                    wish.place
                ),
                why,
            )
        };
        let address = SocketAddr::new(wish.address, wish.port);
        let held = places.hold(&wish.place).ok_or_else(|| failed("no such place".into()))?;
        let namespace = held.namespace().ok_or_else(|| failed("it is gone".into()))?;
        let server = match wish.protocol {
            Protocol::Tcp => {
                let listener = bound(namespace, move || sockets::tcp_listener(address)).await;
                Server::tcp(listener.map_err(failed)?, wish.place.clone())
            }
            Protocol::Udp => {
                let socket = bound(namespace, move || sockets::udp_socket(address)).await;
                Server::udp(socket.map_err(failed)?, wish.place.clone())
            }
            Protocol::Sctp => {
                let listener = bound(namespace, move || sockets::sctp_listener(address)).await;
                Server::tcp(listener.map_err(failed)?, wish.place.clone())
            }
        };
        servers.push(server.map_err(|error| failed(error.to_string()))?);
    }
    Ok(servers)
}

/// Opens a socket in a namespace, as soon as its address is free.
async fn bound<T: Send + 'static>(
    namespace: &Namespace,
    open: impl Fn() -> io::Result<T> + Copy + Send + 'static,
) -> Result<T, String> {
    let began = Instant::now();
    let mut tick = tokio::time::interval(FREE_INTERVAL);
    loop {
        tick.tick().await;
        match namespace.run_async(open).await.map_err(|error| error.to_string())? {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < FREE_LIMIT => {}
            opened => return opened.map_err(|error| error.to_string()),
        }
    }
}
