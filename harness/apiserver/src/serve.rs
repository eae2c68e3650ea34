//! Listening: one listener per watcher, HTTP/1.1 and HTTP/2 without TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::http;
use crate::server::ApiServer;

/// Who listens on a socket, and what it takes to be heard.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) server: ApiServer,
    pub(crate) watcher: String,
    pub(crate) token: Option<String>,
}

/// A running listener; dropping it closes the socket and cuts every connection.
#[derive(Debug)]
pub struct ServeHandle {
    task: JoinHandle<()>,
    address: SocketAddr,
}

impl ServeHandle {
    /// The address the listener is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ServeHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ApiServer {
    /// Serves on a bound listener until the handle is dropped. Blocks nothing: the work is done
    /// by the tokio runtime of the caller.
    ///
    /// `watcher` names who asks through this listener: lies are told by it and the log has it.
    /// With a `token`, every request except for health and version must bear it, or have it as
    /// the password of basic authentication.
    ///
    /// # Errors
    /// The listener cannot be made asynchronous, or there is no tokio runtime to run on.
    pub fn serve(
        &self,
        listener: std::net::TcpListener,
        watcher: &str,
        token: Option<String>,
    ) -> io::Result<ServeHandle> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let door = Door { server: self.clone(), watcher: watcher.to_owned(), token };
        let task = runtime.spawn(accept(listener, Arc::new(door)));
        Ok(ServeHandle { task, address })
    }
}

/// Pause after a failed accept: mostly the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

async fn accept(listener: TcpListener, door: Arc<Door>) {
    // Connections belong to this task, so that its end is theirs.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            let pause = std::future::pending::<()>();
            if tokio::time::timeout(ACCEPT_PAUSE, pause).await.is_err() {
                continue;
            }
            return;
        };
        // Events are small, and their delay is what gets measured.
        let _ = stream.set_nodelay(true);
        let door = door.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let door = door.clone();
                async move { Ok::<_, Infallible>(http::handle(&door, request).await) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            // A connection that breaks is the client's affair.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
