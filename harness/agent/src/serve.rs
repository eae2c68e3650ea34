//! The agent's side: who may give orders, and how they are carried out.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use touchstone_probe::{KeptFlow, Server, attempt};

use crate::late::Watch;
use crate::place::place;
use crate::protocol::{
    Done, FRAME_LIMIT, Greeting, HELLO_LIMIT, Hello, Order, Report, Task, VERSION, digest, frame,
    read,
};
use crate::sockets::{Local, listen};

/// Orders of one connection that are carried out at a time; more of them are not read yet.
const IN_FLIGHT: usize = 4096;
/// Connections that are listened to at a time.
const CONNECTIONS: usize = 16;
/// Reports that are sent with one write.
const BATCH: usize = 256;

/// How long an agent waits for others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the first connection that shows the token.
    pub first: Duration,
    /// For another one when the last has ended.
    pub alone: Duration,
    /// For the first message of a connection.
    pub hello: Duration,
    /// For the next message of a connection.
    pub silence: Duration,
}

impl Default for Limits {
    /// Ten minutes until the first connection, as an image may be slow to reach every node; half a
    /// minute alone; ten seconds for a hello; a minute of silence.
    fn default() -> Self {
        Limits {
            first: Duration::from_secs(600),
            alone: Duration::from_secs(30),
            hello: Duration::from_secs(10),
            silence: Duration::from_secs(60),
        }
    }
}

/// Obeys whoever shows the token with that digest, until nobody has been there for as long as the
/// limits say.
///
/// # Errors
/// When connections can no longer be accepted.
pub async fn serve(listener: TcpListener, digest: String, limits: Limits) -> io::Result<()> {
    let digest = Arc::new(digest);
    let watch = Watch::begin();
    let mut connections = JoinSet::new();
    let mut obeyed = false;
    loop {
        let patience = if obeyed { limits.alone } else { limits.first };
        let full = connections.len() >= CONNECTIONS;
        tokio::select! {
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&digest), watch.clone(), limits));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            },
            Some(ended) = connections.join_next() => obeyed |= ended.unwrap_or(false),
            () = elapsed(patience), if connections.is_empty() => return Ok(()),
        }
    }
}

/// Ends after that time.
async fn elapsed(limit: Duration) {
    // Nothing ever comes: running out of time is the result.
    let _ = timeout(limit, std::future::pending::<()>()).await;
}

/// One connection from its first message to its end; whether it showed the token.
async fn converse(
    mut stream: TcpStream,
    digest: Arc<String>,
    watch: Watch,
    limits: Limits,
) -> bool {
    // Small messages must not wait for each other; without it they are only slower.
    let _ = stream.set_nodelay(true);
    let hello = timeout(limits.hello, read::<Hello>(&mut stream, HELLO_LIMIT)).await;
    let refusal = match hello {
        Ok(Ok(Some(hello))) => refusal(&hello, &digest),
        Ok(Ok(None)) | Err(_) => return false,
        Ok(Err(error)) => Some(error.to_string()),
    };
    let greeting = match refusal {
        Some(why) => Greeting::Refused { why },
        None => Greeting::Welcome,
    };
    let welcome = matches!(greeting, Greeting::Welcome);
    let Ok(bytes) = frame(&greeting) else { return false };
    if stream.write_all(&bytes).await.is_err() || !welcome {
        // Whoever was refused hears why before the connection ends.
        let _ = stream.shutdown().await;
        return false;
    }
    let (from, to) = stream.into_split();
    let (report, reports) = mpsc::unbounded_channel();
    // In one task, so that the connection ends as a whole.
    tokio::select! {
        () = obey(from, &report, limits.silence) => {}
        () = write(to, reports, &watch) => {}
    }
    true
}

fn refusal(hello: &Hello, known: &str) -> Option<String> {
    if hello.version != VERSION {
        return Some(format!(
            "this agent speaks version {VERSION} of the protocol and was greeted in version {}; \
             use the agent image of the same touchstone",
            hello.version
        ));
    }
    // Digests are compared, so how long it takes tells nothing about the token.
    (digest(&hello.token) != known).then(|| "the token is not that of this agent's run".to_owned())
}

/// What a connection has opened; it ends with it.
#[derive(Default)]
struct Opened {
    flows: Mutex<BTreeMap<u64, Arc<tokio::sync::Mutex<KeptFlow>>>>,
    servers: Mutex<BTreeMap<u64, Vec<Server>>>,
    sockets: Local,
}

async fn obey(
    mut from: impl AsyncRead + Unpin,
    report: &mpsc::UnboundedSender<(u64, Done)>,
    silence: Duration,
) {
    let opened = Arc::new(Opened::default());
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = JoinSet::new();
    // Garbage, an end and silence mean the same: nothing more can be obeyed.
    while let Ok(Ok(Some(Order { id, task }))) =
        timeout(silence, read::<Order>(&mut from, FRAME_LIMIT)).await
    {
        // In order, and at once: what follows may rely on it.
        if let Some(done) = opened.at_once(id, &task) {
            // The writer is gone only when the connection is, which the next read will tell.
            let _ = report.send((id, done));
            continue;
        }
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (opened, report) = (Arc::clone(&opened), report.clone());
        tasks.spawn(async move {
            let done = opened.in_time(id, task).await;
            let _ = report.send((id, done));
            drop(permit);
        });
        while tasks.try_join_next().is_some() {}
    }
}

impl Opened {
    /// Carries out what takes no time; none if it takes some.
    fn at_once(&self, id: u64, task: &Task) -> Option<Done> {
        match task {
            Task::Ping => Some(Done::Well),
            Task::Look => Some(Done::Place(place())),
            Task::Close { opened } => {
                lock(&self.flows).remove(opened);
                lock(&self.servers).remove(opened);
                Some(Done::Well)
            }
            Task::Serve(wishes) => {
                let servers: Result<Vec<Server>, String> = wishes.iter().map(listen).collect();
                Some(match servers {
                    Ok(servers) => {
                        lock(&self.servers).insert(id, servers);
                        Done::Well
                    }
                    Err(why) => Done::Failed(why),
                })
            }
            Task::Probe { .. } | Task::Open { .. } | Task::Ask { .. } => None,
        }
    }

    async fn in_time(&self, id: u64, task: Task) -> Done {
        match task {
            Task::Probe { flow, wait } => {
                let wait = Duration::from_millis(wait);
                Done::Saw(attempt(&self.sockets, &flow, wait).await.saw)
            }
            Task::Open { flow, wait } => {
                let wait = Duration::from_millis(wait);
                match KeptFlow::open(&self.sockets, &flow, wait).await {
                    Ok(kept) => {
                        let kept = Arc::new(tokio::sync::Mutex::new(kept));
                        lock(&self.flows).insert(id, kept);
                        Done::Well
                    }
                    Err(saw) => Done::Saw(saw),
                }
            }
            Task::Ask { kept, wait } => {
                let found = lock(&self.flows).get(&kept).cloned();
                match found {
                    Some(flow) => {
                        let wait = Duration::from_millis(wait);
                        Done::Saw(flow.lock().await.ask(wait).await)
                    }
                    None => Done::Failed(format!("no flow is kept under {kept}")),
                }
            }
            Task::Ping | Task::Look | Task::Close { .. } | Task::Serve(_) => {
                Done::Failed("it takes no time and was not done at once".to_owned())
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends reports, as many with one write as there are.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut reports: mpsc::UnboundedReceiver<(u64, Done)>,
    watch: &Watch,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while reports.recv_many(&mut batch, BATCH).await > 0 {
        let mut bytes = Vec::new();
        for (id, done) in batch.drain(..) {
            let late = watch.take();
            let framed = frame(&Report { id, done, late }).or_else(|error| {
                let done = Done::Failed(format!("the report is lost: {error}"));
                frame(&Report { id, done, late })
            });
            bytes.extend(framed.unwrap_or_default());
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_refused_hears_why() {
        let known = digest("secret");
        let hello = |version, token: &str| Hello { version, token: token.to_owned() };
        assert_eq!(refusal(&hello(VERSION, "secret"), &known), None);
        let wrong = refusal(&hello(VERSION, "other"), &known).expect("a refusal");
        assert!(wrong.contains("token"), "{wrong}");
        let other = refusal(&hello(VERSION + 1, "secret"), &known).expect("a refusal");
        assert!(other.contains(&format!("version {}", VERSION + 1)), "{other}");
    }
}
